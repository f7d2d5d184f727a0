"""The photometric loss of all scales as one Triton kernel forward and one backward: the twin of ``objective`` and ``losses`` for GPUs.

A warp walks down a strip of the image, a pixel a lane, and carries the sums over the rows of its 3x3 windows along; neighbouring
columns are exchanged between lanes. So nothing but the loss and the choice of source a pixel goes to memory: depth, points, positions,
warped images and window statistics live in registers, and the backward kernel forms them again.

Arithmetic is fp32 on uint8 images, in levels of 0..255: SSIM does not depend on the unit, and the target's statistics are then exact.
With window sums in place of means (s1 = 9 mx, ...) and constants scaled to fit, SSIM is

    (2 s1 sT + c1)(2 (9 s12 - s1 sT) + c2) / ((s1^2 + sT^2 + c1)(9 s11 - s1^2 + 9 sTT - sT^2 + c2)).

All sums are formed in a fixed order: the same input gives the same bits. ``TRITON_INTERPRET=1`` runs the kernels on a CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from engine.geometry import EPSILON
from engine.losses import SSIM_C1, SSIM_C2, SSIM_WEIGHT

# Pixels side by side (a warp's lanes; the interpreter takes more at once) and rows that one program does.
LANES = 32
ROWS = 24
LEVELS = 255.0
WINDOW = 9.0

_C1 = tl.constexpr(SSIM_C1 * (LEVELS * WINDOW) ** 2)
_C2 = tl.constexpr(SSIM_C2 * (LEVELS * WINDOW) ** 2)
# Of a channel's dissimilarity and absolute difference in the loss of a pixel.
_SSIM_SHARE = tl.constexpr(SSIM_WEIGHT / 3)
_L1_SHARE = tl.constexpr((1 - SSIM_WEIGHT) / 3 / LEVELS)
_L1_ALONE = tl.constexpr(1 / 3 / LEVELS)
_EPSILON = tl.constexpr(EPSILON)


@triton.jit
def _reflected(i, size: tl.constexpr):
    """Index mirrored at the border pixels, and kept inside where it is used for nothing."""
    i = tl.abs(i)
    return tl.maximum(tl.minimum(i, 2 * size - 2 - i), 0)


@triton.jit
def _width_of_row(y, first, H: tl.constexpr, W: tl.constexpr):
    """W for the rows from ``first`` to the image's last, else 0: so that a mask is one comparison of blocks, as the interpreter needs it."""
    return tl.where((y >= first) & (y < H), W, 0)


@triton.jit
def _shifted(x, by: tl.constexpr, LANES: tl.constexpr):
    """The value ``by`` lanes further right."""
    lane = tl.arange(0, LANES) + by
    return tl.gather(x, tl.minimum(tl.maximum(lane, 0), LANES - 1), axis=0)


@triton.jit
def _channels(packed):
    """Red, green and blue of packed pixels, in levels."""
    return ((packed & 0xFF).to(tl.float32), ((packed >> 8) & 0xFF).to(tl.float32), ((packed >> 16) & 0xFF).to(tl.float32))


@triton.jit
def _level(scale, B, H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr):
    """Halvings of the disparity of the ``scale``-th scale, and where it starts among all scales' disparities."""
    start = 0
    for i in tl.static_range(NUM_SCALES):
        start += tl.where(i < scale, B * ((H * W) >> (2 * ((SHIFTS >> (4 * i)) & 15))), 0)
    return (SHIFTS >> (4 * scale)) & 15, start


