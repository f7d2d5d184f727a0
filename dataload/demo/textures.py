"""Textures of the demo world: a few surfaces made from noise and rectangles, kept at every resolution along each axis.

A street is full of surfaces seen at a slant, which need to be blurred along one axis and not the other. So each texture is stored halved
repeatedly in width and in height independently (a "ripmap"), all of them in one flat array of packed pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

TEXELS_PER_M = 40.0
BAY_M = STOREY_M = 3.2  # one window's share of a facade
NUM_FACADES = 6
FACADES = tuple(f"facade_{i}" for i in range(NUM_FACADES))
# Parts of vehicles: (height, width) in texels, stretched once over the surface they are on; the others repeat.
PART_SIZES = {"car_side": (64, 256), "car_end": (64, 128), "cabin": (64, 128), "van_side": (128, 256), "van_end": (128, 128)}
NAMES = (*FACADES, "asphalt", "paving", "paint", "grass", "brick", "leaf", "bark", *PART_SIZES, "plain", "cloud")
TEXTURE = {name: number for number, name in enumerate(NAMES)}
MAX_LEVELS = 11
_GLASS = np.array([52, 62, 74], np.float32)


class Atlas(NamedTuple):
    """All textures at all levels in one flat array.

    Attributes:
        pixels: (N,) uint32, R G B 0 from the lowest byte up.
        start: (textures, MAX_LEVELS, MAX_LEVELS) int32, where a texture halved i times in width and j times in height begins.
        width_bits, height_bits: (textures,) int32, log2 of the full size in texels.
    """

    pixels: np.ndarray
    start: np.ndarray
    width_bits: np.ndarray
    height_bits: np.ndarray


@lru_cache(maxsize=1)
def make_atlas() -> Atlas:
    """Every texture of ``NAMES``; the same bytes each time."""
    images = [_make(name, np.random.default_rng((71, number))) for number, name in enumerate(NAMES)]
    start = np.zeros((len(images), MAX_LEVELS, MAX_LEVELS), np.int32)
    parts: list[np.ndarray] = []
    total = 0
    for number, image in enumerate(images):
        narrow = image
        for i in range(int(np.log2(image.shape[1])) + 1):
            small = narrow
            for j in range(int(np.log2(image.shape[0])) + 1):
                start[number, i, j] = total
                parts.append(_pack(small))
                total += parts[-1].size
                small = 0.5 * (small[0::2] + small[1::2]) if len(small) > 1 else small
            narrow = 0.5 * (narrow[:, 0::2] + narrow[:, 1::2]) if narrow.shape[1] > 1 else narrow
    bits = np.log2([image.shape[:2] for image in images]).astype(np.int32)
    return Atlas(np.concatenate(parts), start, np.ascontiguousarray(bits[:, 1]), np.ascontiguousarray(bits[:, 0]))


def _pack(image: np.ndarray) -> np.ndarray:
    levels = np.clip(np.rint(image), 0, 255).astype(np.uint32)
    return (levels[..., 0] | levels[..., 1] << 8 | levels[..., 2] << 16).ravel()


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """Periodic noise (height, width) of zero mean and unit deviation whose amplitude falls as 1 / frequency**slope."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency**slope
    pattern = np.fft.irfft2(spectrum, s=(height, width))
    return (pattern / pattern.std()).astype(np.float32)


def _flat(height: int, width: int, color: tuple[float, float, float]) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.float32), (height, width, 3)).copy()


def _make(name: str, rng: np.random.Generator) -> np.ndarray:
    """One texture as (height, width, 3) float32 in 0..255, sizes powers of two; rows run upward from the foot of a wall."""
    if name in FACADES:
        return _facade(rng, FACADES.index(name))
    if name == "asphalt":
        return _asphalt(rng)
    if name == "paving":
        return _blocks(rng, 512, 512, (20, 20), (150, 146, 140), joint=0.82, spread=7.0, offset=0)
    if name == "brick":
        return _blocks(rng, 512, 512, (4, 10), (150, 96, 78), joint=1.06, spread=6.0, offset=5)
    if name == "leaf":
        clumps = noise(rng, 256, 256, 1.1) + 0.5 * noise(rng, 256, 256, 0.3)
        return np.clip(_flat(256, 256, (86, 102, 60)) * (1 + 0.33 * clumps[..., None]), 8, 200)
    if name == "grass":
        return _flat(256, 256, (104, 120, 72)) * (1 + 0.14 * noise(rng, 256, 256, 1.1) + 0.05 * noise(rng, 256, 256, 0.2))[..., None]
    if name == "bark":
        return _flat(128, 64, (92, 76, 62)) * (1 + 0.2 * noise(rng, 128, 64, 0.6))[..., None]
    if name == "paint":
        return _flat(128, 128, (214, 212, 204)) - 14 * np.abs(noise(rng, 128, 128, 0.6))[..., None]
    if name == "cloud":
        return 128 + 40 * np.repeat(noise(rng, 512, 512, 1.9)[..., None], 3, 2)
    if name == "plain":
        return _flat(64, 64, (200, 200, 200)) * (1 + 0.03 * noise(rng, 64, 64, 0.8))[..., None]
    return _vehicle_part(rng, name)


