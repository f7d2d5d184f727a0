"""Movement of the camera between two frames, by small grey pictures of them; for splits without frames at rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.frames.picture import read_grey
from dataload.system.progress import progress_bar
from dataload.system.threads import in_order, thread_pool
from splits.errors import InputError

WIDTH_PX = 320
BLOCK_PX = 16
# Half of the blocks have edges to see a movement by.
TEXTURED_SHARE = 0.5
# Other cars move where the camera stands, and what lies far ahead stands where the camera moves: neither may fill three quarters.
QUANTILE = 0.25
# Where a block shows edges of one direction alone, a movement along them is not seen; this keeps its estimate near zero.
DAMPING = 0.05
# Measured, from least to most: standing, KITTI 2011_09_28 drive 9003 0.003 to 0.012, and 2011_09_26 drive 0052 from frame 62 on, in a jam,
# 0.003 to 0.041; moving, its frames 0 to 46, braking, 0.39 to 0.11, and 46 to 50, the last metre, 0.13 to 0.09; drives 9001, 9002 and 0001
# at speed 0.28 to 0.84; the demo world 0.37 to 1.2. Between them, frames 50 to 54, rolling out, 0.09 to 0.03, and 54 to 62, the car
# rocking as it stops, 0.20 to 0.04: a rotation, which no small picture tells from driving. One frame twice, with other noise of 10 levels
# and at JPEG quality 30: up to 0.03; a quarter brighter the second time: up to 0.03. One 1242 px wide, moved by 0.2 px: 0.05.
THRESHOLD_PX = 0.06
FRAMES_AHEAD = 64
STANDING = "where the camera stands still"
DAMAGED = "with a damaged image among their frames"


def thumbnail(path: Path) -> NDArray[np.uint8]:
    """Grey pixels (h, 320) of an image file; a JPEG is decoded at a fraction of its size.

    ``InputError`` as ``read_picture``.
    """
    grey = Image.fromarray(read_grey(path, WIDTH_PX))
    return np.asarray(grey.resize((WIDTH_PX, max(BLOCK_PX, round(grey.height * WIDTH_PX / grey.width))), Image.Resampling.BOX))


def movement_px(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """How far the picture has moved between two thumbnails (h, w): a low quantile over its textured blocks of their displacement, pixels.

    A block's displacement d is the least-squares solution of after - before = -gradient . d, in which noise averages out; contrast and
    brightness of the whole, and brightness of each block, are taken out first. It is linear up to about a pixel, and large beyond.
    """
    first, second = before.astype(np.float32), after.astype(np.float32)
    second = (second - second.mean()) * (first.std() / max(float(second.std()), 1e-6)) + first.mean()
    gradient_y, gradient_x = np.gradient((first + second) / 2)
    change, gx, gy = (_centred_blocks(values) for values in (first - second, gradient_x, gradient_y))
    xx, yy, xy = (gx * gx).sum(1), (gy * gy).sum(1), (gx * gy).sum(1)
    x_change, y_change = (gx * change).sum(1), (gy * change).sum(1)
    texture = xx + yy
    damping = DAMPING * texture + 1e-3
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy * xy
    displacement = np.hypot(yy * x_change - xy * y_change, xx * y_change - xy * x_change) / determinant
    textured = texture >= np.quantile(texture, 1 - TEXTURED_SHARE)
    return float(np.quantile(displacement[textured], QUANTILE))


def has_moved(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Whether the camera has moved between the frames of two thumbnails; those of different sizes are no standing camera's."""
    return before.shape != after.shape or movement_px(before, after) > THRESHOLD_PX


def static_targets(
    dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int] = (0, -1, 1), progress: bool = True
) -> list[str]:
    """Why each target shows no movement: ``STANDING`` between it and one of its neighbours, or ``DAMAGED``; empty where it does.

    Each image is decoded once; in threads.
    """
    faults = [""] * len(refs)
    order = sorted(range(len(refs)), key=lambda row: (refs[row].folder, dataset.side(refs[row]), refs[row].frame_index))
    with (
        thread_pool() as pool,
        progress_bar(len(refs), "looking for frames at rest", "frames", shown=progress, stays=False) as bar,
    ):
        for _, rows in groupby(order, key=lambda row: (refs[row].folder, dataset.side(refs[row]))):
            begun = _begin(pool, dataset, refs, list(rows), [k for k in frame_ids if k])
            for row, found in in_order(begun, ahead=FRAMES_AHEAD):
                faults[row] = next((fault for fault in (DAMAGED, STANDING) if fault in found), "")
                bar.update()
    return faults


def _begin(
    pool: ThreadPoolExecutor, dataset: Dataset, refs: Sequence[FrameRef], rows: Sequence[int], neighbours: Sequence[int]
) -> Iterator[tuple[int, list[Future[str]]]]:
    """Submits the work for each target row of one camera, in the order of their places; yields the row with the faults of its pairs."""
    pictures: dict[int, Future[NDArray[np.uint8]]] = {}
    pairs: dict[tuple[int, int], Future[str]] = {}
    for row in rows:
        ref = refs[row]
        # What no later target needs is dropped; the pairs still being compared keep their own pictures.
        oldest = ref.frame_index + min(0, *neighbours, 0)
        pictures = {place: picture for place, picture in pictures.items() if place >= oldest}
        pairs = {places: pair for places, pair in pairs.items() if places[0] >= oldest}
        found = []
        for k in neighbours:
            places = (ref.frame_index + min(0, k), ref.frame_index + max(0, k))
            for place in places:
                if place not in pictures:
                    pictures[place] = pool.submit(thumbnail, dataset.image_path(ref, place - ref.frame_index))
            if places not in pairs:
                # Submitted after its pictures, so that no thread waits for a picture that has no thread.
                pairs[places] = pool.submit(_pair_fault, pictures[places[0]], pictures[places[1]])
            found.append(pairs[places])
        yield row, found


def _pair_fault(before: Future[NDArray[np.uint8]], after: Future[NDArray[np.uint8]]) -> str:
    try:
        return "" if has_moved(before.result(), after.result()) else STANDING
    except InputError:
        return DAMAGED


def _centred_blocks(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The blocks of a picture (h, w) as rows of their pixels, each less its mean; what is left at the right and below is cut off."""
    height, width = (side // BLOCK_PX * BLOCK_PX for side in values.shape)
    split = values[:height, :width].reshape(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX)
    blocks = split.transpose(0, 2, 1, 3).reshape(-1, BLOCK_PX * BLOCK_PX)
    return blocks - blocks.mean(axis=1, keepdims=True)
