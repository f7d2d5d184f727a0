"""Streets of the demo world: where the ground, buildings, vehicles, trees and poles stand, and how the camera drives past them.

World axes follow the camera's: x right, y down, z along the street; the road surface is y = 0 and its middle x = 0. Metres throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dataload.demo_textures import BAY_M, FACADES, STOREY_M, TEXELS_PER_M, TEXTURE

CAMERA_HEIGHT_M = 1.65
KERB_M = 0.12
START_M = -14.0  # the street begins this far behind the first camera
# The two axes along which a texture runs on a surface whose normal is x, y or z.
SURFACE_AXES = ((2, 1), (0, 2), (0, 1))
ELLIPSOID = 3
# Keeps texel coordinates positive; a multiple of every texture's size.
_TEXEL_ORIGIN = 16384.0

Vector = Sequence[float] | np.ndarray
Color = tuple[float, float, float]
WHITE: Color = (1.0, 1.0, 1.0)
CAR_COLORS: tuple[Color, ...] = (
    *((0.95, 0.95, 0.95), (0.44, 0.45, 0.48), (0.68, 0.7, 0.73), (0.72, 0.2, 0.17), (0.28, 0.42, 0.66), (0.32, 0.5, 0.4)),
    *((0.82, 0.73, 0.56), (0.3, 0.3, 0.32)),
)
WALL_TINTS: tuple[Color, ...] = (WHITE, (1.06, 0.99, 0.9), (0.92, 0.97, 1.02), (1.05, 0.93, 0.88), (0.86, 0.86, 0.86))


class Scene(NamedTuple):
    """A street as arrays over its F surfaces, rectangles square to the axes and ellipsoids.

    Attributes:
        kind: (F,) int32, axis of a rectangle's normal (0, 1, 2), or ``ELLIPSOID``.
        low, high: (F, 3) float32, opposite corners in metres; equal along a rectangle's normal.
        facing: (F,) float32, sign of the normal: a rectangle is seen from that side only.
        texture: (F,) int32 into ``demo_textures.NAMES``.
        texel_scale, texel_origin: (F, 2) float32, texel = scale * metres + origin along both texture axes.
        tint: (F, 3) float32, what the texture is multiplied with, the light on that side included.
        sun: (2,) how far the sun's shadows rise per metre in x, and how far they lean in z per metre in x.
        shadow_m: (L,) float32, shadow height at x = 0 for every half metre of z from ``START_M`` on.
        poses: (N, 3, 4) float64, camera 2 to world, one a frame.
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


