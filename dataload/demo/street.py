"""Streets of the demo world: where the ground, buildings, vehicles, trees and posts stand, and how the camera drives past them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataload.demo.scene import START_M, Color, Scene, SceneBuilder
from dataload.demo.textures import BAY_M, FACADES, STOREY_M

CAMERA_HEIGHT_M = 1.65
KERB_M = 0.12
PAINT_M = 0.008  # lane marks lie this far above the asphalt, to be in front of it
PARKING_M = 2.2
CROSSING_HALF_M = 5.0
GROUND_M = 90.0
KERB_COLOR: Color = (0.62, 0.61, 0.6)
POST_COLOR: Color = (0.36, 0.38, 0.38)
WHITE: Color = (1.0, 1.0, 1.0)
CAR_COLORS: tuple[Color, ...] = (
    *((0.95, 0.95, 0.95), (0.44, 0.45, 0.48), (0.68, 0.7, 0.73), (0.72, 0.2, 0.17), (0.28, 0.42, 0.66), (0.32, 0.5, 0.4)),
    *((0.82, 0.73, 0.56), (0.3, 0.3, 0.32)),
)
WALL_TINTS: tuple[Color, ...] = (WHITE, (1.06, 0.99, 0.9), (0.92, 0.97, 1.02), (1.05, 0.93, 0.88), (0.86, 0.86, 0.86))


class _Side(NamedTuple):
    """One side of the street.

    Attributes:
        sign: -1 left, 1 right.
        lane_m, road_m, paved_m, front_m: distance from the street's middle of the lane's edge, the kerb, the pavement's far edge and
            the foremost facades.
        length_m: where the street ends in z.
        crossing_m: middle of the side road in z; infinite for none.
    """

    sign: int
    lane_m: float
    road_m: float
    paved_m: float
    front_m: float
    length_m: float
    crossing_m: float

    @property
    def has_parking(self) -> bool:
        return self.road_m - self.lane_m > PARKING_M - 0.1

    def clear_of_crossing(self, z: float, distance_m: float) -> bool:
        return abs(z - self.crossing_m) > distance_m


def make_scene(rng: np.random.Generator, frames: int) -> Scene:
    """A street and a drive of ``frames`` frames along it, all drawn from ``rng``."""
    sun_side = int(rng.choice([-1, 1]))
    speed_m = rng.uniform(0.5, 0.75)
    drive_m = frames * speed_m
    length_m = drive_m + rng.uniform(70, 130)
    crossing_m = rng.uniform(22, length_m - 30) if rng.random() < 0.6 else np.inf
    builder = SceneBuilder(sun_side)
    sides = [_make_side(rng, sign, length_m, crossing_m) for sign in (-1, 1)]
    fronts = {}
    for side in sides:
        _ground(builder, side)
        fronts[side.sign] = _front_row(rng, builder, side)
        _back_row(rng, builder, side)
        _park_vehicles(rng, builder, side)
        _trees(rng, builder, side)
    _posts(rng, builder, sides[int(rng.integers(2))])
    _lane_marks(rng, builder, sides)
    _far_end(rng, builder, length_m)
    _traffic(rng, builder, sides, drive_m)
    rise = rng.uniform(0.9, 1.8)
    # A point lies in shadow when lower than a building's height less the distance to its front times the rise; x enters as one product.
    height, place = fronts[sun_side].T
    sun = np.array([sun_side * rise, rng.uniform(-0.5, 0.5)])
    return builder.scene(sun=sun, shadow_m=height - place * rise, poses=_drive(rng, frames, speed_m, sides[1].lane_m))


def _make_side(rng: np.random.Generator, sign: int, length_m: float, crossing_m: float) -> _Side:
    lane = rng.uniform(3.2, 4.4)
    road = lane + (PARKING_M if rng.random() < 0.75 else rng.uniform(0.1, 0.5))
    paved = road + rng.uniform(2.0, 3.6)
    front = paved + (0.0 if rng.random() < 0.45 else rng.uniform(1.5, 6.0))
    return _Side(sign, lane, road, paved, front, length_m, crossing_m)


def _span(sign: int, near: float, far: float) -> tuple[float, float]:
    return (near, far) if sign > 0 else (-far, -near)


def _ground(builder: SceneBuilder, side: _Side) -> None:
    """Asphalt, then kerb, pavement and grass in stretches between the side roads."""
    end = side.length_m + 60
    x0, x1 = _span(side.sign, 0, GROUND_M)
    builder.rectangle(1, -1, (x0, 0, START_M), (x1, 0, end), "asphalt", WHITE)
    gap = (side.crossing_m - CROSSING_HALF_M, side.crossing_m + CROSSING_HALF_M)
    kerb = side.sign * side.road_m
    for z0, z1 in [(START_M, end)] if np.isinf(side.crossing_m) else [(START_M, gap[0]), (gap[1], end)]:
        builder.rectangle(0, -side.sign, (kerb, -KERB_M, z0), (kerb, 0, z1), "plain", KERB_COLOR)
        x0, x1 = _span(side.sign, side.road_m, GROUND_M)
        for facing, z in ((-1, z0), (1, z1)):
            builder.rectangle(2, facing, (x0, -KERB_M, z), (x1, 0, z), "plain", KERB_COLOR)
        edge = side.road_m + 0.16
        for near, far, name, tint in (
            (side.road_m, edge, "plain", (0.78, 0.77, 0.75)),
            (edge, side.paved_m, "paving", WHITE),
            (side.paved_m, GROUND_M, "grass", WHITE),
        ):
            x0, x1 = _span(side.sign, near, far)
            builder.rectangle(1, -1, (x0, -KERB_M, z0), (x1, -KERB_M, z1), name, tint)


def _front_row(rng: np.random.Generator, builder: SceneBuilder, side: _Side) -> np.ndarray:
    """Buildings of changing setback and height with gaps; their height and front (L, 2) every half metre, for the shadows."""
    fronts = np.tile([-1000.0, 0.0], (int((side.length_m + 40 - START_M) * 2), 1))  # no shadow from the gaps
    clearance = CROSSING_HALF_M + 0.5
    z = START_M
    while z < side.length_m:
        end = z + BAY_M * int(rng.integers(3, 9))
        if z - clearance < side.crossing_m < end + clearance:
            z = side.crossing_m + clearance + 0.01
            continue
        front = side.front_m + (rng.uniform(0, 2.5) if rng.random() < 0.5 else 0.0)
        height = STOREY_M * int(rng.integers(2, 5))
        tint = _vary(rng, WALL_TINTS[int(rng.integers(len(WALL_TINTS)))])
        builder.building(side.sign, front, (z, end), height, _facade(rng), tint, int(rng.integers(0, 8)))
        fronts[int((z - START_M) * 2) : int((end - START_M) * 2)] = (height, front)
        if front > side.paved_m + 1.2 and rng.random() < 0.6:
            _garden_wall(rng, builder, side, z + 0.5, end - 1.5)
        z = end + (rng.uniform(2.5, 9.0) if rng.random() < 0.4 else 0.0)
    return fronts


def _garden_wall(rng: np.random.Generator, builder: SceneBuilder, side: _Side, z0: float, z1: float) -> None:
    x0, x1 = _span(side.sign, side.paved_m + 0.1, side.paved_m + 0.5)
    name = "leaf" if rng.random() < 0.67 else "brick"
    builder.box((x0, -KERB_M - rng.uniform(0.7, 1.5), z0), (x1, 0, z1), (name,) * 3, _vary(rng, WHITE))


def _back_row(rng: np.random.Generator, builder: SceneBuilder, side: _Side) -> None:
    """Buildings seen through the gaps of the front row."""
    z = START_M
    while z < side.length_m:
        end = z + BAY_M * int(rng.integers(6, 14))
        height = STOREY_M * int(rng.integers(2, 5))
        builder.building(side.sign, side.front_m + rng.uniform(17, 26), (z, end), height, _facade(rng), _vary(rng, WHITE), 0)
        z = end + rng.uniform(3, 12)


def _facade(rng: np.random.Generator) -> str:
    return FACADES[int(rng.integers(len(FACADES)))]


def _vary(rng: np.random.Generator, tint: Color) -> Color:
    gain = rng.uniform(0.85, 1.08)
    return (tint[0] * gain, tint[1] * gain, tint[2] * gain)


def _vehicle(rng: np.random.Generator, builder: SceneBuilder, x: float, z: float, *, large: float) -> float:
    """A vehicle with its middle at x and its rear at z, along the street; returns its length. ``large`` is the share of vans."""
    tint = CAR_COLORS[int(rng.integers(len(CAR_COLORS)))]
    if rng.random() < large:
        length, half, height = rng.uniform(4.9, 7.0), rng.uniform(0.95, 1.15), rng.uniform(2.1, 2.9)
        builder.box((x - half, -height, z), (x + half, 0, z + length), ("van_side", "plain", "van_end"), tint)
    else:
        length, half, waist, height = rng.uniform(3.9, 4.7), rng.uniform(0.84, 0.94), rng.uniform(0.82, 0.95), rng.uniform(1.42, 1.7)
        builder.box((x - half, -waist, z), (x + half, 0, z + length), ("car_side", "plain", "car_end"), tint)
        low = (x - half + 0.1, -height, z + rng.uniform(0.15, 0.7))
        high = (x + half - 0.1, -waist, z + length - rng.uniform(1.0, 1.4))
        builder.box(low, high, ("cabin", "plain", "cabin"), tint)
    # The dark under a vehicle.
    low, high = (x - half - 0.25, -0.01, z - 0.3), (x + half + 0.25, -0.01, z + length + 0.3)
    builder.rectangle(1, -1, low, high, "asphalt", (0.42, 0.42, 0.44))
    return length


def _park_vehicles(rng: np.random.Generator, builder: SceneBuilder, side: _Side) -> None:
    """Vehicles at the kerb where the road is wide enough for them."""
    if not side.has_parking:
        return
    density = rng.uniform(0.2, 0.7)
    z = START_M + rng.uniform(0, 6)
    while z < side.length_m:
        if rng.random() < density and side.clear_of_crossing(z + 2.5, 9):
            x = side.sign * (side.road_m - 1.1 + rng.uniform(-0.1, 0.1))
            z += _vehicle(rng, builder, x, z, large=0.1) + rng.uniform(0.7, 2.0)
        else:
            z += rng.uniform(4, 8)


def _traffic(rng: np.random.Generator, builder: SceneBuilder, sides: list[_Side], drive_m: float) -> None:
    """Vehicles waiting in the oncoming lane, and now and then one ahead in our own."""
    left, right = sides
    z = rng.uniform(4, 30)
    while z < left.length_m and rng.random() < 0.75:
        z += _vehicle(rng, builder, -0.5 * left.lane_m, z, large=0.2) + rng.uniform(8, 45)
    if rng.random() < 0.6:
        _vehicle(rng, builder, 0.5 * right.lane_m, 1.2 * drive_m + rng.uniform(7, 25), large=0.2)


def _posts(rng: np.random.Generator, builder: SceneBuilder, side: _Side) -> None:
    """Lamp posts with an arm over the road, some with a sign."""
    step = rng.uniform(17, 28)
    x = side.sign * (side.road_m + 0.4)
    arm0, arm1 = sorted((x, x - side.sign * 1.6))
    for z in np.arange(START_M + rng.uniform(0, 20), side.length_m, step).tolist():
        if not side.clear_of_crossing(z, 6):
            continue
        builder.box((x - 0.07, -6.5, z - 0.07), (x + 0.07, 0, z + 0.07), ("plain",) * 3, POST_COLOR)
        builder.box((arm0, -6.6, z - 0.06), (arm1, -6.5, z + 0.06), ("plain",) * 3, POST_COLOR)
        if rng.random() < 0.4:
            builder.box((x - 0.3, -2.9, z - 0.12), (x + 0.3, -2.3, z - 0.09), ("plain",) * 3, (0.25, 0.42, 0.85))


def _trees(rng: np.random.Generator, builder: SceneBuilder, side: _Side) -> None:
    """Trees along the pavement, or on the grass where there is some."""
    if rng.random() < 0.25:
        return
    z, step = START_M + rng.uniform(0, 12), rng.uniform(7, 16)
    x = side.sign * (0.5 * (side.road_m + side.paved_m) if side.front_m == side.paved_m else side.paved_m + 0.7)
    while z < side.length_m:
        if side.clear_of_crossing(z, 8) and rng.random() < 0.8:
            _tree(rng, builder, x, z)
        z += step * rng.uniform(0.8, 1.3)


def _tree(rng: np.random.Generator, builder: SceneBuilder, x: float, z: float) -> None:
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


def _lane_marks(rng: np.random.Generator, builder: SceneBuilder, sides: list[_Side]) -> None:
    """Dashes along the middle, lines along the lanes."""
    dash, period = rng.uniform(2.5, 4.0), rng.uniform(7.5, 11.0)
    for z in np.arange(START_M, sides[0].length_m, period).tolist():
        builder.rectangle(1, -1, (-0.07, -PAINT_M, z), (0.07, -PAINT_M, z + dash), "paint", WHITE)
    for side in sides:
        if not side.has_parking or rng.random() < 0.5:
            x0, x1 = _span(side.sign, side.lane_m, side.lane_m + 0.1)
            builder.rectangle(1, -1, (x0, -PAINT_M, START_M), (x1, -PAINT_M, side.length_m), "paint", (0.95, 0.95, 0.93))


def _far_end(rng: np.random.Generator, builder: SceneBuilder, length_m: float) -> None:
    """What closes the street: a wide house or a row of trees."""
    z = length_m + rng.uniform(4, 25)
    if rng.random() < 0.6:
        half, height = rng.uniform(20, 45), STOREY_M * int(rng.integers(2, 5))
        middle = rng.uniform(-8, 8)
        builder.rectangle(2, -1, (middle - half, -height, z), (middle + half, 0, z), _facade(rng), _vary(rng, WHITE))
        return
    for x in np.arange(-40, 40, 3.2).tolist():
        height = rng.uniform(2.2, 5.0)
        radii = (rng.uniform(2.2, 3.6), height, 2.5)
        builder.ellipsoid((x, -height + 0.4, z + rng.uniform(0, 6)), radii, "leaf", (0.85, 0.95, 0.85))


def _drive(rng: np.random.Generator, frames: int, speed_m: float, lane_m: float) -> np.ndarray:
    """Camera-to-world poses (N, 3, 4): forward with slow changes of speed, lateral place, heading and pitch."""
    time = np.arange(frames) / 36.0
    sway, heading, nod, pace = rng.uniform(0, 2 * np.pi, 4)
    z = np.cumsum(speed_m * (1 + 0.2 * np.sin(2 * np.pi * 1.3 * time + pace)))
    x = 0.5 * lane_m + 0.25 * np.sin(2 * np.pi * time + sway)
    yaw = 0.05 * np.sin(2 * np.pi * 1.2 * time + heading)
    pitch = 0.012 * np.sin(2 * np.pi * 3.0 * time + nod)
    y = -CAMERA_HEIGHT_M + 0.02 * np.sin(2 * np.pi * 3.0 * time + nod + 1)
    cos_y, sin_y, cos_p, sin_p = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    zero = np.zeros(frames)
    rotation = np.array([[cos_y, sin_y * sin_p, sin_y * cos_p], [zero, cos_p, -sin_p], [-sin_y, cos_y * sin_p, cos_y * cos_p]])
    return np.concatenate([rotation.transpose(2, 0, 1), np.stack([x, y, z], 1)[:, :, None]], 2)
