"""Pictures of depth: the colours of Monodepth2 and others, panels side by side, sheets to look at. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.choices import COLORMAPS
from engine.resample import resize
from splits.faults import name_faults

if TYPE_CHECKING:
    from dataload.frames.sparse_depth import SparseDepth

Picture = NDArray[np.uint8]

DEFAULT_COLORMAP = COLORMAPS[0]
COLORS_FILE = Path(__file__).with_name("colormaps.png")
# The brightest colour stands at this percentile, so that a few near pixels do not darken the rest.
BRIGHT_PERCENTILE = 95
# Relative errors from here on look alike.
MAX_SHOWN_ERROR = 0.5
# Keeps a picture of one value finite; the least normal float32.
TINY = 1.2e-38
# Stands where an image is missing.
UNKNOWN_GREY = 64
# Behind the points of a ground truth stands the image in grey, at this share of its brightness on top of this level: so that both the
# black of a point without error and the bright colours of a great one stand out.
DIMMED, DIMMED_GREY = 0.3, 60
# A truth that covers less than these shares of a picture is drawn as squares of 3x3, of 5x5 pixels.
SPARSE_SHARES = (0.4, 0.03)
GAP_PX, TITLE_PX = 4, 16
TITLES = ("input", "predicted inverse depth", "true inverse depth", f"relative error, 0 to {MAX_SHOWN_ERROR:.0%}")


@cache
def colour_table(colormap: str = DEFAULT_COLORMAP) -> Picture:
    """The 256 colours (256,3) of a matplotlib colormap: a row of a picture beside this file, so that matplotlib is not needed."""
    with Image.open(COLORS_FILE) as rows:
        table: Picture = np.asarray(rows)[COLORMAPS.index(colormap)]
    return table


def colour(values: NDArray[np.floating], colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Colours (h,w,3) of values (h,w), 0 to 1 along the colormap; values outside take the ends' colours."""
    coloured: Picture = colour_table(colormap)[np.clip(values * 256, 0, 255).astype(np.uint8)]
    return coloured


