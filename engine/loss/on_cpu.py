"""The terms of the loss for a CPU, in few passes over memory, with their gradients written out: no compiler fuses them there.

The same numbers as ``terms`` gives, to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.loss.constants import CHANNELS, EPSILON, SSIM_C1, SSIM_C2, SSIM_WEIGHT, WINDOW


def serves(x: Tensor) -> bool:
    """Whether SSIM is computed here for ``x``: on a CPU, where no compiler fuses the passes."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def window_statistics(image: Float[Tensor, "*N H W"]) -> tuple[Float[Tensor, "*N H W"], Float[Tensor, "*N H W"]]:
    """Mean and variance over the 3x3 window around each pixel."""
    windows = image.new_empty(2, 2, *image.shape)
    torch.div(torch.stack([image, image * image]), WINDOW, out=windows[0])
    mean, square = window_sums(windows)
    return mean, square.addcmul_(mean, mean, value=-1.0)


def photometric(
    pred: Float[Tensor, "*N 3 H W"], image: Float[Tensor, "*N 3 H W"], mean: Float[Tensor, "*N 3 H W"], variance: Float[Tensor, "*N 3 H W"]
) -> Float[Tensor, "*N H W"]:
    """``terms.photometric`` with SSIM, from a target's image and its window statistics, which may be broadcast."""
    compared: Tensor = _Photometric.apply(pred, image, mean, variance)
    return compared


def smoothness(disp: Float[Tensor, "B 1 H W"], image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """``terms.smoothness``, on every device."""
    smooth: Tensor = _Smoothness.apply(disp, image)
    return smooth


class _Photometric(torch.autograd.Function):
    """``photometric`` and its backward.

    It works channel by channel, so that intermediate maps fit the cache, and keeps slopes alone. With E the window mean, mx = E[x],
    h1 = mx my + C1/2, h2 = cov + C2/2, d1 = mx^2 + my^2 + C1, d2 = vx + vy + C2 and q = h1 h2 / (d1 d2), SSIM is 4 q. Only
    rounding brings it above 1; it is bounded, so that the automask does not
    decide by rounding between images that are both equal to the target.
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
    """``WINDOW`` times ``terms.box_mean`` of ``windows[0]``, or its transpose, by sums of three along one axis after the other.

    ``windows`` is contiguous; both its halves are written over, and the result lies in the first.
    """
    x, sums = windows
    for step in (x.shape[-1], 1):
        # Flat: shifted by a row, then by a pixel. Wrong sums across images and across rows are corrected below.
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


def _evenness(image: Tensor, dim: int) -> Tensor:
    """exp(-mean_c |difference of neighbours along ``dim``|) of (B, 3, H, W), one less along ``dim``."""
    length = image.shape[dim] - 1
    steps = image.narrow(dim, 1, length) - image.narrow(dim, 0, length)
    return steps.abs_().sum(dim=1, keepdim=True).mul_(-1.0 / CHANNELS).exp_()


class _Smoothness(torch.autograd.Function):
    """``smoothness``, its gradient made along with it."""

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
