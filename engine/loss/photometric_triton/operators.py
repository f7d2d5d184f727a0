"""The fused losses as torch operators: differentiable, known to compilers and to the meta device, their traffic declared."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from engine.loss.photometric_triton.photometric_kernels import gather_kernel, photometric_kernel
from engine.loss.photometric_triton.smoothness_kernels import smoothness_gradient_kernel, smoothness_losses_kernel, smoothness_sums_kernel

# Pixels side by side (a warp's lanes; the interpreter takes more at once) and rows that one program of the photometric kernel does.
LANES = 32
ROWS = 24
# Sources that one launch of the photometric kernel takes together; more are taken in groups, whose gradients need no memory but registers.
TOGETHER = 3
GROUP = 2
# Pixels that a program of the other kernels does.
BLOCK = 512
# Batches up to this size are added up by the same kernel.
SAMPLES = 64


class Pyramid(NamedTuple):
    """Sizes of maps that are kept one after the other in one flat tensor: ``batch`` images of ``size_px`` halved ``shifts`` times each."""

    batch: int
    size_px: tuple[int, int]
    shifts: list[int]

    @property
    def constants(self) -> dict[str, int]:
        """The sizes as compile-time constants of the kernels."""
        packed = sum(shift << (4 * i) for i, shift in enumerate(self.shifts))
        return {"H": self.size_px[0], "W": self.size_px[1], "SHIFTS": packed, "NUM_SCALES": len(self.shifts)}

    def blocks(self) -> tuple[int, int]:
        """Programs over the pixels of each image of each scale."""
        return triton.cdiv(self.size_px[0] * self.size_px[1], BLOCK), len(self.shifts) * self.batch


def _shifts(maps: Sequence[Tensor], size_px: Sequence[int]) -> list[int]:
    shifts = [(size_px[0] // each.shape[-2]).bit_length() - 1 for each in maps]
    for each, shift in zip(maps, shifts, strict=True):
        assert (each.shape[-2] << shift, each.shape[-1] << shift) == tuple(size_px), f"{tuple(each.shape)} in {tuple(size_px)}"
    return shifts


def pack(images: Tensor) -> Tensor:
    """uint8 images (..., 3, H, W) as (..., H, W) int32, so that a pixel is one read: red in the lowest byte."""
    return F.pad(images.movedim(-3, -1), (0, 1)).contiguous().view(torch.int32)[..., 0]


def identity_loss(target: Tensor, sources: Tensor, seeds: Tensor, *, noise: float, ssim: bool, average: bool) -> Tensor:
    """Photometric loss (B, H, W) of the unmoved sources, the smallest or the mean of them, with Gaussian noise of that deviation.

    Args:
        target, sources: packed, (B, H, W) and (B, S, H, W).
        seeds: of each sample's noise, (B,) int64 on the device.
    """
    loss: Tensor = _identity(target, sources, seeds, noise, ssim, average)
    return loss


def photometric(
    disps: Sequence[Tensor],
    motions: Tensor,
    target: Tensor,
    sources: Tensor,
    identity: Tensor | None,
    *,
    min_depth: float,
    max_depth: float,
    ssim: bool,
    average: bool,
) -> Tensor:
    """Mean photometric loss of each scale, (N,), differentiable with respect to ``disps`` and ``motions``.

    Args:
        disps: by scale (B, 1, h, w) in fp32, each of the images' size or halved some times without remainder.
        motions: A and b of q = depth A (x, y, 1) + b, the pixel of a source in homogeneous form, as [A b]: (N, B, S, 3, 4).
        target, sources: packed, (B, H, W) and (B, S, H, W).
        identity: loss of the unmoved sources, (B, H, W); None without automask.
        average: over the sources, instead of the least.
    """
    low, high = 1.0 / max_depth, 1.0 / min_depth
    shifts, wanted = _shifts(disps, target.shape[-2:]), torch.is_grad_enabled()
    flat = torch.cat([disp.reshape(-1) for disp in disps])
    losses: Tensor = _photometric(flat, motions, target, sources, identity, shifts, low, high - low, ssim, average, wanted)[0]
    return losses


def smoothness(disps: Sequence[Tensor], images: Sequence[Tensor], *, weight: float) -> Tensor:
    """``terms.smoothness`` of each scale, (N,), ``weight`` times and half as much with each halving of size; differentiable.

    Args:
        disps: by scale (B, 1, h, w) in fp32.
        images: by scale (B, 3, h, w) uint8, the first scale's size halved without remainder for the others'.
    """
    # Not by comparing tuples, nor by a generator: torch's compiler follows neither.
    size_px = max([disp.shape[-2] for disp in disps]), max([disp.shape[-1] for disp in disps])
    flat = torch.cat([disp.reshape(-1) for disp in disps])
    # One channel after the other within each pixel, as the loader ships them: no copy is made of one image.
    pixels = torch.cat([image.movedim(1, -1).reshape(-1, image.shape[1]) for image in images])
    packed = pack(pixels[..., None, None])[:, 0, 0]
    losses: Tensor = _smoothness(flat, packed, weight, len(disps[0]), size_px, _shifts(disps, size_px))[0]
    return losses


@torch.library.custom_op("md_engine::photometric_identity", mutates_args=())
def _identity(target: Tensor, sources: Tensor, seeds: Tensor, noise: float, ssim: bool, average: bool) -> Tensor:
    losses = torch.empty(target.shape, device=target.device)
    batch, num_sources, height_px, width_px = sources.shape
    pyramid = Pyramid(batch, (height_px, width_px), [0])
    photometric_kernel[_strips(pyramid, halo=1)](
        losses, losses, target, sources, losses, seeds, losses, losses, losses, losses, losses, batch, 0.0, 0.0, noise, 0.0,
        **pyramid.constants, S=num_sources, FIRST=0, COUNT=num_sources, WARP=False, GRADIENT=False, CHOICE=False,
        SSIM=ssim, AVERAGE=average, AUTOMASK=False, LANES=LANES, ROWS=ROWS, num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    return losses


@_identity.register_fake
def _(target: Tensor, sources: Tensor, seeds: Tensor, noise: float, ssim: bool, average: bool) -> Tensor:
    return target.new_empty(target.shape, dtype=torch.float32)


@torch.library.custom_op("md_engine::photometric", mutates_args=())
def _photometric(
    disps: Tensor,
    motions: Tensor,
    target: Tensor,
    sources: Tensor,
    identity: Tensor | None,
    shifts: Sequence[int],
    low: float,
    span: float,
    ssim: bool,
    average: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses (N,) and, where wanted, each one's gradient: of the upsampled disparities (N, B, H, W), and of the motions; else empty."""
    batch, num_sources, height_px, width_px = sources.shape
    pyramid, device, scales = Pyramid(batch, (height_px, width_px), list(shifts)), target.device, len(shifts)
    launches = launches_of(num_sources, with_gradient=with_gradient)
    grids = [_strips(pyramid, halo=2 if launch.gradient else 1) for launch in launches]
    sums = torch.empty(scales, batch * math.prod(grids[0][:2]), device=device)
    by_disps = torch.empty((scales, *target.shape) if with_gradient else 0, device=device)
    by_motions = torch.empty((scales, batch, math.prod(grids[-1][:2]), num_sources, 3, 4) if with_gradient else 0, device=device)
    grouped = len(launches) > 1
    loss_map = torch.empty((scales, *target.shape) if grouped else 0, device=device)
    choice_map = torch.empty((scales, *target.shape) if grouped and with_gradient else 0, device=device, dtype=torch.uint8)
    motions = motions.contiguous()
    for grid, launch in zip(grids, launches, strict=True):
        masks = identity is not None and launch.first + launch.num_sources == num_sources
        photometric_kernel[grid](
            disps, motions, target, sources, sums if identity is None else identity, target, loss_map, choice_map,
            sums, by_disps, by_motions, batch, low, span, 0.0, 1.0 / target.numel(), **pyramid.constants,
            S=num_sources, FIRST=launch.first, COUNT=launch.num_sources, WARP=True, GRADIENT=launch.gradient,
            CHOICE=grouped and with_gradient, SSIM=ssim, AVERAGE=average, AUTOMASK=masks,
            LANES=LANES, ROWS=ROWS, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
    return sums.sum(dim=1) / target.numel(), by_disps, by_motions.sum(dim=2) if with_gradient else by_motions


@_photometric.register_fake
def _(
    disps: Tensor,
    motions: Tensor,
    target: Tensor,
    sources: Tensor,
    identity: Tensor | None,
    shifts: Sequence[int],
    low: float,
    span: float,
    ssim: bool,
    average: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    by_disps = disps.new_empty((len(shifts), *target.shape) if with_gradient else 0)
    return disps.new_empty(len(shifts)), by_disps, disps.new_empty(motions.shape if with_gradient else 0)


class Launch(NamedTuple):
    """One launch of the photometric kernel: the sources it takes, and whether it makes their gradients."""

    first: int
    num_sources: int
    gradient: bool


def launches_of(num_sources: int, *, with_gradient: bool) -> list[Launch]:
    """Losses and gradients at once of few sources; of many, first the losses, a group after the other, then their gradients."""
    if num_sources <= TOGETHER:
        return [Launch(0, num_sources, with_gradient)]
    groups = [(first, min(GROUP, num_sources - first)) for first in range(0, num_sources, GROUP)]
    return [Launch(*group, gradient) for gradient in ((False, True) if with_gradient else (False,)) for group in groups]


def _strips(pyramid: Pyramid, *, halo: int) -> tuple[int, int, int]:
    height_px, width_px = pyramid.size_px
    return triton.cdiv(width_px, LANES - 2 * halo), triton.cdiv(height_px, ROWS), len(pyramid.shifts) * pyramid.batch


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.shifts = list(inputs[5])
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    # Else backward were handed zeros of the kept gradients' size.
    ctx.set_materialize_grads(False)


def _photometric_backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    by_disps, by_motions = ctx.saved_tensors
    upstream = upstream.contiguous()
    return _gather(by_disps, upstream, ctx.shifts), by_motions * upstream[:, None, None, None, None], *[None] * 9


_photometric.register_autograd(_photometric_backward, setup_context=_keep_gradients)


@torch.library.custom_op("md_engine::photometric_gather", mutates_args=())
def _gather(by_disps: Tensor, upstream: Tensor, shifts: Sequence[int]) -> Tensor:
    """The gradient of the disparities, flat, from that of the upsampled ones and of the losses."""
    _, batch, height_px, width_px = by_disps.shape
    gradient = torch.empty(sum(batch * height_px * width_px >> (2 * shift) for shift in shifts), device=by_disps.device)
    constants = Pyramid(batch, (height_px, width_px), list(shifts)).constants
    gather_kernel[(triton.cdiv(gradient.numel(), BLOCK),)](by_disps, upstream, gradient, batch, **constants, BLOCK=BLOCK)
    return gradient


@_gather.register_fake
def _(by_disps: Tensor, upstream: Tensor, shifts: Sequence[int]) -> Tensor:
    return by_disps.new_empty(sum(by_disps[0].numel() >> (2 * shift) for shift in shifts))


@torch.library.custom_op("md_engine::smoothness", mutates_args=())
def _smoothness(
    disps: Tensor, pixels: Tensor, weight: float, batch: int, size_px: Sequence[int], shifts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The losses (N,), and the sums (N B, 3) of each image that its gradient is made of."""
    pyramid = Pyramid(batch, (size_px[0], size_px[1]), list(shifts))
    blocks, images = pyramid.blocks()
    parts = torch.empty(images, blocks, 3, device=disps.device)
    smoothness_sums_kernel[(blocks, images)](disps, pixels, parts, batch, **pyramid.constants, BLOCK=BLOCK)
    sums, losses = parts.sum(dim=1), torch.empty(len(shifts), device=disps.device)
    samples = max(SAMPLES, triton.next_power_of_2(batch))
    smoothness_losses_kernel[(len(shifts),)](sums, losses, batch, weight, **pyramid.constants, SAMPLES=samples)
    return losses, sums


@_smoothness.register_fake
def _(disps: Tensor, pixels: Tensor, weight: float, batch: int, size_px: Sequence[int], shifts: Sequence[int]) -> tuple[Tensor, Tensor]:
    return disps.new_empty(len(shifts)), disps.new_empty(len(shifts) * batch, 3)


def _keep_sums(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    disps, pixels, *ctx.sizes = inputs
    ctx.save_for_backward(disps, pixels, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _smoothness_backward(ctx: Any, upstream: Tensor, _sums: None) -> tuple[Tensor | None, ...]:
    return _smoothness_gradient(*ctx.saved_tensors, upstream.contiguous(), *ctx.sizes), *[None] * 5


_smoothness.register_autograd(_smoothness_backward, setup_context=_keep_sums)


@torch.library.custom_op("md_engine::smoothness_gradient", mutates_args=())
def _smoothness_gradient(
    disps: Tensor, pixels: Tensor, sums: Tensor, upstream: Tensor, weight: float, batch: int, size_px: Sequence[int], shifts: Sequence[int]
) -> Tensor:
    pyramid, gradient = Pyramid(batch, (size_px[0], size_px[1]), list(shifts)), torch.empty_like(disps)
    smoothness_gradient_kernel[pyramid.blocks()](disps, pixels, sums, upstream, gradient, batch, weight, **pyramid.constants, BLOCK=BLOCK)
    return gradient


@_smoothness_gradient.register_fake
def _(
    disps: Tensor, pixels: Tensor, sums: Tensor, upstream: Tensor, weight: float, batch: int, size_px: Sequence[int], shifts: Sequence[int]
) -> Tensor:
    return torch.empty_like(disps)
