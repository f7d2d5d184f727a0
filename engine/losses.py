"""Photometric and smoothness losses, in fp32 whatever the precision around them.

Images are (..., 3, H, W) in [0, 1]; a loss map is (..., H, W). The target's SSIM statistics are computed once and shared by all
that is compared with it.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
SSIM_WEIGHT = 0.85
# Keeps the mean-normalised disparity finite.
EPSILON = 1e-7
# Weight of the pull of the predictive mask towards 1.
MASK_WEIGHT = 0.2
# torch's binary cross entropy bounds its logarithm there.
LOWEST_LOG = -100.0
TIE_BREAK_NOISE = 1e-5
# Pixels of an SSIM window, and the channels that a loss map is the mean over.
WINDOW = 9
CHANNELS = 3


class Target(NamedTuple):
    """An image to compare with, and its SSIM statistics over 3x3 windows: mean and variance; None where SSIM is off."""

    image: Float[Tensor, "*N 3 H W"]
    mean: Float[Tensor, "*N 3 H W"] | None = None
    variance: Float[Tensor, "*N 3 H W"] | None = None


def box_mean(x: Float[Tensor, "*N H W"]) -> Float[Tensor, "*N H W"]:
    """Mean over the 3x3 window around each pixel, the image reflected at its border (edge pixel not repeated)."""
    planes = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (1, 1, 1, 1), mode="reflect")
    return F.avg_pool2d(planes, kernel_size=3, stride=1).reshape(x.shape)


def prepare_target(image: Float[Tensor, "*N 3 H W"], *, use_ssim: bool = True) -> Target:
    """``image`` with the statistics that ``photometric`` needs."""
    if not use_ssim:
        return Target(image)
    if _by_hand(image):
        windows = image.new_empty(2, 2, *image.shape)
        torch.div(torch.stack([image, image * image]), WINDOW, out=windows[0])
        mean, square = window_sums(windows)
        return Target(image, mean, square.addcmul_(mean, mean, value=-1.0))
    mean = box_mean(image)
    return Target(image, mean, box_mean(image * image) - mean * mean)


def ssim(pred: Float[Tensor, "*N 3 H W"], target: Target) -> Float[Tensor, "*N 3 H W"]:
    """Structural dissimilarity clamp((1 - SSIM) / 2, 0, 1) a channel, over 3x3 windows (Wang et al. 2004; box window).

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
        if target.mean is not None and _by_hand(pred):
            assert target.variance is not None
            compared: Tensor = _Photometric.apply(pred, target.image, target.mean, target.variance)
            return compared
        difference = (pred - target.image).abs().mean(dim=-3)
        if target.mean is None:
            return difference
        return SSIM_WEIGHT * ssim(pred, target).mean(dim=-3) + (1.0 - SSIM_WEIGHT) * difference


