"""Pictures of depth: the colours of Monodepth2 and others, panels side by side, sheets to look at. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.resample import resize

Picture = NDArray[np.uint8]

# The colour scales on offer, by matplotlib's names; magma is Monodepth2's.
COLORMAPS = ("magma", "inferno", "plasma", "viridis", "cividis", "turbo", "gray")
DEFAULT_COLORMAP = COLORMAPS[0]
# The brightest colour stands at this percentile, so that a few near pixels do not darken the rest.
BRIGHT_PERCENTILE = 95
# Relative errors from here on look alike.
MAX_SHOWN_ERROR = 0.5
# Keeps a picture of one value finite; the least normal float32.
TINY = 1.2e-38
UNKNOWN_GREY = 64
GAP_PX, TITLE_PX = 4, 16
TITLES = ("input", "predicted inverse depth", "true inverse depth", f"relative error, 0 to {MAX_SHOWN_ERROR:.0%}")


@cache
def colour_table(colormap: str = DEFAULT_COLORMAP) -> Picture:
    """The 256 colours (256,3) of a matplotlib colormap."""
    import matplotlib

    table: Picture = matplotlib.colormaps[colormap](np.arange(256), bytes=True)[:, :3]
    return table


def colour(values: NDArray[np.floating], colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Colours (h,w,3) of values (h,w), 0 to 1 along the colormap; values outside take the ends' colours."""
    coloured: Picture = colour_table(colormap)[np.clip(values * 256, 0, 255).astype(np.uint8)]
    return coloured


def colour_disp(disp: NDArray[np.floating], colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Colours (h,w,3) of disp or inverse depth (h,w), from its least value to its 95th percentile, near is bright."""
    low, high = float(np.min(disp)), float(np.percentile(disp, BRIGHT_PERCENTILE))
    return colour((disp - low) / max(high - low, TINY), colormap)


def depth_panels(image: Picture, inv_depth: NDArray[np.float32], depth_m: NDArray[np.float32] | None = None) -> list[Picture]:
    """The image, its predicted inverse depth, and with a ground truth that and the relative error: two or four panels (H,W,3).

    Args:
        image: (H,W,3), the size of every panel.
        inv_depth: (h,w), up to scale; the error is taken after scaling by the median ratio.
        depth_m: (H,W), metres, 0 where the truth is missing, which shows as grey.
    """
    prediction = resize(inv_depth, (image.shape[0], image.shape[1]))
    panels = [image, colour_disp(prediction)]
    return panels if depth_m is None else [*panels, *_truth_panels(prediction, depth_m)]


def _truth_panels(inv_depth: NDArray[np.float32], depth_m: NDArray[np.float32]) -> list[Picture]:
    known = depth_m > 0
    panels = [np.full((*depth_m.shape, 3), UNKNOWN_GREY, np.uint8) for _ in range(2)]
    if known.any():
        truth, depth = depth_m[known], 1 / inv_depth[known]
        error = np.abs(depth * (np.median(truth) / np.median(depth)) - truth) / truth
        panels[0][known] = colour_disp(1 / truth)
        panels[1][known] = colour(error / MAX_SHOWN_ERROR)
    return panels


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
    sheet.save(path)
