"""The scene that a street of the demo world is made of: rectangles square to the axes, boxes, ellipsoids, each with its texture and light.

World axes follow the camera's: x right, y down, z along the street; the road surface is y = 0 and its middle x = 0. Metres throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dataload.demo.textures import BAY_M, PART_SIZES, TEXELS_PER_M, TEXTURE

START_M = -14.0  # the street begins this far behind the first camera
# The two axes along which a texture runs on a surface whose normal is x, y or z.
SURFACE_AXES = ((2, 1), (0, 2), (0, 1))
ELLIPSOID = 3
# Keeps texel coordinates positive; a multiple of every texture's size.
_TEXEL_ORIGIN = 16384.0

Vector = Sequence[float] | np.ndarray
Color = tuple[float, float, float]


class Scene(NamedTuple):
    """A street as arrays over its F surfaces, rectangles square to the axes and ellipsoids.

    Attributes:
        kind: (F,) int32, axis of a rectangle's normal (0, 1, 2), or ``ELLIPSOID``.
        low, high: (F, 3) float32, opposite corners in metres; equal along a rectangle's normal.
        facing: (F,) float32, sign of the normal: a rectangle is seen from that side only.
        texture: (F,) int32 into ``textures.NAMES``.
        texel_scale, texel_origin: (F, 2) float32, texel = scale * metres + origin along both texture axes.
        tint: (F, 3) float32, what the texture is multiplied with, the light on that side included.
        sun: (2,) how far the sun's shadows rise per metre in x, and how far they lean in z per metre in x.
        shadow_m: (L,) float32, shadow height at x = 0 for every half metre of z from ``START_M`` on.
        poses: (N, 3, 4) float64, camera 2 to world, one per frame.
    """

    kind: np.ndarray
    low: np.ndarray
    high: np.ndarray
    facing: np.ndarray
    texture: np.ndarray
    texel_scale: np.ndarray
    texel_origin: np.ndarray
    tint: np.ndarray
    sun: np.ndarray
    shadow_m: np.ndarray
    poses: np.ndarray


class SceneBuilder:
    """Collects surfaces; ``light`` is the brightness of each (axis, facing)."""

    def __init__(self, sun_side: int) -> None:
        self.light = {(0, sun_side): 1.0, (0, -sun_side): 0.68, (1, -1): 1.0, (2, -1): 0.86, (2, 1): 0.8}
        self.rows: list[tuple[Any, ...]] = []

    def rectangle(self, axis: int, facing: int, low: Vector, high: Vector, name: str, tint: Color, *, u_origin: float = 0.0) -> None:
        """A rectangle across ``axis``, seen from the side that ``facing`` (-1 or 1) says; ``u_origin`` shifts its texture, in texels."""
        u, v = SURFACE_AXES[axis]
        scale, origin = np.full(2, TEXELS_PER_M), np.full(2, _TEXEL_ORIGIN)
        origin[0] += u_origin
        if v == 1:  # walls: texture rows run up, y runs down
            scale[1] *= -1
        if name in PART_SIZES:
            height, width = PART_SIZES[name]
            # A little less than the whole, so that rounding at the far edge does not start the texture again.
            scale = np.array([width - 0.01, -(height - 0.01)]) / (high[u] - low[u], high[v] - low[v])
            origin = _TEXEL_ORIGIN - scale * (low[u], high[v])
        self.rows.append((axis, low, high, facing, TEXTURE[name], scale, origin, np.array(tint) * self.light[axis, facing]))

    def box(self, low: Vector, high: Vector, names: Sequence[str], tint: Color) -> None:
        """The sides and top of a box with the textures ``names`` = (x sides, top, z sides)."""
        for axis, facing in ((0, -1), (0, 1), (1, -1), (2, -1), (2, 1)):
            a, b = np.array(low, float), np.array(high, float)
            a[axis] = b[axis] = (low if facing < 0 else high)[axis]
            self.rectangle(axis, facing, a, b, names[axis], tint)

    def building(self, side: int, front: float, span: tuple[float, float], height: float, name: str, tint: Color, first_bay: int) -> None:
        """A building with its front at ``front`` metres from the street's middle, over ``span`` in z: a whole number of bays."""
        (z0, z1), x, back = span, side * front, side * (front + 12.0)
        u_origin = TEXELS_PER_M * (first_bay * BAY_M - z0) + 0.01
        self.rectangle(0, -side, (x, -height, z0), (x, 0, z1), name, tint, u_origin=u_origin)
        for facing, z in ((-1, z0), (1, z1)):
            self.rectangle(2, facing, (min(x, back), -height, z), (max(x, back), 0, z), "brick", tint)
        eaves = sorted((x, x - side * 0.35))
        self.box((eaves[0], -height - 0.3, z0 - 0.1), (eaves[1], -height, z1 + 0.1), ("plain",) * 3, (0.5, 0.47, 0.45))

    def ellipsoid(self, center: Vector, radii: Vector, name: str, tint: Color) -> None:
        """An ellipsoid with its axes along the world's."""
        c, r = np.array(center), np.array(radii)
        self.rows.append((ELLIPSOID, c - r, c + r, 1, TEXTURE[name], np.full(2, 32.0), np.full(2, _TEXEL_ORIGIN), np.array(tint)))

    def scene(self, *, sun: np.ndarray, shadow_m: np.ndarray, poses: np.ndarray) -> Scene:
        """All surfaces so far under that sun, with the drive through them."""
        columns = [np.array(column) for column in zip(*self.rows, strict=True)]
        kind, low, high, facing, texture, texel_scale, texel_origin, tint = columns
        return Scene(
            kind=kind.astype(np.int32),
            low=low.astype(np.float32),
            high=high.astype(np.float32),
            facing=facing.astype(np.float32),
            texture=texture.astype(np.int32),
            texel_scale=texel_scale.astype(np.float32),
            texel_origin=texel_origin.astype(np.float32),
            tint=tint.astype(np.float32),
            sun=sun,
            shadow_m=shadow_m.astype(np.float32),
            poses=poses,
        )
