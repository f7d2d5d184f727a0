"""Contact sheets: small pictures of frames with their labels, each above its depth in colours of metres."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataload.system.figures import figure
from dataload.system.files import whole_file
from dataload.system.locks import hold
from splits.errors import InputError

if TYPE_CHECKING:
    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MAX_TILES = 24
MAX_COLUMNS = 4
TILE_WIDTH_PX = 320
# A telephone's upright pictures are narrower than others.
MAX_HEIGHT_PX = 360
GAP_PX, LABEL_PX, LEGEND_PX = 6, 20, 44
FONT_PX = 14
JPEG_QUALITY = 90
GROUND, INK = (18, 18, 18), (235, 235, 235)
# From near to far.
COLOURS = ((222, 48, 40), (250, 146, 44), (246, 226, 92), (92, 200, 116), (58, 132, 226), (124, 82, 196))
# Quantiles at the ends of the colours: a few stray points must not stretch the range of all others.
NEAR_PERCENTILE, FAR_PERCENTILE = 1, 99
# Depth that covers less than these shares of its picture is drawn as squares of 3x3, of 5x5 pixels: single pixels would not be seen.
SPARSE_SHARES = (0.4, 0.08)
# Behind the points stands the image in grey, at this share of its brightness.
DIMMED = 0.3
# What the legend may name, metres.
TICKS_M = tuple(number * 10.0**power for power in range(-2, 4) for number in (1, 2, 5))


class Tile(NamedTuple):
    """A picture of the sheet.

    Attributes:
        label: stands above it; too long a one is shortened in the middle.
        image: (h, w, 3) uint8, of any size.
        depth_m: (H, W) float32 metres, of any size; what is not finite and above 0 is no measurement. None: no picture of depth.
    """

    label: str
    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None = None


def write_contact_sheet(path: Path, tiles: Sequence[Tile]) -> Path:
    """Write the tiles into one picture, its format by the suffix, whole or not at all; of more than 24 tiles, 24 evenly chosen.

    Images keep their aspect, at one width unless they are tall. All depths of a sheet have the same colours, by the logarithm of the
    metres in its legend.

    Raises:
        InputError: no tile, or a suffix that is no picture's.
    """
    if not tiles:
        raise InputError(f"{path}: there is no frame to show")
    if path.suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: {path.suffix!r} is no format of pictures; name a .jpg or .png file")
    tiles = spread(tiles, MAX_TILES)
    ends_m = depth_ends(tiles)
    cells = [_cell(tile, ends_m) for tile in tiles]
    columns = min(MAX_COLUMNS, math.ceil(math.sqrt(len(cells))))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + GAP_PX for row in rows]
    width = columns * (TILE_WIDTH_PX + GAP_PX) + GAP_PX
    legend = 0 if ends_m is None else LEGEND_PX
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX + legend), GROUND)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP_PX + column * (TILE_WIDTH_PX + GAP_PX), GAP_PX + sum(heights[:number])))
    if ends_m is not None:
        sheet.paste(_legend(ends_m, width - 2 * GAP_PX), (GAP_PX, sheet.height - LEGEND_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path, "", waiting=lambda: None), whole_file(path) as temporary:  # others are done with theirs in a moment
        sheet.save(temporary, quality=JPEG_QUALITY)  # formats without loss pass over it
    return path


def spread(tiles: Sequence[Tile], most: int) -> list[Tile]:
    """At most ``most`` of the tiles, evenly chosen, the first and the last among them."""
    if len(tiles) <= most:
        return list(tiles)
    return [tiles[round(number * (len(tiles) - 1) / (most - 1))] for number in range(most)]


def reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (h, w, 3) at a whole fraction of its size that a tile still shows sharply: a sheet of large ones would fill the memory."""
    factor = _reduction(pixels)
    return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))


