"""The kernels of the edge-aware smoothness: see ``terms.smoothness``.

With m the mean disparity of an image, and Sx, Sy its sums of |dx disp| exp(-|dx image|) and the same in y, over Nx and Ny steps of a
batch, an image adds (Sx / Nx + Sy / Ny) / m to its scale's loss, times a weight that is halved with each halving of size.
"""

import triton
import triton.language as tl

from engine.loss.constants import CHANNELS, EPSILON
from engine.loss.photometric_triton.pixels import LEVELS, level, power_of_half

_EPSILON = tl.constexpr(EPSILON)
_PER_LEVEL = tl.constexpr(1 / CHANNELS / LEVELS)


@triton.jit
def _channel_difference(a, b, SHIFT: tl.constexpr):
    return tl.abs(((a >> SHIFT) & 0xFF) - ((b >> SHIFT) & 0xFF))


@triton.jit
def _evenness(a, b):
    """exp(-mean difference of two packed pixels)."""
    difference = _channel_difference(a, b, 0) + _channel_difference(a, b, 8) + _channel_difference(a, b, 16)
    return tl.exp(difference.to(tl.float32) * -_PER_LEVEL)


@triton.jit
def _sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, 0.0))


@triton.jit
def _step(disps, images, at, by, inside, value, pixel):
    """Disparity step to the pixel ``by`` further, and its weight; 0 where there is none."""
    step = tl.load(disps + at + by, mask=inside, other=0.0) - value
    weight = _evenness(tl.load(images + at + by, mask=inside, other=0), pixel)
    return tl.where(inside, step, 0.0), tl.where(inside, weight, 0.0)


@triton.jit(do_not_specialize=["B"])
def smoothness_sums_kernel(
    disps, images, parts, B,
    H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block's sums of disp, Sx and Sy of one image of one scale."""
    image = tl.program_id(1)
    shift, start = level(image // B, B, H, W, SHIFTS, NUM_SCALES)
    h, w = H >> shift, W >> shift
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < h * w
    at = start + image % B * (h * w) + index
    value, pixel = tl.load(disps + at, mask=here, other=0.0), tl.load(images + at, mask=here, other=0)
    step_x, even_x = _step(disps, images, at, 1, here & (index % w < w - 1), value, pixel)
    step_y, even_y = _step(disps, images, at, w, here & (index < (h - 1) * w), value, pixel)
    out = parts + (image * tl.num_programs(0) + tl.program_id(0)) * 3
    tl.store(out, tl.sum(value, axis=0))
    tl.store(out + 1, tl.sum(tl.abs(step_x) * even_x, axis=0))
    tl.store(out + 2, tl.sum(tl.abs(step_y) * even_y, axis=0))


@triton.jit
def _of_image(sums, B, h, w, weight):
    """An image's mean disparity, its loss, and what Sx and Sy count in that."""
    mean = tl.load(sums) / (h * w) + _EPSILON
    by_x, by_y = weight / (mean * B * (h * (w - 1))), weight / (mean * B * ((h - 1) * w))
    return mean, tl.load(sums + 1) * by_x + tl.load(sums + 2) * by_y, by_x, by_y


@triton.jit(do_not_specialize=["B"])
def smoothness_losses_kernel(
    sums, losses, B, weight,
    H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """The loss of one scale from its images' sums, of which there are at most SAMPLES."""
    scale, b = tl.program_id(0), tl.arange(0, SAMPLES)
    shift, _ = level(scale, B, H, W, SHIFTS, NUM_SCALES)
    image = scale * B + tl.minimum(b, B - 1)
    loss = _of_image(sums + image * 3, B, H >> shift, W >> shift, weight * power_of_half(shift))[1]
    tl.store(losses + scale, tl.sum(tl.where(b < B, loss, 0.0), axis=0))


@triton.jit(do_not_specialize=["B"], do_not_specialize_on_alignment=["upstream"])
def smoothness_gradient_kernel(
    disps, images, sums, upstream, gradient, B, weight,
    H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of a block: its steps' slopes, and the image's loss falling with its mean."""
    image = tl.program_id(1)
    scale = image // B
    shift, start = level(scale, B, H, W, SHIFTS, NUM_SCALES)
    h, w = H >> shift, W >> shift
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < h * w
    at = start + image % B * (h * w) + index
    value, pixel = tl.load(disps + at, mask=here, other=0.0), tl.load(images + at, mask=here, other=0)
    mean, loss, by_x, by_y = _of_image(sums + image * 3, B, h, w, weight * power_of_half(shift))
    right, even_right = _step(disps, images, at, 1, here & (index % w < w - 1), value, pixel)
    left, even_left = _step(disps, images, at, -1, here & (index % w > 0), value, pixel)
    below, even_below = _step(disps, images, at, w, here & (index < (h - 1) * w), value, pixel)
    above, even_above = _step(disps, images, at, -w, here & (index >= w), value, pixel)
    slope = -by_x * (_sign(right) * even_right + _sign(left) * even_left) - by_y * (_sign(below) * even_below + _sign(above) * even_above)
    tl.store(gradient + at, tl.load(upstream + scale) * (slope - loss / (mean * (h * w))), mask=here)