def _by_hand(x: Tensor) -> bool:
    """Whether ``_Photometric`` serves: on a CPU, where nobody else fuses the passes."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class _Photometric(torch.autograd.Function):
    """``photometric`` with SSIM in few passes, its backward written out: on a CPU passes over memory are what it costs.

    It goes channel by channel, whose intermediate maps fit the cache, and keeps slopes alone. With E the window mean, mx = E[x],
    h1 = mx my + C1/2, h2 = cov + C2/2, d1 = mx^2 + my^2 + C1, d2 = vx + vy + C2 and q = h1 h2 / (d1 d2), SSIM is 4 q. Only
    rounding brings it above 1; it is bounded, lest the automask decide by rounding between images that are both equal to the target.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, image: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """(..., 3, H, W) each, those of the target broadcast, to (..., H, W)."""
        losses = torch.full_like(pred[..., 0, :, :], SSIM_WEIGHT / 2.0)
        # The same memory for each channel: what is new is not in the cache.
        windows, kept = losses.new_empty(2, 3, *losses.shape), []
        for x, y, mean_y, variance_y in zip(*(each.unbind(dim=-3) for each in (pred, image, mean, variance)), strict=True):
            torch.mul(x, 1.0 / WINDOW, out=windows[0, 0])
            torch.mul(windows[0, 0], x, out=windows[0, 1])
            torch.addcmul(x.new_tensor(SSIM_C2 / 2.0 / WINDOW), windows[0, 0], y, out=windows[0, 2])
            mean_x, d2, h2 = window_sums(windows)
            h2.addcmul_(mean_x, mean_y, value=-1.0)
            d2.addcmul_(mean_x, mean_x, value=-1.0).add_(variance_y + SSIM_C2)
            h1 = torch.addcmul(x.new_tensor(SSIM_C1 / 2.0), mean_x, mean_y)
            d1 = torch.addcmul(torch.addcmul(x.new_tensor(SSIM_C1), mean_y, mean_y), mean_x, mean_x)
            inverse = (d1 * d2).reciprocal_()
            q = (h1 * h2).mul_(inverse).clamp_(max=0.25)
            losses.add_((x - y).abs_(), alpha=(1.0 - SSIM_WEIGHT) / CHANNELS).add_(q, alpha=-2.0 * SSIM_WEIGHT / CHANNELS)
            if ctx.needs_input_grad[0]:
                # The slopes of q by the three means; these alone are kept.
                q.mul_(inverse)
                slopes = x.new_empty(3, *x.shape)
                torch.sub(h2, h1, out=slopes[0]).mul_(mean_y).mul_(inverse).addcmul_(d2.sub_(d1).mul_(mean_x), q, value=-2.0)
                torch.mul(q, d1, out=slopes[1])
                torch.mul(h1, inverse, out=slopes[2])
                kept.append(slopes)
        ctx.save_for_backward(pred, image, *kept)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of ``pred``: those of E[x], E[x^2] and E[x y], each carried back over the windows."""
        pred, image, *kept = ctx.saved_tensors
        of_difference, of_q = upstream * ((1.0 - SSIM_WEIGHT) / CHANNELS), upstream * (-2.0 * SSIM_WEIGHT / CHANNELS / WINDOW)
        gradient, windows = torch.empty_like(pred), upstream.new_empty(2, 3, *upstream.shape)
        for channel, slopes in enumerate(kept):
            x, y, of_x = (each[..., channel, :, :] for each in (pred, image, gradient))
            torch.mul(slopes, of_q, out=windows[0])
            of_mean, of_square, of_product = window_sums(windows, transposed=True)
            of_mean.addcmul_(x, of_square, value=-2.0).addcmul_(y, of_product)
            torch.addcmul(of_mean, (x - y).sign_(), of_difference, out=of_x)
        return gradient, None, None, None


def window_sums(windows: Float[Tensor, "2 *N H W"], *, transposed: bool = False) -> Float[Tensor, "*N H W"]:
    """``WINDOW`` times ``box_mean`` of ``windows[0]``, or its transpose, by sums of three along one axis after the other.

    ``windows`` is contiguous; both its halves are written over, and the result lies in the first.
    """
    x, sums = windows
    for step in (x.shape[-1], 1):
        # Flat: shifted by a row, then by a pixel. What this sums across images and across rows is put right below.
        flat = x.view(-1)
        torch.add(flat[: -2 * step], flat[2 * step :], out=sums.view(-1)[step:-step]).add_(flat[step:-step])
        dim = -1 if step == 1 else -2
        for edge, inner in ((0, 1), (-1, -2)):
            torch.add(x.select(dim, edge), x.select(dim, inner), alpha=1.0 if transposed else 2.0, out=sums.select(dim, edge))
        if transposed:
            for edge, inner in ((0, 1), (-1, -2)):
                sums.select(dim, inner).add_(x.select(dim, edge))
        x, sums = sums, x
    return x


def reduce_sources(losses: Float[Tensor, "B S H W"], *, average: bool) -> Float[Tensor, "B H W"]:
    """One loss a pixel from one a source: the least (a source that sees the point), or the mean."""
    if average:
        return losses.mean(dim=1)
    # Pairwise selection gives a tie's gradient to the first, as an argmin does, in fewer passes.
    first, *others = losses.unbind(dim=1)
    for other in others:
        first = torch.where(first <= other, first, other)
    return first


def tie_break(identity: Float[Tensor, "B H W"], noise: float = TIE_BREAK_NOISE) -> Float[Tensor, "B H W"]:
    """Identity losses with Gaussian noise of that deviation, so that where nothing moves neither side wins everywhere."""
    return identity if noise == 0.0 else identity + noise * torch.randn_like(identity)


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
            smooth: Tensor = _Smoothness.apply(disp, image)
            return smooth
        normalised = disp / (disp.mean(dim=(2, 3), keepdim=True) + EPSILON)
        terms = [(normalised.diff(dim=dim).abs() * _evenness(image, dim)).mean() for dim in (3, 2)]
        return terms[0] + terms[1]


def _evenness(image: Tensor, dim: int) -> Tensor:
    """exp(-mean_c |difference of neighbours along ``dim``|) of (B, 3, H, W), one less along ``dim``."""
    length = image.shape[dim] - 1
    steps = image.narrow(dim, 1, length) - image.narrow(dim, 0, length)
    return steps.abs_().sum(dim=1, keepdim=True).mul_(-1.0 / CHANNELS).exp_()


class _Smoothness(torch.autograd.Function):
    """``smoothness`` in few operators, its gradient made along with it; not for a compiler, which needs none of that."""

    @staticmethod
    def forward(ctx: Any, disp: Tensor, image: Tensor) -> Tensor:
        """The loss; kept is its gradient."""
        mean = disp.mean(dim=(2, 3), keepdim=True).add_(EPSILON)
        gradient, terms = torch.zeros_like(disp), []
        for dim in (3, 2):
            length = disp.shape[dim] - 1
            steps = disp.narrow(dim, 1, length) - disp.narrow(dim, 0, length)
            weights = _evenness(image, dim).div_(mean * (steps.numel()))
            # Of disp over a constant mean: the slope of each absolute step, given to its end and taken from its beginning.
            slopes = steps.sign().mul_(weights)
            terms.append(steps.mul_(slopes).sum(dim=(2, 3), keepdim=True))
            gradient.narrow(dim, 1, length).add_(slopes)
            gradient.narrow(dim, 0, length).sub_(slopes)
        of_each = terms[0] + terms[1]
        # And the mean is in inverse proportion to the loss of its image.
        ctx.save_for_backward(gradient.sub_(of_each / (mean * disp[0].numel())))
        return of_each.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """The kept gradient."""
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None
