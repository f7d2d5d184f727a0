"""Augmentation on a GPU: resized frames and draws of a batch in, its images out; the twin (a second implementation) of
``dataload.pipeline.torch_graph``.

Plain operations on whole batches, none of which waits for the GPU. Everything but jitter is integer arithmetic and gives the very pixels
that the CPU's resize gives, so a batch is the same wherever it is made; products are never left to a matrix unit, which may round.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dataload.config import DataConfig
from dataload.pipeline.decode import RESIZER
from dataload.pipeline.order import Draw
from dataload.pipeline.torch_graph import Images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor

# Lanczos with a = 3, shrinking two to one: six source pixels on either side of the centre, which lies between two of them.
TAPS = 12
BEFORE = 5
# Fixed-point weights: Pillow gives them 22 bits after the point, pillow-simd and torch as many as a signed 16-bit weight has room for.
PILLOW_BITS = 22
LARGEST_INT16 = 1 << 15
# The products of one pass are held at once; larger batches are done in parts. Enough for twelve frames of 640x192.
PRODUCT_BYTES = 128 << 20


class DeviceDraws(NamedTuple):
    """The draws of a batch as tensors; fields as in ``dataload.pipeline.order.Draw``."""

    flip: Bool[Tensor, " B"]
    jitter: Bool[Tensor, " B"]
    color: Float[Tensor, "B 3 3"]
    color_mean: Float[Tensor, "B 3 3"]


def pack_draws(draws: Sequence[Draw]) -> DeviceDraws:
    """The draws of a batch's samples as tensors on the CPU."""
    return DeviceDraws(
        torch.tensor([draw.flip for draw in draws]),
        torch.tensor([draw.jitter for draw in draws]),
        torch.from_numpy(np.stack([draw.color for draw in draws])),
        torch.from_numpy(np.stack([draw.color_mean for draw in draws])),
    )


def augment(frames: UInt8[Tensor, "B F H W 3"], draws: DeviceDraws | None, config: DataConfig) -> Images:
    """The images of a batch; new tensors, so ``frames`` may be overwritten afterwards.

    Args:
        frames: as recorded, at the size of level 0: the target, then the sources in the order of ``Batch.sources``.
        draws: on the same device; None where nothing is augmented, and then the inputs share the memory of level 0.
    """
    target, sources = frames[:, :1], frames[:, 1:]
    if draws is None:
        target, sources = (part.clone(memory_format=torch.contiguous_format) for part in (target, sources))
    else:
        target, sources = mirror(target, draws.flip), mirror(sources, draws.flip)
    temporal = sources[:, : len(config.temporal_ids)]
    target_input, source_inputs = (target, temporal) if draws is None else (jitter(target, draws), jitter(temporal, draws))
    return Images(
        tuple(level[:, 0] for level in pyramid(target, config.num_levels)),
        tuple(pyramid(sources, config.source_levels)),
        target_input[:, 0],
        source_inputs,
    )


def mirror(images: UInt8[Tensor, "B F H W 3"], flip: Bool[Tensor, " B"]) -> UInt8[Tensor, "B F H W 3"]:
    """A copy of the images, the samples in ``flip`` mirrored left and right."""
    return torch.where(flip.view(-1, 1, 1, 1, 1), images.flip(3), images).contiguous()


def jitter(images: UInt8[Tensor, "B F H W 3"], draws: DeviceDraws) -> UInt8[Tensor, "B F H W 3"]:
    """A copy of the images, those of jittered samples colour-mapped: ``color @ x + color_mean @ mean(image)``, clipped and rounded."""
    pixels = images.shape[2] * images.shape[3]
    # A product of doubles: a GPU divides by a number of the host in fp32, by a product with its inverse, and rounds otherwise than a CPU.
    mean = (images.sum((2, 3), dtype=torch.int64).double() * (1.0 / pixels)).float()
    # The cast to uint8 cuts off, so adding a half rounds.
    shift = map_colours(draws.color_mean[:, None], mean) + 0.5
    seen = map_colours(draws.color[:, None, None, None], images).add_(shift[:, :, None, None]).clamp_(0, 255)
    return torch.where(draws.jitter.view(-1, 1, 1, 1, 1), seen.to(torch.uint8), images).contiguous()