class _Builder:
    """Collects surfaces; ``light`` is the brightness of each (axis, facing)."""

    def __init__(self, sun_side: int) -> None:
        self.light = {(0, sun_side): 1.0, (0, -sun_side): 0.68, (1, -1): 1.0, (1, 1): 0.4, (2, -1): 0.86, (2, 1): 0.8}
        self.rows: list[tuple] = []

    def rectangle(
        self, axis: int, facing: int, low: Vector, high: Vector, name: str, tint: Color, *, fit: int = 0, texel_m: float = 0
    ) -> None:
        """A rectangle; ``fit`` stretches that many texels along u (and the texture's own share along v) over it."""
        u, v = SURFACE_AXES[axis]
        scale = np.array([TEXELS_PER_M if texel_m == 0 else 1 / texel_m] * 2)
        origin = np.full(2, _TEXEL_ORIGIN)
        if fit:
            size = np.array([high[u] - low[u], high[v] - low[v]])
            scale = (np.array([fit, {256: 64, 128: 64}[fit] * (2 if name.startswith("van") else 1)]) - 0.01) / size
            origin = _TEXEL_ORIGIN - scale * np.array([low[u], low[v]])
        if v == 1:  # walls: texture rows run up, y runs down
            scale[1] *= -1
            origin[1] = _TEXEL_ORIGIN + (-scale[1] * high[1] if fit else 0.0)
        light = self.light[axis, facing]
        self.rows.append((axis, low, high, facing, TEXTURE[name], scale, origin, np.array(tint) * light))

    def box(self, low: Vector, high: Vector, names: Sequence[str], tint: Color, *, fit: Sequence[int] = (0, 0, 0)) -> None:
        """The sides and top of a box with the textures ``names`` = (x sides, top, z sides)."""
        for axis, facing in ((0, -1), (0, 1), (1, -1), (2, -1), (2, 1)):
            a, b = np.array(low, float), np.array(high, float)
            a[axis] = b[axis] = (low if facing < 0 else high)[axis]
            self.rectangle(axis, facing, a, b, names[axis], tint, fit=fit[axis])

    def facade(self, side: int, x: float, z0: float, z1: float, height: float, name: str, tint: Color, bay: int) -> None:
        """A building's front toward the street, with a whole number of bays, and its ends."""
        self.rectangle(0, -side, (x, -height, z0), (x, 0, z1), name, tint)
        scale, origin = self.rows[-1][5:7]
        origin[0] = _TEXEL_ORIGIN + bay * BAY_M * TEXELS_PER_M - scale[0] * z0 + 0.01
        far = x + side * 12.0
        for facing, z in ((-1, z0), (1, z1)):
            self.rectangle(2, facing, (min(x, far), -height, z), (max(x, far), 0, z), "brick", tint)
        edge = sorted((x, x - side * 0.35))
        self.box((edge[0], -height - 0.3, z0 - 0.1), (edge[1], -height, z1 + 0.1), ("plain",) * 3, (0.5, 0.47, 0.45))

    def ellipsoid(self, center: Vector, radii: Vector, name: str, tint: Color) -> None:
        c, r = np.array(center), np.array(radii)
        self.rows.append((ELLIPSOID, c - r, c + r, 1, TEXTURE[name], np.full(2, 32.0), np.full(2, _TEXEL_ORIGIN), np.array(tint)))

    def arrays(self) -> list[np.ndarray]:
        columns = [np.array(column) for column in zip(*self.rows, strict=True)]
        whole = (0, 4)
        return [np.ascontiguousarray(c, np.int32 if i in whole else np.float32) for i, c in enumerate(columns)]


class _Side(NamedTuple):
    """One side of the street: its sign, lane and road half-width, pavement's outer edge and the facades' usual place, all |x|."""

    sign: int
    lane_m: float
    road_m: float
    paved_m: float
    front_m: float


def make_scene(rng: np.random.Generator, frames: int) -> Scene:
    """A street and a drive of ``frames`` frames along it, all drawn from ``rng``."""
    sun_side = int(rng.choice([-1, 1]))
    speed_m = rng.uniform(0.4, 0.85)
    length_m = frames * speed_m + rng.uniform(70, 130)
    builder = _Builder(sun_side)
    sides = [_make_side(rng, sign) for sign in (-1, 1)]
    crossing = rng.uniform(22, length_m - 30) if rng.random() < 0.6 else np.inf
    fronts = np.full((int((length_m + 40 - START_M) * 2), 2), 0.0)
    for side in sides:
        _ground(builder, side, length_m, crossing)
        _buildings(rng, builder, side, length_m, crossing, fronts if side.sign == sun_side else None)
        _parked(rng, builder, side, length_m, crossing)
        _furniture(rng, builder, side, length_m, crossing)
    _road(rng, builder, sides, length_m, sun_side)
    _traffic(rng, builder, sides, frames * speed_m, length_m)
    rise = rng.uniform(0.9, 1.8)
    # A point lies in shadow when lower than H - (distance to that front) * rise; written so that x enters as one product.
    shadow = fronts[:, 0] - fronts[:, 1] * rise
    poses = _drive(rng, frames, speed_m, sides[1].lane_m)
    return Scene(
        *builder.arrays(),
        sun=np.array([sun_side * rise, rng.uniform(-0.5, 0.5)]),
        shadow_m=shadow.astype(np.float32),
        poses=poses,
    )