def _asphalt(rng: np.random.Generator) -> np.ndarray:
    """Grey with stains, mended patches and cracks; 25.6 m along the street (rows), 12.8 m across."""
    height, width = 1024, 512
    grey = 116 + 15 * noise(rng, height, width, 1.3) + 5 * noise(rng, height, width, 0.3)
    for _ in range(14):
        top, left = int(rng.integers(0, height - 160)), int(rng.integers(0, width - 70))
        rows, columns = int(rng.integers(30, 160)), int(rng.integers(20, 70))
        grey[top : top + rows, left : left + columns] += rng.uniform(-22, 12)
    for _ in range(16):
        row, column = float(rng.integers(0, height)), float(rng.integers(0, width))
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(160):
            heading += rng.normal(0, 0.25)
            row, column = row + np.sin(heading), column + np.cos(heading)
            grey[int(row) % height, int(column) % width] -= 34
    return grey[..., None] * np.array([1.0, 0.99, 0.98], np.float32)


def _blocks(
    rng: np.random.Generator,
    height: int,
    width: int,
    block: tuple[int, int],
    color: tuple[float, float, float],
    *,
    joint: float,
    spread: float,
    offset: int,
) -> np.ndarray:
    """Courses of blocks (rows, columns of texels), each of its own brightness, odd courses shifted by ``offset``."""
    row, column = np.mgrid[0:height, 0:width]
    course = row // block[0]
    shifted = column + offset * (course % 2)
    brightness = rng.normal(0, spread, (height // block[0] + 1, width // block[1] + 2))
    image = _flat(height, width, color) + brightness[course, shifted // block[1]][..., None].astype(np.float32)
    image *= 1 + (0.06 * noise(rng, height, width, 0.9) + 0.12 * noise(rng, height, width, 1.5))[..., None]
    image[(row % block[0] == 0) | (shifted % block[1] == 0)] *= joint
    return image


def _facade(rng: np.random.Generator, style: int) -> np.ndarray:
    """A wall of eight bays by four storeys: windows with frame, sill and what is behind them; doors and shop windows at the foot."""
    height, width = 512, 1024
    walls = ((186, 172, 148), (160, 104, 84), (192, 187, 176), (148, 132, 118), (176, 140, 112), (166, 171, 173))
    if style % 3 == 1:
        image = _blocks(rng, height, width, (4, 10), walls[style], joint=1.06, spread=6.0, offset=5)
    else:
        image = _flat(height, width, walls[style]) + (8 * noise(rng, height, width, 1.3) + 3 * noise(rng, height, width, 0.3))[..., None]
    image *= 1 + 0.1 * noise(rng, height, width, 1.6)[..., None]
    frame = _flat(1, 1, ((228, 226, 220), (84, 70, 60), (236, 236, 232))[style % 3])[0, 0]
    window = (int(rng.integers(34, 62)), int(rng.integers(56, 78)))
    cell = int(BAY_M * TEXELS_PER_M)
    for storey in range(4):
        for bay in range(8):
            foot, left = storey * cell, bay * cell
            if storey == 0:
                _shop(rng, image[foot : foot + cell, left : left + cell], frame)
            else:
                _window(rng, image[foot : foot + cell, left : left + cell], window, frame)
        ledge = (storey + 1) * cell
        image[ledge - 6 : ledge] *= 1.12
        image[ledge - 9 : ledge - 6] *= 0.7
    image[:14] *= 0.72
    image[14:40] *= np.linspace(0.86, 1.0, 26, dtype=np.float32)[:, None, None]
    return image


def _pane(rng: np.random.Generator, view: np.ndarray) -> None:
    """Glass: darker below, sky mirrored above; some with curtains or light."""
    rows, columns = view.shape[:2]
    view[:] = _GLASS * (0.6 + 0.7 * np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] + rng.uniform(-0.25, 0.35))
    kind = rng.random()
    if kind < 0.3:
        view[int(rows * rng.uniform(0.2, 0.8)) :] = np.array([196, 190, 176], np.float32) * rng.uniform(0.7, 1.05)
    elif kind < 0.45:
        edge = max(columns // 4, 1)
        view[:, :edge] = view[:, -edge:] = np.array([170, 150, 130], np.float32) * rng.uniform(0.7, 1.1)


def _window(rng: np.random.Generator, cell: np.ndarray, size: tuple[int, int], frame: np.ndarray) -> None:
    columns, rows = size
    left, foot = (cell.shape[1] - columns) // 2, 34
    cell[foot - 5 : foot, left - 5 : left + columns + 5] *= 1.18
    cell[foot - 8 : foot - 5, left - 3 : left + columns + 3] *= 0.66
    cell[foot : foot + rows, left : left + columns] = frame
    half = columns // 2
    for start, stop in ((3, half - 1), (half + 2, columns - 3)):
        _pane(rng, cell[foot + 3 : foot + rows - 3, left + start : left + stop])


def _shop(rng: np.random.Generator, cell: np.ndarray, frame: np.ndarray) -> None:
    kind = rng.random()
    if kind < 0.35:
        cell[0:88, 44:84] = frame * 0.8
        cell[0:84, 48:80] = rng.uniform(40, 130, 3).astype(np.float32)
        _pane(rng, cell[50:78, 54:74])
    elif kind < 0.7:
        cell[16:92, 10:118] = frame
        _pane(rng, cell[20:88, 14:114])
        cell[94:110, 6:122] = rng.uniform(50, 180, 3).astype(np.float32)
    else:
        _window(rng, cell, (56, 66), frame)


def _vehicle_part(rng: np.random.Generator, name: str) -> np.ndarray:
    """A side or end of a vehicle, stretched over it; the body is near white, with dirt and reflections, so that a tint colours it."""
    height, width = PART_SIZES[name]
    image = _flat(height, width, (224, 224, 224)) * np.linspace(0.72, 1.06, height, dtype=np.float32)[:, None, None]
    image *= 1 + (0.06 * noise(rng, height, width, 1.4) + 0.04 * noise(rng, height, width, 0.5))[..., None]
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    mirrored = 1.5 * _GLASS * (0.6 + row / height + 0.22 * noise(rng, height, width, 1.5))[..., None]
    if name == "cabin":
        panes = [(slice(6, 56), slice(6, 60)), (slice(6, 56), slice(68, 122))]
    else:
        panes = [(slice(72, 112), slice(12, 56)), (slice(72, 112), slice(width - 116, width - 12))] if name.startswith("van") else []
    for pane in panes:
        image[pane] = mirrored[pane]
    if name == "cabin":
        return image
    image[height * 15 // 32 : height * 15 // 32 + 2] *= 0.75
    sill = height // (5 if name == "car_side" else 8)
    image[:sill] = 22
    if name.endswith("side"):
        image[:, width // 2 - 1 : width // 2 + 1] *= 0.62
        image[:, width // 4 : width // 4 + 2] *= 0.8
        radius = 17 if name == "car_side" else 20
        for center in (0.18 * width, 0.81 * width):
            # A wheel is as round on the vehicle as the texture's stretch allows: a car is 4.3 m by 0.85 m, a van 5.2 m by 2.2 m.
            stretch = (4.3 / width) / (0.85 / height) if name == "car_side" else (5.2 / width) / (2.2 / height)
            distance = np.hypot((column - center) * stretch, row - radius) / radius
            image[distance < 1.5] = 30
            image[distance < 1.0] = 44
            image[distance < 0.55] = 150
        return image
    image[sill + 6 : sill + 16, width // 2 - 20 : width // 2 + 20] = (210, 206, 180)
    image[sill + 22 : sill + 36, 4:26] = image[sill + 22 : sill + 36, width - 26 : width - 4] = (196, 72, 60)
    image[sill + 2 : sill + 4] *= 0.6
    return image
