"""The terms of the published loss, in fp32 whatever the precision around them.

Images are (..., 3, H, W) in [0, 1]; a loss map is (..., H, W). The target's SSIM statistics are computed once and shared by all
that is compared with it. Where no compiler fuses these operators, ``on_cpu`` computes the same in fewer passes over memory.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from engine.loss import on_cpu
from engine.loss.constants import EPSILON, LOWEST_LOG, MASK_WEIGHT, SSIM_C1, SSIM_C2, SSIM_WEIGHT, TIE_BREAK_NOISE
from engine.loss.noise import standard_normal
from engine.networks.border import plain_border


class Target(NamedTuple):
    """An image to compare with, and its SSIM statistics over 3x3 windows: mean and variance; None where SSIM is off."""

    image: Float[Tensor, "*N 3 H W"]
    mean: Float[Tensor, "*N 3 H W"] | None = None
    variance: Float[Tensor, "*N 3 H W"] | None = None


def box_mean(x: Float[Tensor, "*N H W"]) -> Float[Tensor, "*N H W"]:
    """Mean over the 3x3 window around each pixel, the image reflected at its border (edge pixel not repeated)."""
    planes = plain_border(x.reshape(-1, 1, *x.shape[-2:]))
    return F.avg_pool2d(planes, kernel_size=3, stride=1).reshape(x.shape)


def prepare_target(image: Float[Tensor, "*N 3 H W"], *, use_ssim: bool = True) -> Target:
    """``image`` with the statistics that ``photometric`` needs."""
    if not use_ssim:
        return Target(image)
    if on_cpu.serves(image):
        return Target(image, *on_cpu.window_statistics(image))
    mean = box_mean(image)
    return Target(image, mean, box_mean(image * image) - mean * mean)


def ssim(pred: Float[Tensor, "*N 3 H W"], target: Target) -> Float[Tensor, "*N 3 H W"]:
    """Structural dissimilarity clamp((1 - SSIM) / 2, 0, 1) per channel, over 3x3 windows (Wang et al. 2004; box window).

    SSIM = (2 mx my + C1)(2 cov + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2)), variances as E[x^2] - E[x]^2.
    """
    assert target.mean is not None, "the target was prepared without SSIM"
    assert target.variance is not None
    mean = box_mean(pred)
    variance = box_mean(pred * pred) - mean * mean
    product = mean * target.mean
    covariance = box_mean(pred * target.image) - product
    numerator = (2.0 * product + SSIM_C1) * (2.0 * covariance + SSIM_C2)
    denominator = (mean * mean + target.mean * target.mean + SSIM_C1) * (variance + target.variance + SSIM_C2)
    return torch.clamp((1.0 - numerator / denominator) / 2.0, 0.0, 1.0)


def photometric(pred: Float[Tensor, "*N 3 H W"], target: Target) -> Float[Tensor, "*N H W"]:
    """0.85 SSIM dissimilarity + 0.15 absolute difference, means over channels; the difference alone when SSIM is off."""
    with torch.autocast(pred.device.type, enabled=False):
        if target.mean is not None and target.variance is not None and on_cpu.serves(pred):
            return on_cpu.photometric(pred, target.image, target.mean, target.variance)
        difference = (pred - target.image).abs().mean(dim=-3)
        if target.mean is None:
            return difference
        return SSIM_WEIGHT * ssim(pred, target).mean(dim=-3) + (1.0 - SSIM_WEIGHT) * difference


def reduce_sources(losses: Float[Tensor, "B S H W"], *, average: bool) -> Float[Tensor, "B H W"]:
    """Per-pixel loss reduced over sources: the least (a source that sees the point), or the mean."""
    if average:
        return losses.mean(dim=1)
    # Pairwise selection gives a tie's gradient to the first, as an argmin does, in fewer passes.
    first, *others = losses.unbind(dim=1)
    for other in others:
        first = torch.where(first <= other, first, other)
    return first


def tie_break(identity: Float[Tensor, "B H W"], seeds: Int[Tensor, " B"], noise: float = TIE_BREAK_NOISE) -> Float[Tensor, "B H W"]:
    """Identity losses plus Gaussian noise of that deviation, which breaks ties where nothing moves; ``seeds`` are the samples'."""
    return identity if noise == 0.0 else identity + noise * standard_normal(seeds, identity.shape[-2:])


def automask(
    reprojection: Float[Tensor, "B H W"], identity: Float[Tensor, "B H W"]
) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
    """``(losses, used)``: pixels better explained by an unmoved source keep its loss, which has no gradient; ``used`` is 1 elsewhere."""
    used = reprojection < identity
    return torch.where(used, reprojection, identity), used.float()


def mask_loss(mask: Float[Tensor, "B S H W"]) -> Float[Tensor, ""]:
    """0.2 times the cross entropy of the predictive mask with 1, without which it would mask everything."""
    return -MASK_WEIGHT * mask.log().clamp(min=LOWEST_LOG).mean()


def smoothness(disp: Float[Tensor, "B 1 H W"], image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Edge-aware first-order smoothness of the mean-normalised disp d = disp / (mean disp + 1e-7).

    mean(|dx d| exp(-mean_c |dx image|)) + the same in y.
    """
    with torch.autocast(disp.device.type, enabled=False):
        disp = disp.float()
        if not torch.compiler.is_compiling():
            return on_cpu.smoothness(disp, image)
        normalised = disp / (disp.mean(dim=(2, 3), keepdim=True) + EPSILON)
        in_x, in_y = (
            (normalised.diff(dim=dim).abs() * torch.exp(-image.diff(dim=dim).abs().mean(dim=1, keepdim=True))).mean() for dim in (3, 2)
        )
        return in_x + in_y