def _make_side(rng: np.random.Generator, sign: int) -> _Side:
    lane = rng.uniform(2.9, 3.8)
    road = lane + (2.2 if rng.random() < 0.75 else rng.uniform(0.1, 0.5))
    paved = road + rng.uniform(1.4, 3.2)
    return _Side(sign, lane, road, paved, paved + (0.0 if rng.random() < 0.45 else rng.uniform(1.5, 8.0)))


def _span(sign: int, near: float, far: float) -> tuple[float, float]:
    return (near, far) if sign > 0 else (-far, -near)


def _ground(builder: _Builder, side: _Side, length_m: float, crossing: float) -> None:
    """Asphalt, then kerb, pavement and grass in stretches between the side roads."""
    x0, x1 = _span(side.sign, 0, 90)
    builder.rectangle(1, -1, (x0, 0, START_M), (x1, 0, length_m + 60), "asphalt", WHITE)
    half = 5.0
    stretches = [(START_M, length_m + 60)] if np.isinf(crossing) else [(START_M, crossing - half), (crossing + half, length_m + 60)]
    for z0, z1 in stretches:
        kerb = side.sign * side.road_m
        builder.rectangle(0, -side.sign, (kerb, -KERB_M, z0), (kerb, 0, z1), "plain", (0.62, 0.61, 0.6))
        for facing, z in ((-1, z0), (1, z1)):
            a, b = _span(side.sign, side.road_m, 90)
            builder.rectangle(2, facing, (a, -KERB_M, z), (b, 0, z), "plain", (0.62, 0.61, 0.6))
        for near, far, name, tint in (
            (side.road_m, side.road_m + 0.16, "plain", (0.78, 0.77, 0.75)),
            (side.road_m + 0.16, side.paved_m, "paving", WHITE),
            (side.paved_m, 90.0, "grass", WHITE),
        ):
            a, b = _span(side.sign, near, far)
            builder.rectangle(1, -1, (a, -KERB_M, z0), (b, -KERB_M, z1), name, tint)


def _buildings(
    rng: np.random.Generator, builder: _Builder, side: _Side, length_m: float, crossing: float, fronts: np.ndarray | None
) -> None:
    """A front row with changing setback, height and gaps, walls or hedges before it, and a back row seen through the gaps."""
    z = START_M
    while z < length_m:
        bays = int(rng.integers(3, 9))
        end = z + bays * BAY_M
        if z - 5.5 < crossing < end + 5.5:
            z = max(z, crossing + 5.5) if z > crossing - 5.5 else crossing + 5.5
            continue
        front = side.front_m + (rng.uniform(0, 3.5) if rng.random() < 0.5 else 0.0)
        height = STOREY_M * int(rng.integers(2, 5))
        tint = _vary(rng, WALL_TINTS[int(rng.integers(len(WALL_TINTS)))])
        builder.facade(side.sign, side.sign * front, z, end, height, str(rng.choice(FACADES)), tint, int(rng.integers(0, 8)))
        if fronts is not None:
            fronts[int((z - START_M) * 2) : int((end - START_M) * 2)] = (height, front)
        if front > side.paved_m + 1.2 and rng.random() < 0.6:
            a, b = _span(side.sign, side.paved_m + 0.1, side.paved_m + 0.5)
            name = str(rng.choice(["leaf", "leaf", "brick"]))
            tall = rng.uniform(0.7, 1.5)
            builder.box((a, -KERB_M - tall, z + 0.5), (b, 0, end - 1.5), (name,) * 3, _vary(rng, WHITE))
        z = end + (rng.uniform(2.5, 9.0) if rng.random() < 0.4 else 0.0)
    z = START_M
    while z < length_m:
        end = z + BAY_M * int(rng.integers(6, 14))
        x = side.sign * (side.front_m + rng.uniform(17, 26))
        builder.facade(side.sign, x, z, end, STOREY_M * int(rng.integers(2, 5)), str(rng.choice(FACADES)), _vary(rng, WHITE), 0)
        z = end + rng.uniform(3, 12)


def _vary(rng: np.random.Generator, tint: Color) -> Color:
    gain = rng.uniform(0.85, 1.08)
    return (tint[0] * gain, tint[1] * gain, tint[2] * gain)


