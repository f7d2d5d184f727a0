"""Device functions of the photometric loss over 3x3 windows, and of its derivatives.

In levels of 0..255 and window sums in place of means (s1 = 9 mx, ...), with constants scaled to fit, SSIM is

    (2 s1 t1 + c1)(2 (9 s12 - s1 t1) + c2) / ((s1^2 + t1^2 + c1)(9 s11 - s1^2 + 9 t11 - t1^2 + c2)),

where s stands for the image, t for the target. The target's share of it is then exact.
"""

import triton
import triton.language as tl

from engine.loss.constants import CHANNELS, SSIM_C1, SSIM_C2, SSIM_WEIGHT, WINDOW
from engine.loss.photometric_triton.pixels import LEVELS, add_weighted, reciprocal, shift_lanes

C1 = tl.constexpr(SSIM_C1 * (LEVELS * WINDOW) ** 2)
C2 = tl.constexpr(SSIM_C2 * (LEVELS * WINDOW) ** 2)
# Shares of a channel's dissimilarity and of its absolute difference in the loss of a pixel.
SSIM_SHARE = tl.constexpr(SSIM_WEIGHT / CHANNELS)
L1_SHARE = tl.constexpr((1 - SSIM_WEIGHT) / CHANNELS / LEVELS)
L1_ALONE = tl.constexpr(1 / CHANNELS / LEVELS)
# In place of a source's index where the automask takes a pixel out.
UNMOVED = tl.constexpr(255)


@triton.jit
def beside(image, LANES: tl.constexpr):
    """Channels of the left and the right neighbours."""
    left, right = (), ()
    for c in tl.static_range(3):
        left, right = left + (shift_lanes(image[c], -1, LANES),), right + (shift_lanes(image[c], 1, LANES),)
    return left, right


@triton.jit
def across(image, image_beside, other, other_beside):
    """Sums over three columns, per channel: of the image, and of its product with the other."""
    left, right = image_beside
    out = ()
    for c in tl.static_range(3):
        products = left[c] * other_beside[0][c] + image[c] * other[c] + right[c] * other_beside[1][c]
        out = out + (left[c] + image[c] + right[c], products)
    return out


@triton.jit
def squares_across(image, beside):
    out = ()
    for c in tl.static_range(3):
        out = out + (beside[0][c] * beside[0][c] + image[c] * image[c] + beside[1][c] * beside[1][c],)
    return out


@triton.jit
def difference(image, target):
    return tl.abs(image[0] - target[0]) + tl.abs(image[1] - target[1]) + tl.abs(image[2] - target[2])


@triton.jit
def dissimilarity(s1, s11, s12, t1, t11):
    """clamp((1 - SSIM) / 2, 0, 1) from window sums, and its derivatives with respect to s1, s11 (twice that) and s12."""
    product = s1 * t1
    n1 = 2.0 * product + C1
    n2 = 2.0 * (9.0 * s12 - product) + C2
    # What depends on the target alone stands in brackets: the sources share it.
    d1 = s1 * s1 + (t1 * t1 + C1)
    d2 = (9.0 * s11 - s1 * s1) + (9.0 * t11 - t1 * t1 + C2)
    r = reciprocal(d1 * d2)
    ssim = n1 * n2 * r
    value = 0.5 - 0.5 * ssim
    # 1 / d1 is d2 r, and 1 / d2 is d1 r.
    g = tl.where((value >= 0.0) & (value <= 1.0), r, 0.0)
    by_s1 = g * (s1 * ssim * (d2 - d1) - t1 * (n2 - n1))
    return tl.minimum(tl.maximum(value, 0.0), 1.0), (by_s1, g * d1 * (9.0 * ssim), g * n1 * -9.0)


@triton.jit
def compare(image, t, t_beside, t_windows, last, two, last_difference, SSIM: tl.constexpr, LANES: tl.constexpr):
    """With a row of an image and of the target: the loss of the row before, its slopes, and the state for the next row."""
    slopes = ()
    if SSIM:
        image_beside = beside(image, LANES)
        products, squares = across(image, image_beside, t, t_beside), squares_across(image, image_beside)
        row = ()
        for c in tl.static_range(3):
            row = row + (products[2 * c], squares[c], products[2 * c + 1])
        windows = add_weighted(two, row, 1.0, 9)
        loss = last_difference * L1_SHARE
        for c in tl.static_range(3):
            value, by = dissimilarity(windows[3 * c], windows[3 * c + 1], windows[3 * c + 2], t_windows[2 * c], t_windows[2 * c + 1])
            loss += value * SSIM_SHARE
            slopes = slopes + by
        last, two = row, add_weighted(last, row, 1.0, 9)
    else:
        loss = last_difference * L1_ALONE
    return loss, slopes, last, two


@triton.jit
def least(losses, S: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr, AVERAGE: tl.constexpr):
    """The least of the losses of the sources from ``FIRST`` on, and whose it is, of equal ones the first's; or their part of the mean."""
    loss = losses[0]
    best = tl.zeros_like(loss).to(tl.int32) + FIRST
    for k in tl.static_range(1, COUNT):
        if AVERAGE:
            loss += losses[k]
        else:
            best = tl.where(losses[k] < loss, FIRST + k, best)
            loss = tl.minimum(loss, losses[k])
    if AVERAGE:
        loss = loss / S
    return loss, best


@triton.jit
def shares_of(best, S: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr, AVERAGE: tl.constexpr):
    """What the loss of each source counts in the loss of a pixel."""
    out = ()
    for k in tl.static_range(COUNT):
        share = 1.0 / S if AVERAGE else tl.where(best == FIRST + k, 1.0, 0.0)
        out = out + (tl.zeros_like(best).to(tl.float32) + share,)
    return out


@triton.jit
def spread(slopes, weight, left_weight, right_weight, LANES: tl.constexpr):
    """Hand each window's weighted slopes to its three columns."""
    out = ()
    for i in tl.static_range(9):
        slope = slopes[i] * weight
        out = out + (left_weight * shift_lanes(slope, -1, LANES) + slope + right_weight * shift_lanes(slope, 1, LANES),)
    return out


@triton.jit
def twice(border):
    """How often a pixel lies in its neighbour's window: twice where the window is mirrored at the border."""
    return tl.where(border, 2.0, 1.0)
