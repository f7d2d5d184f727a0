"""Borders that mirror a map at its edge pixels, written once, where the convolution reads them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def reflect_border(x: Tensor) -> Tensor:
    """(B, C, h, w) with one more pixel around, mirrored at the edge pixel: (B, C, h + 2, w + 2)."""
    if _by_hand() and x.device.type == "cpu" and min(x.shape[-2:]) >= 4:
        bordered: Tensor = _ReflectBorder.apply(x)
        return bordered
    if _by_hand() and x.device.type != "cpu" and x.is_contiguous(memory_format=torch.channels_last) and not _joins(x):
        return _pad_pixels(x)
    return plain_border(x)


def plain_border(x: Tensor) -> Tensor:
    """``reflect_border`` by torch's own padding, or where ``--deterministic`` forbids that on a GPU, as rows and columns that are joined.

    The gradient of its padding is added up there in no certain order.
    """
    if not _joins(x):
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = torch.cat([x[..., 1:2, :], x, x[..., -2:-1, :]], dim=-2)
    return torch.cat([x[..., 1:2], x, x[..., -2:-1]], dim=-1)


def _pad_pixels(x: Tensor) -> Tensor:
    """``reflect_border`` of a channels_last map, in its layout: a GPU pads images into NCHW, which the next convolution would copy back.

    As a volume whose innermost axis are the channels, which get no border, it is padded by one kernel in the order of its memory.
    """
    volume = F.pad(x.movedim(1, -1)[:, None], (0, 0, 1, 1, 1, 1), mode="reflect")
    return volume[:, 0].movedim(-1, 1)


def double_with_border(x: Tensor, skipped: Tensor | None) -> Tensor:
    """(B, C, h, w) by nearest neighbours at twice the size, joined with ``skipped`` (B, D, 2 h, 2 w), and a reflected border around."""
    if _by_hand() and min(x.shape[-2:]) >= 2 and (skipped is None or skipped.dtype == x.dtype):
        bordered: Tensor = _DoubleWithBorder.apply(x, skipped)
        return bordered
    x = _double(x)
    return plain_border(x if skipped is None else torch.cat([x, skipped], dim=1))


def _double(x: Tensor) -> Tensor:
    """Each pixel as a cell of 2x2, in plain operators."""
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    # A compiler makes sums over cells of its gradient; that of ``interpolate`` would be added up pixel by pixel, by atomic operations.
    batch, channels, height, width = x.shape
    cells = x[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2)
    return cells.reshape(batch, channels, 2 * height, 2 * width)


def _joins(x: Tensor) -> bool:
    """Whether ``--deterministic`` forbids the padding of this device."""
    return x.device.type != "cpu" and torch.are_deterministic_algorithms_enabled()


def _by_hand() -> bool:
    """Whether the functions below are used: a compiler does better with plain operators, and an export has to consist of them."""
    return not torch.compiler.is_compiling() and not torch.jit.is_tracing()  # type: ignore[attr-defined]


def _empty_with_border(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """An empty map with room for a border, in the dtype and layout of ``x``."""
    memory_format = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return torch.empty(len(x), channels, height + 2, width + 2, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _mirror(bordered: Tensor) -> None:
    """Fill the border of a map of at least 4x4 from its inside: both rows, then both columns with the corners."""
    height, width = bordered.shape[-2:]
    # One copy for both: of rows 2 and -3 to rows 0 and -1, whose indices are the ends of a slice.
    bordered[..., :: height - 1, 1:-1] = bordered[..., 2 : height - 2 : height - 5, 1:-1]
    bordered[..., :: width - 1] = bordered[..., 2 : width - 2 : width - 5]


def _fold(upstream: Tensor) -> Tensor:
    """The transpose of ``_mirror``: a copy without the border, whose gradient is added to the pixels that it mirrors."""
    height, width = upstream.shape[-2:]
    memory_format = torch.channels_last if upstream.stride(1) == 1 else torch.contiguous_format
    gradient = upstream[..., 1:-1].clone(memory_format=memory_format)
    gradient[..., 1 : width - 3 : width - 5].add_(upstream[..., :: width - 1])
    gradient[..., 2 : height - 2 : height - 5, :].add_(gradient[..., :: height - 1, :])
    return gradient[..., 1:-1, :]


class _ReflectBorder(torch.autograd.Function):
    """``reflect_border`` in the input's own dtype and layout; on a CPU, autocast has padding done in fp32 at forty times the cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h + 2, w + 2)."""
        bordered = _empty_with_border(x, *x.shape[1:])
        bordered[..., 1:-1, 1:-1] = x
        _mirror(bordered)
        return bordered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        """Fold the border's gradient back."""
        return _fold(upstream)


class _DoubleWithBorder(torch.autograd.Function):
    """``double_with_border`` written once, where the convolution reads it, in the input's own dtype and layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, skipped: Tensor | None) -> Tensor:
        """(B, C, h, w) and (B, D, 2 h, 2 w) to (B, C + D, 2 h + 2, 2 w + 2)."""
        _, channels, height, width = x.shape
        bordered = _empty_with_border(x, channels + (0 if skipped is None else skipped.shape[1]), 2 * height, 2 * width)
        doubled = bordered[:, :channels, 1:-1, 1:-1]
        if x.device.type == "cpu":
            # A CPU copies three times in order faster than once by cells of 2x2.
            doubled[..., ::2, ::2], doubled[..., ::2, 1::2] = x, x
            doubled[..., 1::2, :] = doubled[..., ::2, :]
        else:
            doubled.unflatten(3, (width, 2)).unflatten(2, (height, 2)).copy_(x[:, :, :, None, :, None])
        if skipped is not None:
            bordered[:, channels:, 1:-1, 1:-1] = skipped
        _mirror(bordered)
        ctx.shape = x.shape
        return bordered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fold the border's gradient back, and sum it over the cells of 2x2 for ``x``."""
        channels = ctx.shape[1]
        doubled = _fold(upstream[:, :channels])
        of_x = torch.ops.aten.upsample_nearest2d_backward(doubled, doubled.shape[2:], ctx.shape, 2.0, 2.0)
        return of_x, _fold(upstream[:, channels:]) if ctx.needs_input_grad[1] else None
