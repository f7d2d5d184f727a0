"""The decoder from encoder features to one or more maps in (0, 1) at up to four resolutions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.choices import SCALES, check_scales
from engine.networks.recompute import Recomputing
from splits.errors import InputError

NUM_STAGES = 5
# Channels after the stage that ends at scale 0, 1, ... 4.
NUM_CH_DEC = (16, 32, 64, 128, 256)


class Conv3x3(nn.Module):
    """3x3 convolution of a map that has a border, to be a reflected one: zeros there would draw a frame of wrong depth."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, bordered: Tensor) -> Tensor:
        """(B, in, h + 2, w + 2) to (B, out, h, w)."""
        return self.conv(bordered)


class ConvBlock(nn.Module):
    """``Conv3x3`` and ELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)

    def forward(self, bordered: Tensor) -> Tensor:
        """(B, in, h + 2, w + 2) to (B, out, h, w)."""
        return F.elu(self.conv(bordered), inplace=True)


class DepthDecoder(Recomputing):
    """Five stages of convolution, doubling and skip connection, with a sigmoid head at each asked scale.

    ``decoder`` is one list: two blocks a stage from the coarsest to the finest (0..9), then the heads in the order of ``scales``;
    the order fixes the state-dict keys.

    Args:
        num_ch_enc: channels of the encoder's five feature maps, finest first.
        scales: distinct scales in 0..3; scale s has 1/2^s of the encoder's input size.
        num_output_channels: maps per scale: 1 for disp, one a source for the predictive mask.

    Raises:
        InputError: ``scales`` is empty, repeats a scale or holds one outside 0..3.
    """

    def __init__(self, num_ch_enc: Sequence[int], scales: Sequence[int] = SCALES, num_output_channels: int = 1) -> None:
        super().__init__()
        check_scales(scales)
        self.scales = tuple(scales)
        blocks: list[nn.Module] = []
        for stage in reversed(range(NUM_STAGES)):
            from_below = num_ch_enc[-1] if stage == NUM_STAGES - 1 else NUM_CH_DEC[stage + 1]
            skipped = num_ch_enc[stage - 1] if stage > 0 else 0
            blocks += [ConvBlock(from_below, NUM_CH_DEC[stage]), ConvBlock(NUM_CH_DEC[stage] + skipped, NUM_CH_DEC[stage])]
        heads = [Conv3x3(NUM_CH_DEC[scale], num_output_channels) for scale in self.scales]
        self.decoder = nn.ModuleList([*blocks, *heads])
        # Stages finer than the finest asked scale are kept for the files' sake, but nothing reads them.
        for block in blocks[2 * (NUM_STAGES - min(self.scales)) :]:
            block.requires_grad_(False)

    @property
    def heads(self) -> list[Conv3x3]:
        """The output convolutions, in the order of ``scales``."""
        return [head for head in self.decoder[2 * NUM_STAGES :] if isinstance(head, Conv3x3)]

    def forward(self, features: Sequence[Tensor]) -> dict[int, Tensor]:
        """Maps by scale, fp32 of shape (B, num_output_channels, H >> s, W >> s) in (0, 1), from five features, finest first."""
        outputs: dict[int, Tensor] = {}
        x = reflect_border(features[-1])
        for stage in reversed(range(min(self.scales), NUM_STAGES)):
            x, *output = self.section(self._stage, stage, x, features[stage - 1] if stage > 0 else None)
            if output:
                outputs[stage] = output[0]
        return outputs

    def _stage(self, stage: int, bordered: Tensor, skipped: Tensor | None) -> tuple[Tensor, ...]:
        """What the next stage reads, twice the size of ``bordered`` and with a border too, and this stage's maps where asked for."""
        first = 2 * (NUM_STAGES - 1 - stage)
        x = self.decoder[first](bordered)
        x = reflect_border(self.decoder[first + 1](double_with_border(x, skipped)))
        if stage not in self.scales:
            return (x,)
        logits = self.decoder[2 * NUM_STAGES + self.scales.index(stage)](x)
        # A half-precision sigmoid would cost 0.4 % of depth.
        return x, torch.sigmoid(logits.float())


def reflect_border(x: Tensor) -> Tensor:
    """(B, C, h, w) with one more pixel around, mirrored at the edge pixel: (B, C, h + 2, w + 2)."""
    if x.device.type == "cpu" and _by_hand() and min(x.shape[-2:]) >= 4:
        bordered: Tensor = _ReflectBorder.apply(x)
        return bordered
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


def double_with_border(x: Tensor, skipped: Tensor | None) -> Tensor:
    """(B, C, h, w) by nearest neighbours at twice the size, joined with ``skipped`` (B, D, 2 h, 2 w), and a reflected border around."""
    if _by_hand() and min(x.shape[-2:]) >= 2 and (skipped is None or skipped.dtype == x.dtype):
        bordered: Tensor = _DoubleWithBorder.apply(x, skipped)
        return bordered
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.pad(x if skipped is None else torch.cat([x, skipped], dim=1), (1, 1, 1, 1), mode="reflect")


def _by_hand() -> bool:
    """Whether the functions below serve; a compiler makes better of plain operators, and an export has to hold them."""
    return not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def _bordered_like(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """An empty map with room for a border, in the dtype and layout of ``x``."""
    memory_format = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return torch.empty(len(x), channels, height + 2, width + 2, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _mirror(bordered: Tensor) -> None:
    """Fill the border of a map of at least 4x4 from its inside: both rows, then both columns with the corners."""
    height, width = bordered.shape[-2:]
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
        bordered = _bordered_like(x, *x.shape[1:])
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
        bordered = _bordered_like(x, channels + (0 if skipped is None else skipped.shape[1]), 2 * height, 2 * width)
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


def set_initial_disp(decoder: DepthDecoder, disp: float) -> None:
    """Make an untrained decoder answer about ``disp`` everywhere: each head's bias becomes logit(disp).

    Raises:
        InputError: ``disp`` is not strictly between 0 and 1.
    """
    if not 0.0 < disp < 1.0:
        raise InputError(
            f"initial disp {disp:g} must lie strictly between 0 and 1; choose an initial depth between min_depth and max_depth"
        )
    for head in decoder.heads:
        if head.conv.bias is not None:
            nn.init.constant_(head.conv.bias, math.log(disp / (1.0 - disp)))