def _vehicle(rng: np.random.Generator, builder: _Builder, x: float, z: float, *, large: float = 0.15) -> float:
    """A vehicle with its middle at x and its rear at z, along the street; returns its length."""
    tint = CAR_COLORS[int(rng.integers(len(CAR_COLORS)))]
    if rng.random() < large:
        length, half, height = rng.uniform(4.9, 7.0), rng.uniform(0.95, 1.15), rng.uniform(2.1, 2.9)
        builder.box((x - half, -height, z), (x + half, 0, z + length), ("van_side", "plain", "van_end"), tint, fit=(256, 0, 128))
    else:
        length, half, waist, height = rng.uniform(3.9, 4.7), rng.uniform(0.84, 0.94), rng.uniform(0.82, 0.95), rng.uniform(1.42, 1.7)
        builder.box((x - half, -waist, z), (x + half, 0, z + length), ("car_side", "plain", "car_end"), tint, fit=(256, 0, 128))
        low = (x - half + 0.1, -height, z + rng.uniform(0.15, 0.7))
        high = (x + half - 0.1, -waist, z + length - rng.uniform(1.0, 1.4))
        builder.box(low, high, ("cabin", "plain", "cabin"), tint, fit=(128, 0, 128))
    low, high = (x - half - 0.25, -0.01, z - 0.3), (x + half + 0.25, -0.01, z + length + 0.3)
    builder.rectangle(1, -1, low, high, "asphalt", (0.42, 0.42, 0.44))
    return length


def _parked(rng: np.random.Generator, builder: _Builder, side: _Side, length_m: float, crossing: float) -> None:
    """Vehicles at the kerb where the road is wide enough for them."""
    if side.road_m - side.lane_m < 2:
        return
    density = rng.uniform(0.35, 0.85)
    z = START_M + rng.uniform(0, 6)
    while z < length_m:
        if rng.random() > density or abs(z + 2.5 - crossing) < 9:
            z += rng.uniform(4, 8)
            continue
        z += _vehicle(rng, builder, side.sign * (side.road_m - 1.1 + rng.uniform(-0.1, 0.1)), z) + rng.uniform(0.7, 2.0)


def _traffic(rng: np.random.Generator, builder: _Builder, sides: list[_Side], drive_m: float, length_m: float) -> None:
    """Vehicles waiting in the oncoming lane, and now and then one ahead in our own."""
    z = rng.uniform(4, 30)
    while z < length_m and rng.random() < 0.8:
        z += _vehicle(rng, builder, -0.5 * sides[0].lane_m, z, large=0.3) + rng.uniform(8, 45)
    if rng.random() < 0.6:
        _vehicle(rng, builder, 0.5 * sides[1].lane_m, drive_m + rng.uniform(9, 30), large=0.3)


def _furniture(rng: np.random.Generator, builder: _Builder, side: _Side, length_m: float, crossing: float) -> None:
    """Lamp posts, signs and trees along the pavement."""
    z, step = START_M + rng.uniform(0, 20), rng.uniform(17, 28)
    x = side.sign * (side.road_m + 0.4)
    while z < length_m:
        if abs(z - crossing) > 6:
            builder.box((x - 0.07, -6.5, z - 0.07), (x + 0.07, 0, z + 0.07), ("plain",) * 3, (0.36, 0.38, 0.38))
            arm = sorted((x, x - side.sign * 1.6))
            builder.box((arm[0], -6.6, z - 0.06), (arm[1], -6.5, z + 0.06), ("plain",) * 3, (0.36, 0.38, 0.38))
            if rng.random() < 0.4:
                builder.box((x - 0.3, -2.9, z - 0.12), (x + 0.3, -2.3, z - 0.09), ("plain",) * 3, (0.25, 0.42, 0.85))
        z += step
    if rng.random() < 0.25:
        return
    z, step = START_M + rng.uniform(0, 12), rng.uniform(7, 16)
    x = side.sign * (0.5 * (side.road_m + side.paved_m) if side.front_m == side.paved_m else side.paved_m + 0.7)
    while z < length_m:
        if abs(z - crossing) > 8 and rng.random() < 0.8:
            _tree(rng, builder, x, z)
        z += step * rng.uniform(0.8, 1.3)