def reduced_levels(levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Depth (h, w), 0 where nothing is measured, at such a fraction of its size: the nearest of the pixels that become one."""
    factor = _reduction(levels)
    height, width = (side // factor for side in levels.shape)
    if factor == 1 or not height:
        return levels
    nearest = np.empty((height, width), np.uint16)
    for row in range(height):
        some = levels[row * factor : (row + 1) * factor, : width * factor].reshape(factor, width, factor)
        nearest[row] = (some - np.uint16(1)).min(axis=(0, 2)) + np.uint16(1)  # 0 becomes the largest of all, and 0 again
    return nearest


def _reduction(pixels: NDArray[Any]) -> int:
    return max(1, pixels.shape[1] // (2 * TILE_WIDTH_PX))


def depth_ends(tiles: Sequence[Tile]) -> tuple[float, float] | None:
    """Metres of the nearest and the farthest colour, for all tiles together; None where nothing is measured."""
    measured = [tile.depth_m[_is_measured(tile.depth_m)] for tile in tiles if tile.depth_m is not None]
    values_m = np.concatenate(measured) if measured else np.empty(0)
    if values_m.size == 0:
        return None
    near, far = np.percentile(values_m, (NEAR_PERCENTILE, FAR_PERCENTILE))
    return float(near), float(max(far, near * 1.01))


def colour_depth(depth_m: NDArray[np.floating], ends_m: tuple[float, float]) -> NDArray[np.uint8]:
    """Colours (..., 3) uint8 of depths (...) above 0, by their logarithm between the ends."""
    near, far = ends_m
    place = np.clip(np.log(depth_m / near) / math.log(far / near), 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(place, range(len(COLOURS)), [colour[channel] for colour in COLOURS]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _cell(tile: Tile, ends_m: tuple[float, float] | None) -> Image.Image:
    """The label, the image below it, and its depth below that."""
    image = Image.fromarray(np.ascontiguousarray(tile.image))
    factor = min(TILE_WIDTH_PX / image.width, MAX_HEIGHT_PX / image.height)
    height = max(1, round(image.height * factor))
    image = image.resize((max(1, round(image.width * factor)), height), Image.Resampling.LANCZOS)
    panels = [image]
    if tile.depth_m is not None:
        panels.append(_depth_panel(np.asarray(image), tile.depth_m, ends_m))
    cell = Image.new("RGB", (TILE_WIDTH_PX, LABEL_PX + len(panels) * height), GROUND)
    draw = ImageDraw.Draw(cell)
    draw.text((2, LABEL_PX / 2), shorten(tile.label, TILE_WIDTH_PX - 4), fill=INK, font=_font(), anchor=_anchor("lm"))
    for number, panel in enumerate(panels):
        cell.paste(panel, (0, LABEL_PX + number * height))
    return cell


def _depth_panel(image: NDArray[np.uint8], depth_m: NDArray[np.float32], ends_m: tuple[float, float] | None) -> Image.Image:
    """Depth (H, W) in colours over the darkened image (h, w, 3)."""
    panel = (DIMMED * image.mean(axis=-1, keepdims=True)).astype(np.uint8).repeat(3, axis=-1)
    if ends_m is not None:
        shown_m = _at_size(depth_m, (image.shape[0], image.shape[1]))
        covered = np.isfinite(shown_m)
        shown_m = _nearest_around(shown_m, radius=sum(covered.mean() < share for share in SPARSE_SHARES))
        covered = np.isfinite(shown_m)
        panel[covered] = colour_depth(shown_m[covered], ends_m)
    return Image.fromarray(panel)


def _at_size(depth_m: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """The nearest measurement (h, w) of each pixel of a picture of that size, infinite where there is none."""
    height, width = size_px
    known_m = np.where(_is_measured(depth_m), depth_m, np.inf).astype(np.float32)
    if depth_m.shape[0] <= height or depth_m.shape[1] <= width:
        rows, columns = (np.arange(new) * old // new for new, old in zip(size_px, depth_m.shape, strict=True))
        return known_m[rows[:, None], columns]
    rows, columns = np.nonzero(np.isfinite(known_m))
    shown_m = np.full(size_px, np.inf, np.float32)
    np.minimum.at(shown_m, (rows * height // depth_m.shape[0], columns * width // depth_m.shape[1]), known_m[rows, columns])
    return shown_m


def _nearest_around(depth_m: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The least depth within ``radius`` pixels: points grow to squares, the near ones in front."""
    height, width = depth_m.shape
    padded = np.pad(depth_m, radius, constant_values=np.inf)
    offsets = range(2 * radius + 1)
    least: NDArray[np.float32] = np.min([padded[y : y + height, x : x + width] for y in offsets for x in offsets], axis=0)
    return least


def _legend(ends_m: tuple[float, float], width: int) -> Image.Image:
    """A bar of the colours from near to far, with metres below it."""
    near, far = ends_m
    bar = colour_depth(near * (far / near) ** np.linspace(0, 1, width), ends_m)
    legend = Image.new("RGB", (width, LEGEND_PX - GAP_PX), GROUND)
    legend.paste(Image.fromarray(np.repeat(bar[None], 14, axis=0)), (0, 0))
    draw = ImageDraw.Draw(legend)
    free_from = 0.0
    for tick_m in (tick_m for tick_m in TICKS_M if near <= tick_m <= far):
        text = f"{tick_m:g} m"
        x, half = math.log(tick_m / near) / math.log(far / near) * width, draw.textlength(text, font=_font()) / 2
        if x - half >= free_from and x + half <= width:
            draw.line([(x, 10), (x, 17)], fill=INK)
            draw.text((x, 26), text, fill=INK, font=_font(), anchor=_anchor("mm"))
            free_from = x + half + GAP_PX
    if free_from == 0:  # no round number lies between the ends
        draw.text((0, 26), f"{figure(near)} m to {figure(far)} m", fill=INK, font=_font(), anchor=_anchor("lm"))
    return legend


def shorten(label: str, width_px: float) -> str:
    """The label, without as much of its middle as makes it fit the width."""
    font = _font()
    # Pillow's font has the letters of ASCII alone.
    label = short = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    for kept in range(len(label) - 1, 0, -1):
        if font.getlength(short) <= width_px:
            break
        short = f"{label[: (kept + 1) // 2]}...{label[len(label) - kept // 2 :]}"
    return short


@cache
def _font() -> Font:
    """Pillow's own at a readable size; its small one where Pillow is too old or made without FreeType."""
    try:
        return ImageFont.load_default(FONT_PX)
    except (TypeError, ImportError):
        return ImageFont.load_default()


def _has_outlines(font: Font) -> bool:
    return isinstance(font, ImageFont.FreeTypeFont)


def _anchor(anchor: str) -> str | None:
    """The small font knows no anchors."""
    return anchor if _has_outlines(_font()) else None


def _is_measured(depth_m: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.isfinite(depth_m) & (depth_m > 0)
