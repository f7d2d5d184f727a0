"""Colour jitter as one affine map per frame.

Brightness, contrast, saturation and hue are each linear in the pixel x and in m, the frame's own mean colour (contrast blends
with the mean grey). So any sequence of them is ``y = color @ x + color_mean @ m``, and one pass over the frame applies all four.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin, sqrt, tau
from typing import NamedTuple

import numpy as np

# Published ranges: a factor is drawn from U[1 - s, 1 + s], the hue shift from U[-0.1, 0.1] turns; Godard et al. 2019, section 4.
BRIGHTNESS_SPREAD = CONTRAST_SPREAD = SATURATION_SPREAD = 0.2
HUE_SPREAD_TURNS = 0.1
JITTER_PROBABILITY = 0.5

# Luma of ITU-R BT.601, which Pillow's grey uses as well.
LUMA = np.array([0.299, 0.587, 0.114])
# Every row is the luma: maps a colour to its grey, three times.
GREY = np.tile(LUMA, (3, 1))
IDENTITY = np.eye(3)

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Factors(NamedTuple):
    """One draw: multipliers (1 leaves the image alone), the hue shift in turns, and the order in which the four are applied."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue_turns: float = 0.0
    order: Sequence[int] = (BRIGHTNESS, CONTRAST, SATURATION, HUE)


def draw_factors(rng: np.random.Generator) -> Factors:
    """Factors and order drawn uniformly from the published ranges."""
    unit = rng.uniform(-1.0, 1.0, size=4)
    return Factors(
        brightness=1.0 + BRIGHTNESS_SPREAD * unit[0],
        contrast=1.0 + CONTRAST_SPREAD * unit[1],
        saturation=1.0 + SATURATION_SPREAD * unit[2],
        hue_turns=HUE_SPREAD_TURNS * unit[3],
        order=tuple(rng.permutation(4).tolist()),
    )


def hue_rotation(turns: float) -> np.ndarray:
    """(3, 3) matrix on RGB turning every colour about the grey axis (Rodrigues' formula), red towards yellow for small ``turns``.

    Stands for the published shift of the hue of HSV, which is not linear. The two agree on greys and, for pure colours, at every
    third of a turn, where both permute the channels. On KITTI frames they differ by 2.4 levels in the mean at 0.1 turns and in
    proportion below; a rotation of the YIQ chroma, which is DALI's ``fn.hue``, differs by 4.0.
    """
    c, s = cos(tau * turns), sin(tau * turns)
    stay, left, right = (1.0 + 2.0 * c) / 3.0, (1.0 - c) / 3.0 - s / sqrt(3.0), (1.0 - c) / 3.0 + s / sqrt(3.0)
    return np.array([[stay, left, right], [right, stay, left], [left, right, stay]])


def affine_colour(factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """Composes the four operations in their order.

    Returns:
        ``color`` and ``color_mean``, both (3, 3) float32, for ``y = color @ x + color_mean @ mean(x)`` on levels 0..255, where
        ``mean(x)`` is the mean colour of the frame. To be clipped and rounded once, after the whole map: the published operations
        clip and round after each of the four.
    """
    color: np.ndarray = IDENTITY
    color_mean: np.ndarray = np.zeros((3, 3))
    for op in factors.order:
        if op == BRIGHTNESS:
            step = factors.brightness * IDENTITY
        elif op == CONTRAST:
            # The mean of what the earlier operations made is (color + color_mean) @ mean(x).
            grey_mean = GREY @ (color + color_mean)
            color, color_mean = factors.contrast * color, factors.contrast * color_mean + (1.0 - factors.contrast) * grey_mean
            continue
        elif op == SATURATION:
            step = factors.saturation * IDENTITY + (1.0 - factors.saturation) * GREY
        else:
            step = hue_rotation(factors.hue_turns)
        color, color_mean = step @ color, step @ color_mean
    return color.astype(np.float32), color_mean.astype(np.float32)
