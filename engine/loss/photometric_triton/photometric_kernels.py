"""The kernels of the photometric loss.

A warp walks down a strip of the image, one pixel per lane, and carries the sums over the rows of its 3x3 windows along; neighbouring
columns are exchanged between lanes. So nothing but losses and gradients goes to memory: depth, points, positions, warped images,
window statistics and the choice of source live in registers.

The gradients are made along with the losses: the upstream gradient of a mean is one number, by which they can be multiplied later,
and a backward kernel would have to form everything again.

The state of up to three sources fits in the registers of a lane. More are taken a group after the other, by launches of their own: first
their losses, with the best so far in one map and whose it is in another; then, with that choice known, their gradients, added up in the
order of the groups.
"""

import triton
import triton.language as tl

from engine.loss.photometric_triton.pixels import add_weighted, channels, disp, level, reciprocal, reflect, width_of_row, zeros
from engine.loss.photometric_triton.sampling import corners, interpolate, motion, to_motion, to_position
from engine.loss.photometric_triton.windows import (
    L1_ALONE,
    L1_SHARE,
    SSIM_SHARE,
    UNMOVED,
    across,
    beside,
    compare,
    difference,
    least,
    shares_of,
    spread,
    twice,
)


@triton.jit(do_not_specialize=["B"])
def photometric_kernel(
    disps, motions, target, sources, identity, seeds, loss_map, choice_map, sums, disp_gradient, motion_gradient,
    B, low, span, noise, per_pixel,
    S: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr,
    NUM_SCALES: tl.constexpr, WARP: tl.constexpr, GRADIENT: tl.constexpr, CHOICE: tl.constexpr, SSIM: tl.constexpr,
    AVERAGE: tl.constexpr, AUTOMASK: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A strip's sum of losses and, with GRADIENT, its gradients; without WARP, the losses of the unmoved sources into ``loss_map``.

    Of the S sources it takes COUNT from FIRST on, and continues what the launches for those before left in the maps. With CHOICE,
    ``choice_map`` says which source counts in a pixel: it is made without GRADIENT, and obeyed with it.
    """
    # A window reaches one pixel over the strip; a pixel's gradient comes from windows around its neighbours.
    HALO: tl.constexpr = 2 if GRADIENT else 1
    CHOSEN: tl.constexpr = GRADIENT and CHOICE
    image_index = tl.program_id(2)
    scale, b = image_index // B, image_index % B
    lane = tl.arange(0, LANES)
    x = tl.program_id(0) * (LANES - 2 * HALO) + lane - HALO
    first = tl.program_id(1) * ROWS
    end = tl.minimum(first + ROWS, H)
    xr = reflect(x, W)
    own = (lane >= HALO) & (lane < LANES - HALO)
    left_weight, right_weight = twice(x == 1), twice(x == W - 2)
    target += b.to(tl.int64) * (H * W)
    identity += b.to(tl.int64) * (H * W)
    sources += b.to(tl.int64) * (S * H * W) + FIRST * (H * W)
    loss_map += image_index.to(tl.int64) * (H * W)
    choice_map += image_index.to(tl.int64) * (H * W)
    disp_gradient += image_index.to(tl.int64) * (H * W)
    zero = tl.zeros((LANES,), tl.float32)
    m = ()
    if WARP:
        shift, start = level(scale, B, H, W, SHIFTS, NUM_SCALES)
        disps += start + b * ((H * W) >> (2 * shift))
        for k in tl.static_range(COUNT):
            m = m + (motion(motions + (image_index * S + (FIRST + k)) * 12, xr),)
    total = zero
    # Of window sums: the last row's, and the last two rows' together. A source's are (s1, s11, s12) of each channel.
    target_last, target_two = zeros(zero, 6), zeros(zero, 6)
    last, two = zeros(zeros(zero, 9), COUNT), zeros(zeros(zero, 9), COUNT)
    last_difference, last_shares = zeros(zero, COUNT), zeros(zero, COUNT)
    # Of slopes spread over columns: the last row's, and what the last two rows give to the one between.
    given, given_two = zeros(zeros(zero, 9), COUNT), zeros(zeros(zero, 9), COUNT)
    # Per source, sums over rows of dq, dq depth and dq depth y.
    moments = zeros(zeros(zero, 9), COUNT)
    depths = (zero, zero)
    for j in range(ROWS + 2 * HALO):
        y = first - HALO + j
        yr = reflect(y, H)
        t = channels(tl.load(target + (yr * W + xr)))
        t_beside = beside(t, LANES)
        t_sums = across(t, t_beside, t, t_beside)
        t_windows = add_weighted(target_two, t_sums, 1.0, 6)
        target_two, target_last = add_weighted(target_last, t_sums, 1.0, 6), t_sums
        if WARP:
            depth = reciprocal(low + span * disp(disps, xr, yr, shift, H, W))
        losses, differences, slopes, new_last, new_two = (), (), (), (), ()
        for k in tl.static_range(COUNT):
            if WARP:
                four, right, below, _ = corners(sources + k * (H * W), m[k], depth, yr, H, W)
                image = interpolate(four, right, below)
            else:
                image = channels(tl.load(sources + (k * (H * W) + yr * W + xr)))
            loss, by, row, rows = compare(image, t, t_beside, t_windows, last[k], two[k], last_difference[k], SSIM, LANES)
            losses, slopes, new_last, new_two = losses + (loss,), slopes + (by,), new_last + (row,), new_two + (rows,)
            differences = differences + (difference(image, t),)
        last, two, last_difference = new_last, new_two, differences
        loss, best = least(losses, S, FIRST, COUNT, AVERAGE)
        # The row before this one has all its windows' sums.
        centre = y - 1
        inside = (x >= 0) & (x < width_of_row(centre, 0, H, W))
        mine = own & (x < width_of_row(centre, first, end, W))
        at = centre * W + x
        used = zero + 1.0
        if CHOSEN:
            best = tl.load(choice_map + at, mask=inside, other=UNMOVED).to(tl.int32)
            used = tl.where(best < S, 1.0, 0.0)
        else:
            if FIRST > 0:
                before = tl.load(loss_map + at, mask=mine, other=0.0)
                if AVERAGE:
                    loss += before
                else:
                    if CHOICE:
                        best = tl.where(loss < before, best, tl.load(choice_map + at, mask=mine, other=0).to(tl.int32))
                    loss = tl.minimum(loss, before)
            if AUTOMASK:
                unmoved = tl.load(identity + at, mask=inside, other=0.0)
                used = tl.where(loss < unmoved, 1.0, 0.0)
                best = tl.where(loss < unmoved, best, UNMOVED)
                loss = tl.where(loss < unmoved, loss, unmoved)
            if CHOICE:
                tl.store(choice_map + at, best, mask=mine)
            if WARP:
                total += tl.where(mine, loss, 0.0)
            elif noise > 0.0:
                loss += noise * tl.randn(tl.load(seeds + b), at)
            if FIRST + COUNT < S or not WARP:
                tl.store(loss_map + at, loss, mask=mine)
        if GRADIENT:
            shares = shares_of(best, S, FIRST, COUNT, AVERAGE)
            weight = tl.where(inside, used * per_pixel, 0.0)
            # The row before that has all that its windows' slopes give it.
            row_y = y - 2
            mine = own & (x < width_of_row(row_y, first, end, W))
            yc = tl.minimum(tl.maximum(row_y, 0), H - 1)
            t = channels(tl.load(target + (yc * W + xr)))
            to_depth = zero
            new_shares, new_given, new_given_two, new_moments = (), (), (), ()
            for k in tl.static_range(COUNT):
                received = zeros(zero, 9)
                l1_weight = last_shares[k] * L1_ALONE
                if SSIM:
                    giving = spread(slopes[k], shares[k] * weight * SSIM_SHARE, left_weight, right_weight, LANES)
                    received = add_weighted(given_two[k], giving, twice(row_y == H - 2), 9)
                    new_given_two = new_given_two + (add_weighted(giving, given[k], twice(centre == 1), 9),)
                    new_given = new_given + (giving,)
                    l1_weight = last_shares[k] * L1_SHARE
                new_shares = new_shares + (shares[k] * weight,)
                four, right, below, way = corners(sources + k * (H * W), m[k], depths[0], yc, H, W)
                dx, dy = to_position(four, right, below, t, received, l1_weight)
                of_depth, moment = to_motion(dx, dy, way, depths[0], yc, mine, H, W)
                to_depth += of_depth
                new_moments = new_moments + (add_weighted(moments[k], moment, 1.0, 9),)
            moments, last_shares = new_moments, new_shares
            if SSIM:
                given, given_two = new_given, new_given_two
            to_disp = -to_depth * depths[0] * depths[0] * span
            if FIRST > 0:
                to_disp += tl.load(disp_gradient + (yc * W + x), mask=mine, other=0.0)
            tl.store(disp_gradient + (yc * W + x), to_disp, mask=mine)
            depths = (depths[1], depth)
    program = (image_index * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    if WARP and not CHOSEN:
        tl.store(sums + program, tl.sum(total, axis=0))
    if GRADIENT:
        for k in tl.static_range(COUNT):
            out = motion_gradient + (program.to(tl.int64) * S + (FIRST + k)) * 12
            for i in tl.static_range(3):
                tl.store(out + 4 * i, tl.sum(moments[k][3 + i] * xr, axis=0))
                tl.store(out + 4 * i + 1, tl.sum(moments[k][6 + i], axis=0))
                tl.store(out + 4 * i + 2, tl.sum(moments[k][3 + i], axis=0))
                tl.store(out + 4 * i + 3, tl.sum(moments[k][i], axis=0))


@triton.jit(do_not_specialize=["B"], do_not_specialize_on_alignment=["upstream"])
def gather_kernel(
    full, upstream, gradient, B,
    H: tl.constexpr, W: tl.constexpr, SHIFTS: tl.constexpr, NUM_SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of upsampling, times each scale's upstream gradient: a disparity collects from the pixels it was spread over."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for scale in tl.static_range(NUM_SCALES):
        _, start = level(scale, B, H, W, SHIFTS, NUM_SCALES)
        images = full + (scale * B).to(tl.int64) * (H * W)
        _gather_scale(images, tl.load(upstream + scale), gradient, index, index - start, B, H, W, (SHIFTS >> (4 * scale)) & 15)


@triton.jit
def _gather_scale(full, upstream, gradient, index, local, B, H: tl.constexpr, W: tl.constexpr, SHIFT: tl.constexpr):
    F: tl.constexpr = 1 << SHIFT
    h: tl.constexpr = H >> SHIFT
    w: tl.constexpr = W >> SHIFT
    mine = (local >= 0) & (local < B * h * w)
    b, row, column = local // (h * w), local // w % h, local % w
    image = b * (H * W)
    total = tl.zeros_like(local).to(tl.float32)
    if tl.max(mine.to(tl.int32), axis=0) > 0:
        for dy in range(2 * F):
            y = row * F - F // 2 + dy
            down = tl.maximum(1.0 - tl.abs(_inside((y + 0.5) / F - 0.5, h) - row), 0.0)
            for dx in range(2 * F):
                x = column * F - F // 2 + dx
                sideways = tl.maximum(1.0 - tl.abs(_inside((x + 0.5) / F - 0.5, w) - column), 0.0)
                inside = mine & (y >= 0) & (y < H) & (x >= 0) & (x < W)
                total += down * sideways * tl.load(full + (image + y * W + x), mask=inside, other=0.0)
        tl.store(gradient + index, total * upstream, mask=mine)


@triton.jit
def _inside(position, size: tl.constexpr):
    return tl.minimum(tl.maximum(position, 0.0), size - 1.0)
