"""Device functions on pixels: where they lie in an image and its pyramid, their channels, their neighbours in other lanes."""

import triton
import triton.language as tl

LEVELS = 255.0


@triton.jit
def reflect(i, size: tl.constexpr):
    """The index mirrored at the border pixels, and kept inside where it is used for nothing."""
    i = tl.abs(i)
    return tl.maximum(tl.minimum(i, 2 * size - 2 - i), 0)


@triton.jit
def width_of_row(y, first, H: tl.constexpr, W: tl.constexpr):
    """W for the rows from ``first`` to the image's last, else 0: a mask is one comparison of blocks, as the interpreter needs it."""
    return tl.where((y >= first) & (y < H), W, 0)


@triton.jit
def shift_lanes(x, by: tl.constexpr, LANES: tl.constexpr):
    """The value ``by`` lanes further right."""
    lane = tl.arange(0, LANES) + by
    return tl.gather(x, tl.minimum(tl.maximum(lane, 0), LANES - 1), axis=0)


@triton.jit
def channels(packed):
    """Red, green and blue of packed pixels, in levels."""
    return ((packed & 0xFF).to(tl.float32), ((packed >> 8) & 0xFF).to(tl.float32), ((packed >> 16) & 0xFF).to(tl.float32))


@triton.jit
def reciprocal(x):
    """1 / x of a positive number. A division has guards for extremes around it that cost more than the rest of it."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def power_of_half(shift):
    """2^-shift, by its exponent's bits."""
    return ((127 - shift) << 23).to(tl.float32, bitcast=True)


@triton.jit
def level(scale, B, H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr):
    """Halvings of the disparity of the ``scale``-th scale, and where it starts among all scales' disparities."""
    start = 0
    for i in tl.static_range(NUM_SCALES):
        start += tl.where(i < scale, B * ((H * W) >> (2 * ((SHIFTS >> (4 * i)) & 15))), 0)
    return (SHIFTS >> (4 * scale)) & 15, start


@triton.jit
def halfway(i, shift):
    """Where pixel ``i`` lies in an image halved ``shift`` times, areas aligned: the pixel before, and the weight of the next."""
    position = tl.maximum((i.to(tl.float32) + 0.5) * power_of_half(shift) - 0.5, 0.0)
    before = position.to(tl.int32)
    return before, position - before.to(tl.float32)


@triton.jit
def disp(disps, x, y, shift, H: tl.constexpr, W: tl.constexpr):
    """Disparity upsampled bilinearly at (x, y)."""
    h, w = H >> shift, W >> shift
    x0, right = halfway(x, shift)
    y0, below = halfway(y, shift)
    x1, y1 = tl.minimum(x0 + 1, w - 1), tl.minimum(y0 + 1, h - 1)
    # Added up before they are added to the pointer: an address is widened to 64 bits once.
    upper = tl.load(disps + (y0 * w + x0)) * (1.0 - right) + tl.load(disps + (y0 * w + x1)) * right
    lower = tl.load(disps + (y1 * w + x0)) * (1.0 - right) + tl.load(disps + (y1 * w + x1)) * right
    return upper * (1.0 - below) + lower * below


@triton.jit
def zeros(zero, N: tl.constexpr):
    out = ()
    for _ in tl.static_range(N):
        out = out + (zero,)
    return out


@triton.jit
def add_weighted(a, b, weight, N: tl.constexpr):
    """a + weight b, element by element."""
    out = ()
    for i in tl.static_range(N):
        out = out + (a[i] + weight * b[i],)
    return out
