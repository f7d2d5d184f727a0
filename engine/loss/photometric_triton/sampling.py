"""Device functions of the warp: from a target pixel and its depth to four pixels of a source, and back from colours to motion."""

import triton
import triton.language as tl

from engine.geometry import EPSILON
from engine.loss.photometric_triton.pixels import channels, reciprocal

_EPSILON = tl.constexpr(EPSILON)


@triton.jit
def motion(motions, x):
    """q = depth A (x, y, 1) + b of a column: row by row A (x, 0, 1), what y is multiplied by, and b. That is all of it that rows need."""
    x = x.to(tl.float32)
    return (
        tl.load(motions) * x + tl.load(motions + 2), tl.load(motions + 1), tl.load(motions + 3),
        tl.load(motions + 4) * x + tl.load(motions + 6), tl.load(motions + 5), tl.load(motions + 7),
        tl.load(motions + 8) * x + tl.load(motions + 10), tl.load(motions + 9), tl.load(motions + 11),
    )  # fmt: skip


@triton.jit
def corner(position, size: tl.constexpr):
    """The pixel before a position that is kept inside the image (no number counts as the first pixel), and the weight of the next."""
    inside = tl.minimum(tl.where(position > 0.0, position, 0.0), size - 1.0)
    before = tl.minimum(inside.to(tl.int32), size - 2)
    return before, inside - before.to(tl.float32)


@triton.jit
def corners(source, m, depth, y, H: tl.constexpr, W: tl.constexpr):
    """Where the source sees a column's point (y, depth): the channels of four pixels, the weights of right and below, and the way there."""
    y = y.to(tl.float32)
    ray = m[0] + m[1] * y, m[3] + m[4] * y, m[6] + m[7] * y
    z = depth * ray[2] + m[8] + _EPSILON
    to_z = z * reciprocal(z * z)
    px, py = (depth * ray[0] + m[2]) * to_z, (depth * ray[1] + m[5]) * to_z
    x0, right = corner(px, W)
    y0, below = corner(py, H)
    at = source + (y0 * W + x0)
    four = channels(tl.load(at)), channels(tl.load(at + 1)), channels(tl.load(at + W)), channels(tl.load(at + W + 1))
    return four, right, below, (ray, to_z, px, py)


@triton.jit
def interpolate(four, right, below):
    """The channels between four pixels, bilinearly."""
    last = right * below
    right, below, first = right - last, below - last, (1.0 - right) - (below - last)
    out = ()
    for c in tl.static_range(3):
        out = out + (first * four[0][c] + right * four[1][c] + below * four[2][c] + last * four[3][c],)
    return out


@triton.jit
def to_position(four, right, below, target, slopes, l1_weight):
    """Gradient with respect to a position's x and y, of what windows and the absolute difference ask of the image there."""
    image = interpolate(four, right, below)
    dx, dy = 0.0, 0.0
    for c in tl.static_range(3):
        difference = image[c] - target[c]
        gradient = tl.where(difference > 0.0, l1_weight, tl.where(difference < 0.0, -l1_weight, 0.0))
        gradient += slopes[3 * c] + slopes[3 * c + 1] * image[c] + slopes[3 * c + 2] * target[c]
        upper, lower = four[1][c] - four[0][c], four[3][c] - four[2][c]
        dx += gradient * (upper + below * (lower - upper))
        dy += gradient * ((four[2][c] - four[0][c]) + right * (lower - upper))
    return dx, dy


@triton.jit
def to_motion(dx, dy, way, depth, y, mine, H: tl.constexpr, W: tl.constexpr):
    """From a position's gradient to the depth's, and to dq, dq depth and dq depth y, of whose sums those of A and b are made."""
    ray, to_z, px, py = way
    # Beyond the border the image stays the same, whatever the position.
    x_inside, y_inside = mine & (px > 0.0) & (px < W - 1.0), mine & (py > 0.0) & (py < H - 1.0)
    dx, dy = tl.where(x_inside, dx * to_z, 0.0), tl.where(y_inside, dy * to_z, 0.0)
    dz = -(tl.where(x_inside, dx * px, 0.0) + tl.where(y_inside, dy * py, 0.0))
    turn_x, turn_y, turn_z = dx * depth, dy * depth, dz * depth
    return dx * ray[0] + dy * ray[1] + dz * ray[2], (dx, dy, dz, turn_x, turn_y, turn_z, turn_x * y, turn_y * y, turn_z * y)