def map_colours(matrix: Float[Tensor, "... 3 3"], colours: Tensor) -> Float[Tensor, "... 3"]:
    """``matrix @ colours`` in fp32, one product and one sum at a time: the same on every device, whatever it does with matrices."""
    red, green, blue = matrix.unbind(-1)
    mapped = red * colours[..., 0:1]
    mapped += green * colours[..., 1:2]
    mapped += blue * colours[..., 2:3]
    return mapped


def pyramid(images: UInt8[Tensor, "B F H W 3"], num_levels: int) -> list[UInt8[Tensor, "B F h w 3"]]:
    """Level 0, which is ``images``, and those below, each made from the one before.

    The images are mirrored already, unlike those in ``torch_graph``; the weights are symmetric, so the pixels are the same.
    """
    levels = [images]
    for _ in range(1, num_levels):
        levels.append(halve(levels[-1].flatten(0, 1)).unflatten(0, images.shape[:2]))
    return levels


def halve(images: UInt8[Tensor, "N H W 3"], resizer: str = RESIZER) -> UInt8[Tensor, "N H/2 W/2 3"]:
    """Images of half the size, which must be even, to the bit as ``dataload.pipeline.decode.resize`` makes them where it runs ``resizer``.

    Across, then down; rounded and clipped to uint8 after each.
    """
    for dim in (2, 1):
        products = images.shape[1] * images.shape[2] * images.shape[3] // 2 * TAPS
        at_once = max(1, PRODUCT_BYTES // (products * torch.int32.itemsize))
        parts = [_halve_along(part, dim, resizer) for part in images.split(at_once)]
        images = parts[0] if len(parts) == 1 else torch.cat(parts)
    return images


def _halve_along(images: UInt8[Tensor, "N H W 3"], dim: int, resizer: str) -> Tensor:
    weights, bits = halving_weights(images.shape[dim], resizer, images.device)
    around = (BEFORE, TAPS - 2 - BEFORE)
    # The weights of pixels outside the image are 0, so any value serves there.
    padded = F.pad(images, (0, 0, *around) if dim == 2 else (0, 0, 0, 0, *around))
    taps = padded.unfold(dim, TAPS, 2)
    total = (taps * (weights[:, None] if dim == 2 else weights[:, None, None])).sum(-1, dtype=torch.int32)
    rounded = total.add_(1 << (bits - 1)).bitwise_right_shift_(bits).clamp_(0, 255)
    return rounded.to(torch.uint8, memory_format=torch.contiguous_format)


@cache
def halving_weights(size: int, resizer: str, device: torch.device) -> tuple[Int[Tensor, "size/2 12"], int]:
    """Fixed-point weights that halve ``size`` pixels, and how many bits stand after the point.

    Output i takes inputs 2 i - 5 to 2 i + 6; those outside weigh 0 and the rest is scaled up to a sum of 1. Kept for each size and
    device; the first call for each waits until the device has them, so that any stream may use them.
    """
    assert size % 2 == 0, size
    distance = (np.arange(TAPS) - BEFORE - 0.5) / 2
    inputs = 2 * np.arange(size // 2)[:, None] - BEFORE + np.arange(TAPS)
    weights = np.where((inputs >= 0) & (inputs < size), np.sinc(distance) * np.sinc(distance / 3), 0.0)
    weights /= weights.sum(1, keepdims=True)
    bits = PILLOW_BITS
    if resizer != "pillow":
        bits = next(bits for bits in range(PILLOW_BITS + 1) if 0.5 + np.max(weights) * 2 ** (bits + 1) >= LARGEST_INT16)
    fixed = weights * 2**bits
    return torch.from_numpy(np.trunc(fixed + np.copysign(0.5, fixed)).astype(np.int32)).to(device), bits