@triton.jit
def _inverse(x):
    """1 / x of a positive number. A division has guards for extremes around it that cost more than the rest of it."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def _halved(shift):
    """1 / 2^shift, by its exponent's bits."""
    return ((127 - shift) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _halfway(i, shift):
    """Position of pixel ``i`` in an image of half the size ``shift`` times, pixel areas aligned: the pixel before it, and the weight of the next."""
    position = tl.maximum((i.to(tl.float32) + 0.5) * _halved(shift) - 0.5, 0.0)
    before = position.to(tl.int32)
    return before, position - before.to(tl.float32)


@triton.jit
def _disp(disps, x, y, shift, H: tl.constexpr, W: tl.constexpr):
    """Disparity upsampled bilinearly at (x, y)."""
    h, w = H >> shift, W >> shift
    x0, right = _halfway(x, shift)
    y0, below = _halfway(y, shift)
    x1, y1 = tl.minimum(x0 + 1, w - 1), tl.minimum(y0 + 1, h - 1)
    upper = tl.load(disps + y0 * w + x0) * (1.0 - right) + tl.load(disps + y0 * w + x1) * right
    lower = tl.load(disps + y1 * w + x0) * (1.0 - right) + tl.load(disps + y1 * w + x1) * right
    return upper * (1.0 - below) + lower * below


@triton.jit
def _motion(motions):
    """A, row by row, and b of q = depth A (x, y, 1) + b."""
    return (
        tl.load(motions), tl.load(motions + 1), tl.load(motions + 2), tl.load(motions + 3),
        tl.load(motions + 4), tl.load(motions + 5), tl.load(motions + 6), tl.load(motions + 7),
        tl.load(motions + 8), tl.load(motions + 9), tl.load(motions + 10), tl.load(motions + 11),
    )  # fmt: skip


@triton.jit
def _rays(m, x, y):
    """A (x, y, 1)."""
    x, y = x.to(tl.float32), y.to(tl.float32)
    return m[0] * x + (m[1] * y + m[2]), m[4] * x + (m[5] * y + m[6]), m[8] * x + (m[9] * y + m[10])


@triton.jit
def _corner(position, size: tl.constexpr):
    """The pixel before a position that is kept inside the image (no number counts as the first pixel), and the weight of the next."""
    inside = tl.minimum(tl.maximum(position, 0.0), size - 1.0)
    before = tl.minimum(inside.to(tl.int32), size - 2)
    return before, inside - before.to(tl.float32)


@triton.jit
def _corners(source, m, depth, x, y, H: tl.constexpr, W: tl.constexpr):
    """Where the source sees the point at (x, y, depth) of the target: four pixels' channels, the weights of right and below, and the way there."""
    rays = _rays(m, x, y)
    z = depth * rays[2] + m[11] + _EPSILON
    to_z = z * _inverse(z * z)
    px, py = (depth * rays[0] + m[3]) * to_z, (depth * rays[1] + m[7]) * to_z
    x0, right = _corner(px, W)
    y0, below = _corner(py, H)
    at = source + y0 * W + x0
    four = _channels(tl.load(at)), _channels(tl.load(at + 1)), _channels(tl.load(at + W)), _channels(tl.load(at + W + 1))
    return four, right, below, (rays, to_z, px, py)


@triton.jit
def _mixed(four, right, below):
    """Channels between four pixels."""
    last = right * below
    right, below, first = right - last, below - last, (1.0 - right) - (below - last)
    out = ()
    for c in tl.static_range(3):
        out = out + (first * four[0][c] + right * four[1][c] + below * four[2][c] + last * four[3][c],)
    return out


@triton.jit
def _beside(image, LANES: tl.constexpr):
    """Channels of the left and the right neighbours."""
    left, right = (), ()
    for c in tl.static_range(3):
        left, right = left + (_shifted(image[c], -1, LANES),), right + (_shifted(image[c], 1, LANES),)
    return left, right


@triton.jit
def _across(image, image_beside, other, other_beside):
    """Sums over three columns, a channel: of the image, and of its product with the other."""
    left, right = image_beside
    out = ()
    for c in tl.static_range(3):
        products = left[c] * other_beside[0][c] + image[c] * other[c] + right[c] * other_beside[1][c]
        out = out + (left[c] + image[c] + right[c], products)
    return out


@triton.jit
def _squares_across(image, beside):
    out = ()
    for c in tl.static_range(3):
        out = out + (beside[0][c] * beside[0][c] + image[c] * image[c] + beside[1][c] * beside[1][c],)
    return out


@triton.jit
def _zeros(zero, N: tl.constexpr):
    out = ()
    for _ in tl.static_range(N):
        out = out + (zero,)
    return out


@triton.jit
def _sum(a, b, weight, N: tl.constexpr):
    """a + weight b, element by element."""
    out = ()
    for i in tl.static_range(N):
        out = out + (a[i] + weight * b[i],)
    return out


@triton.jit
def _dissimilarity(s1, s11, s12, t1, t11):
    """clamp((1 - SSIM) / 2, 0, 1) from window sums, and its derivatives with respect to s1, s11 and s12."""
    product = s1 * t1
    n1 = 2.0 * product + _C1
    n2 = 2.0 * (9.0 * s12 - product) + _C2
    # What depends on the target alone stands in brackets: the sources share it.
    d1 = s1 * s1 + (t1 * t1 + _C1)
    d2 = (9.0 * s11 - s1 * s1) + (9.0 * t11 - t1 * t1 + _C2)
    r = _inverse(d1 * d2)
    ssim = n1 * n2 * r
    value = 0.5 - 0.5 * ssim
    # 1 / d1 is d2 r, and 1 / d2 is d1 r.
    g = tl.where((value >= 0.0) & (value <= 1.0), r, 0.0)
    by_s1 = g * (s1 * ssim * (d2 - d1) - t1 * (n2 - n1))
    return tl.minimum(tl.maximum(value, 0.0), 1.0), (by_s1, g * d1 * (4.5 * ssim), g * n1 * -9.0)


@triton.jit
def _difference(image, target):
    return tl.abs(image[0] - target[0]) + tl.abs(image[1] - target[1]) + tl.abs(image[2] - target[2])


@triton.jit
def _spread(slopes, weight, left_weight, right_weight, LANES: tl.constexpr):
    """Each window's weighted slopes handed to its three columns."""
    out = ()
    for i in tl.static_range(9):
        slope = slopes[i] * weight
        out = out + (left_weight * _shifted(slope, -1, LANES) + slope + right_weight * _shifted(slope, 1, LANES),)
    return out


@triton.jit
def _twice(border):
    """How often a pixel lies in its neighbour's window: twice where the window is mirrored at the border."""
    return tl.where(border, 2.0, 1.0)


@triton.jit
def _to_position(four, right, below, target, slopes, l1_weight):
    """Gradient with respect to a position's x and y, of what windows and the absolute difference ask of the image there."""
    image = _mixed(four, right, below)
    dx, dy = 0.0, 0.0
    for c in tl.static_range(3):
        difference = image[c] - target[c]
        gradient = tl.where(difference > 0.0, l1_weight, tl.where(difference < 0.0, -l1_weight, 0.0))
        gradient += slopes[3 * c] + 2.0 * slopes[3 * c + 1] * image[c] + slopes[3 * c + 2] * target[c]
        upper, lower = four[1][c] - four[0][c], four[3][c] - four[2][c]
        dx += gradient * (upper + below * (lower - upper))
        dy += gradient * ((four[2][c] - four[0][c]) + right * (lower - upper))
    return dx, dy


@triton.jit
def _least(losses, S: tl.constexpr, AVERAGE: tl.constexpr):
    """The loss of a pixel from those of its sources, and each source's share in it; of equal ones the first counts."""
    loss = losses[0]
    if AVERAGE:
        for k in tl.static_range(1, S):
            loss += losses[k]
        return loss / S, _zeros(tl.zeros_like(loss) + 1.0 / S, S)
    best = tl.zeros_like(loss)
    for k in tl.static_range(1, S):
        best = tl.where(losses[k] < loss, k, best)
        loss = tl.minimum(loss, losses[k])
    shares = ()
    for k in tl.static_range(S):
        shares = shares + (tl.where(best == k, 1.0, 0.0),)
    return loss, shares


@triton.jit
def _photometric_kernel(
    disps, motions, target, sources, identity, seed, sums, disp_gradient, motion_gradient,
    B, least, span, noise, per_pixel,
    S: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, WARP: tl.constexpr,
    GRADIENT: tl.constexpr, SSIM: tl.constexpr, AVERAGE: tl.constexpr, AUTOMASK: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A strip's sum of losses and, with GRADIENT, its gradients; without WARP, the losses of the unmoved sources into ``identity``."""
    # A window reaches one pixel over the strip; a pixel's gradient comes from windows around its neighbours.
    HALO: tl.constexpr = 2 if GRADIENT else 1
    image_index = tl.program_id(2).to(tl.int64)
    scale, b = (image_index // B).to(tl.int32), (image_index % B).to(tl.int32)
    lane = tl.arange(0, LANES)
    x = tl.program_id(0) * (LANES - 2 * HALO) + lane - HALO
    first = tl.program_id(1) * ROWS
    end = tl.minimum(first + ROWS, H)
    xr = _reflected(x, W)
    own = (lane >= HALO) & (lane < LANES - HALO)
    left_weight, right_weight = _twice(x == 1), _twice(x == W - 2)
    target += b.to(tl.int64) * (H * W)
    identity += b.to(tl.int64) * (H * W)
    sources += b.to(tl.int64) * (S * H * W)
    disp_gradient += image_index * (H * W)
    zero = tl.zeros((LANES,), tl.float32)
    m = ()
    if WARP:
        shift, start = _level(scale, B, H, W, SHIFTS, NUM_SCALES)
        disps += start + b * ((H * W) >> (2 * shift))
        for k in tl.static_range(S):
            m = m + (_motion(motions + (image_index * S + k) * 12),)
    total = zero
    # Of window sums: the last row's, and the last two rows' together. A source's are (s1, s11, s12) of each channel.
    target_last, target_two = _zeros(zero, 6), _zeros(zero, 6)
    last, two = _zeros(_zeros(zero, 9), S), _zeros(_zeros(zero, 9), S)
    last_difference, last_shares = _zeros(zero, S), _zeros(zero, S)
    # Of slopes spread over columns: the last row's, and what the last two rows give to the one between.
    given, given_two = _zeros(_zeros(zero, 9), S), _zeros(_zeros(zero, 9), S)
    # Sums over rows, a source, of dq, dq depth and dq depth y.
    moments = _zeros(_zeros(zero, 9), S)
    depths = (zero, zero)
    for j in range(ROWS + 2 * HALO):
        y = first - HALO + j
        yr = _reflected(y, H)
        centre = y - 1
        t = _channels(tl.load(target + yr * W + xr))
        t_beside = _beside(t, LANES)
        t_sums = _across(t, t_beside, t, t_beside)
        t_windows = _sum(target_two, t_sums, 1.0, 6)
        target_two, target_last = _sum(target_last, t_sums, 1.0, 6), t_sums
        if WARP:
            depth = _inverse(least + span * _disp(disps, xr, yr, shift, H, W))
        losses, differences, slopes, new_last, new_two = (), (), (), (), ()
        for k in tl.static_range(S):
            if WARP:
                four, right, below, _ = _corners(sources + k * (H * W), m[k], depth, xr, yr, H, W)
                image = _mixed(four, right, below)
            else:
                image = _channels(tl.load(sources + k * (H * W) + yr * W + xr))
            differences = differences + (_difference(image, t),)
            if SSIM:
                beside = _beside(image, LANES)
                products, squares = _across(image, beside, t, t_beside), _squares_across(image, beside)
                row = ()
                for c in tl.static_range(3):
                    row = row + (products[2 * c], squares[c], products[2 * c + 1])
                s = _sum(two[k], row, 1.0, 9)
                new_two, new_last = new_two + (_sum(last[k], row, 1.0, 9),), new_last + (row,)
                loss = last_difference[k] * _L1_SHARE
                source_slopes = ()
                for c in tl.static_range(3):
                    value, by = _dissimilarity(s[3 * c], s[3 * c + 1], s[3 * c + 2], t_windows[2 * c], t_windows[2 * c + 1])
                    loss += value * _SSIM_SHARE
                    source_slopes = source_slopes + by
                slopes = slopes + (source_slopes,)
            else:
                loss = last_difference[k] * _L1_ALONE
            losses = losses + (loss,)
        if SSIM:
            last, two = new_last, new_two
        last_difference = differences
        loss, shares = _least(losses, S, AVERAGE)
        # The row before this one has all its windows' sums.
        inside = (x >= 0) & (x < _width_of_row(centre, 0, H, W))
        mine = own & (x < _width_of_row(centre, first, end, W))
        if WARP:
            used = zero + 1.0
            if AUTOMASK:
                unmoved = tl.load(identity + centre * W + x, mask=inside, other=0.0)
                used = tl.where(loss < unmoved, 1.0, 0.0)
                loss = tl.where(loss < unmoved, loss, unmoved)
            total += tl.where(mine, loss, 0.0)
        else:
            if noise > 0.0:
                loss += noise * tl.randn(tl.load(seed), b * (H * W) + centre * W + x)
            tl.store(identity + centre * W + x, loss, mask=mine)
        if GRADIENT:
            weight = tl.where(inside, used * per_pixel, 0.0)
            # The row before that has all that its windows' slopes give it.
            row_y = y - 2
            mine = own & (x < _width_of_row(row_y, first, end, W))
            yc = tl.maximum(row_y, 0)
            t = _channels(tl.load(target + yc * W + xr))
            row_depth = depths[0]
            to_depth = zero
            new_shares, new_given, new_given_two, new_moments = (), (), (), ()
            for k in tl.static_range(S):
                received = _zeros(zero, 9)
                l1_weight = last_shares[k] * _L1_ALONE
                if SSIM:
                    spread = _spread(slopes[k], shares[k] * weight * _SSIM_SHARE, left_weight, right_weight, LANES)
                    received = _sum(given_two[k], spread, _twice(row_y == H - 2), 9)
                    new_given_two = new_given_two + (_sum(spread, given[k], _twice(centre == 1), 9),)
                    new_given = new_given + (spread,)
                    l1_weight = last_shares[k] * _L1_SHARE
                new_shares = new_shares + (shares[k] * weight,)
                four, right, below, way = _corners(sources + k * (H * W), m[k], row_depth, xr, yc, H, W)
                rays, to_z, px, py = way
                dx, dy = _to_position(four, right, below, t, received, l1_weight)
                # Beyond the border the image stays the same, whatever the position.
                x_inside, y_inside = mine & (px > 0.0) & (px < W - 1.0), mine & (py > 0.0) & (py < H - 1.0)
                dx, dy = tl.where(x_inside, dx * to_z, 0.0), tl.where(y_inside, dy * to_z, 0.0)
                dz = -(tl.where(x_inside, dx * px, 0.0) + tl.where(y_inside, dy * py, 0.0))
                to_depth += dx * rays[0] + dy * rays[1] + dz * rays[2]
                turned = (dx * row_depth, dy * row_depth, dz * row_depth)
                moment = (dx, dy, dz) + turned + (turned[0] * yc, turned[1] * yc, turned[2] * yc)  # noqa: RUF005
                new_moments = new_moments + (_sum(moments[k], moment, 1.0, 9),)
            moments = new_moments
            last_shares = new_shares
            depths = (depths[1], depth)
            if SSIM:
                given, given_two = new_given, new_given_two
            tl.store(disp_gradient + yc * W + x, -to_depth * row_depth * row_depth * span, mask=mine)
    program = (image_index * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    if WARP:
        tl.store(sums + program, tl.sum(total, axis=0))
    if GRADIENT:
        for k in tl.static_range(S):
            out = motion_gradient + (program * S + k) * 12
            for i in tl.static_range(3):
                tl.store(out + 4 * i, tl.sum(moments[k][3 + i] * xr, axis=0))
                tl.store(out + 4 * i + 1, tl.sum(moments[k][6 + i], axis=0))
                tl.store(out + 4 * i + 2, tl.sum(moments[k][3 + i], axis=0))
                tl.store(out + 4 * i + 3, tl.sum(moments[k][i], axis=0))


@triton.jit
def _gather_kernel(
    full, gradient, B,
    H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of upsampling: each disparity collects from the pixels it was spread over."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for scale in tl.static_range(NUM_SCALES):
        _, start = _level(scale, B, H, W, SHIFTS, NUM_SCALES)
        _gather_scale(full + (scale * B).to(tl.int64) * (H * W), gradient, index, index - start, B, H, W, (SHIFTS >> (4 * scale)) & 15)


@triton.jit
def _gather_scale(full, gradient, index, local, B, H: tl.constexpr, W: tl.constexpr, SHIFT: tl.constexpr):
    F: tl.constexpr = 1 << SHIFT
    h: tl.constexpr = H >> SHIFT
    w: tl.constexpr = W >> SHIFT
    mine = (local >= 0) & (local < B * h * w)
    b, row, column = local // (h * w), local // w % h, local % w
    image = full + b.to(tl.int64) * (H * W)
    total = tl.zeros_like(local).to(tl.float32)
    if tl.max(mine.to(tl.int32), axis=0) > 0:
        for dy in range(2 * F):
            y = row * F - F // 2 + dy
            down = tl.maximum(1.0 - tl.abs(_clamped((y + 0.5) / F - 0.5, h) - row), 0.0)
            for dx in range(2 * F):
                x = column * F - F // 2 + dx
                across = tl.maximum(1.0 - tl.abs(_clamped((x + 0.5) / F - 0.5, w) - column), 0.0)
                inside = mine & (y >= 0) & (y < H) & (x >= 0) & (x < W)
                total += down * across * tl.load(image + y * W + x, mask=inside, other=0.0)
        tl.store(gradient + index, total, mask=mine)


@triton.jit
def _clamped(position, size: tl.constexpr):
    return tl.minimum(tl.maximum(position, 0.0), size - 1.0)


def pack(images: Tensor) -> Tensor:
    """uint8 images (..., 3, H, W) as (..., H, W) int32, a pixel one read: red in the lowest byte."""
    return F.pad(images.movedim(-3, -1), (0, 1)).contiguous().view(torch.int32)[..., 0]


def identity_loss(target: Tensor, sources: Tensor, seed: Tensor, *, noise: float, ssim: bool, average: bool) -> Tensor:
    """Photometric loss (B, H, W) of the unmoved sources, the least or the mean of them, with Gaussian noise of that deviation.

    Args:
        target, sources: packed, (B, H, W) and (B, S, H, W).
        seed: of the noise, int64 scalar on the device.
    """
    loss: Tensor = _identity(target, sources, seed, noise, ssim, average)
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
        disps: by scale (B, 1, h, w) in fp32, each of the images' size or halved some times without a rest.
        motions: A and b of q = depth A (x, y, 1) + b, the pixel of a source in homogeneous form, as [A b]: (N, B, S, 3, 4).
        target, sources: packed, (B, H, W) and (B, S, H, W).
        identity: loss of the unmoved sources, (B, H, W); None without automask.
        average: over the sources, instead of the least.
    """
    size_px = target.shape[-2:]
    shifts = [(size_px[0] // disp.shape[-2]).bit_length() - 1 for disp in disps]
    for disp, shift in zip(disps, shifts, strict=True):
        assert (disp.shape[-2] << shift, disp.shape[-1] << shift) == tuple(size_px), f"{tuple(disp.shape)} for {tuple(target.shape)}"
    least, highest = 1.0 / max_depth, 1.0 / min_depth
    flat = torch.cat([disp.reshape(-1) for disp in disps])
    wanted = torch.is_grad_enabled()
    losses: Tensor = _photometric(flat, motions, target, sources, identity, shifts, least, highest - least, ssim, average, wanted)[0]
    return losses


@torch.library.custom_op("md_engine::photometric_identity", mutates_args=())
def _identity(target: Tensor, sources: Tensor, seed: Tensor, noise: float, ssim: bool, average: bool) -> Tensor:
    losses = torch.empty(target.shape, device=target.device)
    batch, num_sources, height_px, width_px = sources.shape
    _photometric_kernel[_grid(batch, (height_px, width_px), False)](
        losses, losses, target, sources, losses, seed, losses, losses, losses, batch, 0.0, 0.0, noise, 0.0,
        S=num_sources, H=height_px, W=width_px, SHIFTS=0, NUM_SCALES=1, WARP=False, GRADIENT=False,
        SSIM=ssim, AVERAGE=average, AUTOMASK=False, LANES=LANES, ROWS=ROWS, num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    return losses


@_identity.register_fake
def _(target: Tensor, sources: Tensor, seed: Tensor, noise: float, ssim: bool, average: bool) -> Tensor:
    return target.new_empty(target.shape, dtype=torch.float32)


@torch.library.custom_op("md_engine::photometric", mutates_args=())
def _photometric(
    disps: Tensor,
    motions: Tensor,
    target: Tensor,
    sources: Tensor,
    identity: Tensor | None,
    shifts: Sequence[int],
    least: float,
    span: float,
    ssim: bool,
    average: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses (N,) and, where wanted, the gradient of each scale's loss with respect to its disparities and motions, else empty."""
    batch, num_sources, height_px, width_px = sources.shape
    scales, device = len(shifts), target.device
    grid = _grid(scales * batch, (height_px, width_px), with_gradient)
    sums = torch.empty(scales, batch * grid[0] * grid[1], device=device)
    full = torch.empty((scales * batch, height_px, width_px) if with_gradient else 0, device=device)
    parts = torch.empty((scales, batch, grid[0] * grid[1], num_sources, 3, 4) if with_gradient else 0, device=device)
    _photometric_kernel[grid](
        disps, motions.contiguous(), target, sources, sums if identity is None else identity, target, sums, full, parts,
        batch, least, span, 0.0, 1.0 / (batch * height_px * width_px),
        S=num_sources, H=height_px, W=width_px, SHIFTS=_packed(shifts), NUM_SCALES=scales, WARP=True, GRADIENT=with_gradient,
        SSIM=ssim, AVERAGE=average, AUTOMASK=identity is not None, LANES=LANES, ROWS=ROWS, num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    losses = sums.sum(dim=1) / (batch * height_px * width_px)
    gradient = torch.empty(disps.shape if with_gradient else 0, device=device)
    if not with_gradient:
        return losses, gradient, parts
    block = 4 * LANES
    _gather_kernel[(triton.cdiv(disps.numel(), block),)](
        full, gradient, batch, H=height_px, W=width_px, SHIFTS=_packed(shifts), NUM_SCALES=scales, BLOCK=block
    )
    return losses, gradient, parts.sum(dim=2)


@_photometric.register_fake
def _(
    disps: Tensor,
    motions: Tensor,
    target: Tensor,
    sources: Tensor,
    identity: Tensor | None,
    shifts: Sequence[int],
    least: float,
    span: float,
    ssim: bool,
    average: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = [disps.new_empty(kind.shape if with_gradient else 0) for kind in (disps, motions)]
    return disps.new_empty(len(shifts)), gradients[0], gradients[1]


def _grid(images: int, size_px: Sequence[int], with_gradient: bool) -> tuple[int, int, int]:
    height_px, width_px = size_px
    return triton.cdiv(width_px, LANES - (4 if with_gradient else 2)), triton.cdiv(height_px, ROWS), images


def _packed(shifts: Sequence[int]) -> int:
    return sum(shift << (4 * i) for i, shift in enumerate(shifts))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.scale_sizes = [len(inputs[2]) * inputs[2][0].numel() >> (2 * shift) for shift in inputs[5]]
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _scaled(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    by_disps, by_motions = ctx.saved_tensors
    by_disps = torch.cat([part * weight for part, weight in zip(by_disps.split(ctx.scale_sizes), upstream.unbind(), strict=True)])
    return by_disps, by_motions * upstream[:, None, None, None, None], *[None] * 9


_photometric.register_autograd(_scaled, setup_context=_keep)


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _identity_traffic(inputs: Sequence[Any], outputs: Tensor) -> int:
    return _bytes(inputs[0], inputs[1], outputs)


def _photometric_traffic(inputs: Sequence[Any], outputs: Sequence[Tensor]) -> int:
    disps, motions, target, sources, identity, shifts, *_, with_gradient = inputs
    images = _bytes(target, sources, *([] if identity is None else [identity]))
    # The gradient of the upsampled disparities is written, and read to be gathered.
    full = 2 * 4 * len(shifts) * target.numel() if with_gradient else 0
    return len(shifts) * images + _bytes(disps, motions, *outputs) + full


# Logical bytes that an operator's kernels read and write, each strip's halo left out: a function of its inputs and outputs, by its name.
TRAFFIC: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "md_engine::photometric_identity": _identity_traffic,
    "md_engine::photometric": _photometric_traffic,
}