def colour_disp(disp: NDArray[np.floating], colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Colours (h,w,3) of disp or inverse depth (h,w), from its least value to its 95th percentile, near is bright."""
    low, high = float(np.min(disp)), float(np.percentile(disp, BRIGHT_PERCENTILE))
    return colour((disp - low) / max(high - low, TINY), colormap)


def depth_panels(
    image: Picture,
    inv_depth: NDArray[np.float32],
    truth: SparseDepth | None = None,
    depth_m: NDArray[np.float32] | None = None,
    scored: NDArray[np.bool_] | None = None,
) -> list[Picture]:
    """The image, its predicted inverse depth, and with a ground truth that and the relative error: two or four panels (H,W,3).

    The truth and the error are points over the darkened image, large enough to be seen. With a truth the colours of both inverse
    depths mean the same distances: black is infinitely far, the brightest colour the 95th percentile of the truth's inverse depth.

    Args:
        image: (H,W,3), the size of every panel, whatever the size of the truth.
        inv_depth: (h,w), up to an alignment.
        truth: of n pixels.
        depth_m: (n,), the prediction at the truth's pixels in metres, aligned; by default after scaling by the median ratio.
        scored: (n,), which of them the error is shown for; all by default.
    """
    prediction = resize(inv_depth, (image.shape[0], image.shape[1]))
    if truth is None:
        return [image, colour_disp(prediction)]
    ground = (DIMMED_GREY + DIMMED * image.mean(axis=-1, keepdims=True)).astype(np.uint8).repeat(3, axis=-1)
    if truth.values_m.size == 0:
        return [image, colour_disp(prediction), ground, ground.copy()]
    at_truth = resize(inv_depth, truth.size_px)[truth.rows, truth.columns]
    if depth_m is None:
        ratio = np.median(truth.values_m) * max(float(np.median(at_truth)), TINY)
        depth_m = (ratio / np.maximum(at_truth, TINY)).astype(np.float32)
    slope, offset = _inverse_metres(at_truth, depth_m)
    nearest = float(np.percentile(1 / truth.values_m, BRIGHT_PERCENTILE))
    error = np.abs(depth_m - truth.values_m) / truth.values_m
    shown = np.ones(error.shape, bool) if scored is None else scored
    return [
        image,
        colour((prediction * slope + offset) / nearest),
        draw_points(ground, truth, colour(1 / (truth.values_m * nearest))),
        draw_points(ground, truth, colour(error / MAX_SHOWN_ERROR), shown),
    ]


def draw_points(ground: Picture, truth: SparseDepth, colours: Picture, shown: NDArray[np.bool_] | None = None) -> Picture:
    """``ground`` (H,W,3) with the n pixels of ``truth`` in their ``colours`` (n,3), the nearest in front.

    A laser's single pixels would hardly be seen: where the truth is sparse, each is drawn as a square of 3x3 or 5x5.

    Args:
        ground: of any size; the truth's pixels are moved to it.
        shown: (n,), which of them are drawn; all by default.
    """
    height, width = ground.shape[:2]
    radius = sum(truth.values_m.size < share * height * width for share in SPARSE_SHARES)
    order = np.argsort(-truth.values_m, kind="stable")
    if shown is not None:
        order = order[shown[order]]
    # Widened: a column times a width overflows 16 bits.
    row, column = truth.rows[order], truth.columns[order].astype(np.intp)
    row, column = row * height // truth.size_px[0], column * width // truth.size_px[1]
    around = np.arange(-radius, radius + 1)
    # A point's pixels are consecutive and the nearest point comes last: the last write wins.
    rows = np.repeat(row[:, None] + around, around.size, axis=1).ravel()
    columns = np.tile(column[:, None] + around, (1, around.size)).ravel()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    drawn = ground.copy()
    drawn[rows[inside], columns[inside]] = np.repeat(colours[order], around.size**2, axis=0)[inside]
    return drawn


def _inverse_metres(inv_depth: NDArray[np.float32], depth_m: NDArray[np.float32]) -> tuple[float, float]:
    """Slope and offset that bring ``inv_depth`` (n,) to 1 / ``depth_m`` (n,), from two pixels of middling depth, which no clamp touched."""
    order = np.argsort(inv_depth, kind="stable")
    far, near = order[order.size // 4], order[(3 * order.size) // 4]
    span = float(inv_depth[near]) - float(inv_depth[far])
    if span <= 0:
        return 1 / (max(float(inv_depth[near]), TINY) * float(depth_m[near])), 0.0
    slope = (1 / float(depth_m[near]) - 1 / float(depth_m[far])) / span
    return slope, 1 / float(depth_m[near]) - slope * float(inv_depth[near])


def side_by_side(panels: Sequence[Picture]) -> Picture:
    """Panels of one height in a row, black gaps between them."""
    gap = np.zeros((panels[0].shape[0], GAP_PX, 3), np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def contact_sheet(rows: Sequence[Sequence[Picture]], path: Path, titles: Sequence[str] = TITLES) -> None:
    """Write rows of panels (``depth_panels``) below each other into one picture, its format by the name of ``path``.

    A title stands over each panel of the first row as far as there are titles. Rows may differ in size.
    """
    joined = [side_by_side(row) for row in rows]
    width = max(row.shape[1] for row in joined)
    padded = [np.pad(row, ((0, GAP_PX), (0, width - row.shape[1]), (0, 0))) for row in joined]
    sheet = Image.fromarray(np.concatenate([np.zeros((TITLE_PX, width, 3), np.uint8), *padded]))
    draw = ImageDraw.Draw(sheet)
    for number, (panel, title) in enumerate(zip(rows[0], titles, strict=False)):
        draw.text((number * (panel.shape[1] + GAP_PX) + GAP_PX, 2), title, fill=(255, 255, 255))
    path.parent.mkdir(parents=True, exist_ok=True)
    with name_faults(path):
        sheet.save(path)