def _tree(rng: np.random.Generator, builder: _Builder, x: float, z: float) -> None:
    crown_m, trunk = rng.uniform(1.1, 1.8), rng.uniform(0.1, 0.18)
    foot = rng.uniform(2.0, 2.8)
    builder.box((x - trunk, -foot - 0.8, z - trunk), (x + trunk, 0, z + trunk), ("bark",) * 3, WHITE)
    tint = (rng.uniform(0.85, 1.1), rng.uniform(0.9, 1.05), rng.uniform(0.8, 1.0))
    builder.ellipsoid((x, -foot - crown_m, z), (0.85 * crown_m, crown_m, 0.85 * crown_m), "leaf", tint)
    for _ in range(7):
        out = rng.standard_normal(3)
        dx, dy, dz = 0.75 * crown_m * out / np.hypot(np.hypot(out[0], out[1]), out[2])
        radius = crown_m * rng.uniform(0.3, 0.55)
        builder.ellipsoid((x + dx, -foot - crown_m + dy, z + dz), (radius,) * 3, "leaf", tint)


def _road(rng: np.random.Generator, builder: _Builder, sides: list[_Side], length_m: float, sun_side: int) -> None:
    """Lane marks, and what closes the street at its far end: a row of houses or of trees."""
    dash, period = rng.uniform(2.5, 4.0), rng.uniform(7.5, 11.0)
    for z in np.arange(START_M, length_m, period):
        builder.rectangle(1, -1, (-0.07, -0.008, z), (0.07, -0.008, z + dash), "paint", WHITE)
    for side in sides:
        if side.road_m - side.lane_m < 2 or rng.random() < 0.5:
            a, b = _span(side.sign, side.lane_m, side.lane_m + 0.1)
            builder.rectangle(1, -1, (a, -0.008, START_M), (b, -0.008, length_m), "paint", (0.95, 0.95, 0.93))
    z = length_m + rng.uniform(4, 25)
    if rng.random() < 0.6:
        width, height = rng.uniform(20, 45), STOREY_M * int(rng.integers(2, 5))
        center = rng.uniform(-8, 8)
        builder.rectangle(2, -1, (center - width, -height, z), (center + width, 0, z), str(rng.choice(FACADES)), _vary(rng, WHITE))
    else:
        for x in np.arange(-40, 40, 3.2):
            height = rng.uniform(2.2, 5.0)
            builder.ellipsoid((x, -height + 0.4, z + rng.uniform(0, 6)), (rng.uniform(2.2, 3.6), height, 2.5), "leaf", (0.85, 0.95, 0.85))


def _drive(rng: np.random.Generator, frames: int, speed_m: float, lane_m: float) -> np.ndarray:
    """Camera-to-world poses (N, 3, 4): forward with slow changes of speed, lateral place, heading and pitch."""
    time = np.arange(frames) / 36.0
    sway, heading, nod, pace = rng.uniform(0, 2 * np.pi, 4)
    z = np.cumsum(speed_m * (1 + 0.25 * np.sin(2 * np.pi * 1.3 * time + pace)))
    x = 0.5 * lane_m + 0.25 * np.sin(2 * np.pi * time + sway)
    yaw = 0.05 * np.sin(2 * np.pi * 1.2 * time + heading)
    pitch = 0.012 * np.sin(2 * np.pi * 3.0 * time + nod)
    y = -CAMERA_HEIGHT_M + 0.02 * np.sin(2 * np.pi * 3.0 * time + nod + 1)
    cos_y, sin_y, cos_p, sin_p = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    zero = np.zeros(frames)
    rotation = np.array([[cos_y, sin_y * sin_p, sin_y * cos_p], [zero, cos_p, -sin_p], [-sin_y, cos_y * sin_p, cos_y * cos_p]])
    return np.concatenate([rotation.transpose(2, 0, 1), np.stack([x, y, z], 1)[:, :, None]], 2)
