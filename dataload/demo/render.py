"""Ray casting of the demo world: images, exact depth and laser scans of a ``Scene``.

Every pixel is four rays. Surfaces are visited from near to far, each within the window of the picture that it can cover, and keep the
nearest hit per ray; colours are looked up once at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataload.demo.scene import ELLIPSOID, START_M, SURFACE_AXES, Scene
from dataload.demo.textures import MAX_LEVELS, TEXTURE, Atlas

NEAR_M = 0.2
MAX_DEPTH_M = 250.0  # beyond, depth is recorded as none
HAZE_M = 420.0
HAZE_COLOR = np.array([206, 214, 222], np.float32)
SKY_TOP, SKY_LOW = np.array([112, 156, 214], np.float32), np.array([214, 222, 228], np.float32)
SHADOW = 0.66
AXES_VELO_TO_CAM = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
T_VELO_TO_CAM = np.array([0.0, -0.08, -0.27])
BEAMS_DEG = np.linspace(2.0, -24.8, 64)


class Rays(NamedTuple):
    """A grid of rays from one point: world directions (3, h, w) scaled so that the distance along a ray is the depth."""

    origin: np.ndarray
    directions: np.ndarray


class Hits(NamedTuple):
    """The nearest surface per ray: depth (h, w) float32, infinite for none, and its number (h, w) int32."""

    depth: np.ndarray
    surface: np.ndarray


def intrinsics(height_px: int, width_px: int) -> np.ndarray:
    """The nominal K (3, 3) in pixels: 0.58 W, 1.92 H and the middle; pixel centres at whole numbers."""
    return np.array([[0.58 * width_px, 0, 0.5 * width_px], [0, 1.92 * height_px, 0.5 * height_px], [0, 0, 1]])


def camera_rays(pose: np.ndarray, height_px: int, width_px: int) -> Rays:
    """Two by two rays per pixel, spaced half a pixel about its centre, of a camera at ``pose`` (3, 4), camera to world."""
    K = intrinsics(height_px, width_px)
    x = ((np.arange(2 * width_px) - 0.5) / 2 - K[0, 2]) / K[0, 0]
    y = ((np.arange(2 * height_px) - 0.5) / 2 - K[1, 2]) / K[1, 1]
    R = pose[:, :3].astype(np.float32)
    x, y = x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]
    return Rays(pose[:, 3].astype(np.float32), np.stack([R[i, 0] * x + R[i, 1] * y + R[i, 2] for i in range(3)]))


def cast(scene: Scene, rays: Rays, windows: np.ndarray, nearest_m: np.ndarray) -> Hits:
    """The nearest hit of every ray; ``windows`` (F, 4) holds top, bottom, left, right of what each surface can cover."""
    shape = rays.directions.shape[1:]
    hits = Hits(np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32))
    with np.errstate(divide="ignore"):
        inverse = 1 / rays.directions
    for number in np.argsort(nearest_m, kind="stable"):
        top, bottom, left, right = windows[number]
        if top >= bottom or left >= right:
            continue
        window = (slice(top, bottom), slice(left, right))
        depth = hits.depth[window]
        if depth.max() <= nearest_m[number]:
            continue
        if scene.kind[number] == ELLIPSOID:
            t = _ellipsoid(scene, number, rays, window)
            hit = t < depth
        else:
            t, hit = _rectangle(scene, number, rays, inverse, window, depth)
        np.copyto(depth, t, where=hit)
        np.copyto(hits.surface[window], number, where=hit)
    return hits


def _rectangle(
    scene: Scene, number: int, rays: Rays, inverse: np.ndarray, window: tuple[slice, slice], nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    axis = scene.kind[number]
    low, high, origin = scene.low[number], scene.high[number], rays.origin
    t = inverse[axis][window] * (low[axis] - origin[axis])
    hit = t < nearest
    hit &= t > NEAR_M
    for other in SURFACE_AXES[axis]:
        along = t * rays.directions[other][window]
        hit &= along >= low[other] - origin[other]
        hit &= along < high[other] - origin[other]
    return t, hit


def _ellipsoid(scene: Scene, number: int, rays: Rays, window: tuple[slice, slice]) -> np.ndarray:
    """Depth where rays enter the ellipsoid, infinite where they miss: the smaller root of |(o + t d - c) / r| = 1."""
    center, radii = 0.5 * (scene.low[number] + scene.high[number]), 0.5 * (scene.high[number] - scene.low[number])
    offset = (rays.origin - center) / radii
    d = [rays.directions[i][window] / radii[i] for i in range(3)]
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = d[0] * offset[0] + d[1] * offset[1] + d[2] * offset[2]
    discriminant = b * b - a * (float(offset @ offset) - 1)
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    t[(discriminant < 0) | (t < NEAR_M)] = np.inf
    return t


def windows_of(scene: Scene, pose: np.ndarray, height_px: int, width_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (F, 4) in half pixels and least depths (F,) of all surfaces seen from ``pose``; empty where they face away.

    The corners' convex hull, cut at the near plane, is projected; of each box edge that crosses the plane the crossing point counts.
    """
    low, high = scene.low, scene.high
    pick = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], bool)
    corners = np.where(pick[None], high[:, None], low[:, None]).astype(np.float64)
    corners = (corners - pose[:, 3]) @ pose[:, :3]
    edges = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
    a, b = corners[:, [e[0] for e in edges]], corners[:, [e[1] for e in edges]]
    crosses = (a[..., 2] < NEAR_M) != (b[..., 2] < NEAR_M)
    share = np.where(crosses, (NEAR_M - a[..., 2]) / np.where(crosses, b[..., 2] - a[..., 2], 1), 0)[..., None]
    points = np.concatenate([corners, a + share * (b - a)], 1)
    seen = np.concatenate([corners[..., 2] >= NEAR_M, crosses], 1)
    depth = np.where(seen, np.maximum(points[..., 2], NEAR_M), 1.0)
    K = intrinsics(height_px, width_px)
    bounds = []
    for i, size in ((1, height_px), (0, width_px)):
        at = 2 * (points[..., i] / depth * K[i, i] + K[i, 2]) + 0.5
        first = np.floor(np.where(seen, at, np.inf).min(1).clip(0, 2 * size))
        last = np.ceil(np.where(seen, at, -np.inf).max(1).clip(-1, 2 * size - 1)) + 1
        bounds += [first, last]
    windows = np.stack(bounds, 1).astype(np.int32)
    plane = np.minimum(scene.kind, 2)
    rows = np.arange(len(plane))
    away = (scene.kind != ELLIPSOID) & ((pose[plane, 3] - low[rows, plane]) * scene.facing <= 0)
    windows[away | ~seen.any(1)] = 0
    return windows, np.where(seen, depth, np.inf).min(1)


def render(scene: Scene, atlas: Atlas, pose: np.ndarray, height_px: int, width_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and depth (H, W) float32 in metres, 0 for sky, seen from ``pose`` (3, 4), camera to world.

    Inverse depth is linear in the image on a plane, so the mean over the four rays of a pixel is exact at its centre; where they hit
    several surfaces the nearest counts.
    """
    rays = camera_rays(pose, height_px, width_px)
    hits = cast(scene, rays, *windows_of(scene, pose, height_px, width_px))
    depth = _pixel_depth(hits)
    color = _shade(scene, atlas, rays, hits, pose, height_px, width_px)
    image = color[0::2, 0::2] + color[0::2, 1::2]
    image += color[1::2, 0::2]
    image += color[1::2, 1::2]
    image = 0.25 * image[..., :3]
    haze = np.where(depth > 0, 1 - np.exp(-depth / HAZE_M), 0)[..., None]
    image += (HAZE_COLOR - image) * haze
    depth[depth > MAX_DEPTH_M] = 0
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), depth


def _pixel_depth(hits: Hits) -> np.ndarray:
    parts = [(slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
    depths = [hits.depth[part] for part in parts]
    surfaces = [hits.surface[part] for part in parts]
    same = (surfaces[0] == surfaces[1]) & (surfaces[0] == surfaces[2]) & (surfaces[0] == surfaces[3])
    with np.errstate(divide="ignore"):
        mean = 4 / sum(1 / depth for depth in depths)
    depth = np.where(same, mean, np.minimum(np.minimum(depths[0], depths[1]), np.minimum(depths[2], depths[3])))
    depth[np.isinf(depth)] = 0
    return depth.astype(np.float32)


def _shade(scene: Scene, atlas: Atlas, rays: Rays, hits: Hits, pose: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Colour (2H, 2W, 4) float32 of every ray; the fourth channel is padding."""
    surface = hits.surface.ravel()
    color = np.empty((surface.size, 4), np.float32)
    kind = np.where(surface < 0, -1, scene.kind[surface])
    K = intrinsics(height_px, width_px)
    steps = [(pose[:, i] / (2 * K[i, i])).astype(np.float32) for i in (0, 1)]  # change of a direction per half pixel, across and down
    # What faces away from the sun is dark already.
    dimmed = np.where((scene.kind == 0) & (scene.facing * scene.sun[0] < 0), 1, SHADOW).astype(np.float32)
    tint = np.concatenate([scene.tint, np.zeros((len(scene.tint), 1))], 1).astype(np.float32)
    for group in range(-1, 4):
        index = np.flatnonzero(kind == group)
        if not len(index):
            continue
        d = [direction.ravel()[index] for direction in rays.directions]
        if group == -1:
            color[index] = _sky(atlas, d)
            continue
        t, number = hits.depth.ravel()[index], surface[index]
        at = [rays.origin[i] + t * d[i] for i in range(3)]
        if group == ELLIPSOID:
            normal = _normals(scene, number, at)
            texel = _lookup_round(scene, atlas, number, normal, t * np.float32(0.5 / K[0, 0]))
            light = 0.82 - 0.34 * normal[1] + np.float32(0.2 * np.sign(scene.sun[0])) * normal[0]
        else:
            texel = _lookup_flat(scene, atlas, group, number, at, d, t, steps)
            light = np.ones(1, np.float32)
        light = light * np.where(_in_shadow(scene, at), dimmed[number], np.float32(1))
        color[index] = texel * tint[number] * light[:, None]
    return color.reshape(*hits.surface.shape, 4)


def _in_shadow(scene: Scene, at: list[np.ndarray]) -> np.ndarray:
    rise, lean = scene.sun.astype(np.float32)
    place = ((at[2] + lean * at[0] - START_M) * 2).astype(np.int32).clip(0, len(scene.shadow_m) - 1)
    return -at[1] < scene.shadow_m[place] + rise * at[0]


def _texels(atlas: Atlas, texture: np.ndarray, u: np.ndarray, v: np.ndarray, step_u: np.ndarray, step_v: np.ndarray) -> np.ndarray:
    """Texture values (N, 4) uint8 at texel coordinates u, v, from the level whose texels are one to two steps wide."""
    width_bits, height_bits = atlas.width_bits[texture], atlas.height_bits[texture]
    # The exponent bits of a positive float are the whole part of its logarithm.
    i = ((step_u.view(np.int32) >> 23) - 126).clip(0, width_bits)
    j = ((step_v.view(np.int32) >> 23) - 126).clip(0, height_bits)
    column = (u.astype(np.int32) >> i) & ((1 << (width_bits - i)) - 1)
    row = (v.astype(np.int32) >> j) & ((1 << (height_bits - j)) - 1)
    start = atlas.start.ravel()[(texture * MAX_LEVELS + i) * MAX_LEVELS + j]
    return atlas.pixels[start + (row << (width_bits - i)) + column].view(np.uint8).reshape(-1, 4)


def _lookup_flat(
    scene: Scene,
    atlas: Atlas,
    axis: int,
    number: np.ndarray,
    at: list[np.ndarray],
    d: list[np.ndarray],
    t: np.ndarray,
    steps: list[np.ndarray],
) -> np.ndarray:
    coordinates, footprints = [], []
    for k, other in enumerate(SURFACE_AXES[axis]):
        scale = scene.texel_scale[:, k][number]
        coordinates.append(at[other] * scale + scene.texel_origin[:, k][number])
        slant = d[other] / d[axis]
        across, down = (np.abs(step[other] - slant * step[axis]) for step in steps)
        footprints.append(np.abs(scale * t) * np.maximum(across, down))
    return _texels(atlas, scene.texture[number], *coordinates, *footprints)


def _normals(scene: Scene, number: np.ndarray, at: list[np.ndarray]) -> list[np.ndarray]:
    """Where on its ellipsoid, scaled to the unit sphere, each point lies: near enough the normal."""
    center, radii = 0.5 * (scene.low + scene.high), 0.5 * (scene.high - scene.low)
    return [(at[i] - center[:, i][number]) / radii[:, i][number] for i in range(3)]


def _lookup_round(scene: Scene, atlas: Atlas, number: np.ndarray, normal: list[np.ndarray], spacing_m: np.ndarray) -> np.ndarray:
    """The texture wrapped around by longitude and height."""
    radius_m = 0.5 * (scene.high[:, 0] - scene.low[:, 0])[number]
    scale, origin = radius_m * scene.texel_scale[:, 0][number], scene.texel_origin[:, 0][number]
    step = 1.5 * scene.texel_scale[:, 0][number] * spacing_m
    u, v = np.arctan2(normal[0], -normal[2]) * scale + origin, origin - 1.3 * normal[1] * scale
    return _texels(atlas, scene.texture[number], u, v, step, step)


def _sky(atlas: Atlas, d: list[np.ndarray]) -> np.ndarray:
    """A gradient from the horizon up and soft clouds, at infinity."""
    rise = np.clip(-d[1] / np.float32(0.45), 0, 1)[:, None]
    color = SKY_LOW + (SKY_TOP - SKY_LOW) * rise
    u, v = d[0] * np.float32(180) + 16384, d[1] * np.float32(420) + 16384
    step = np.full(len(u), 0.5, np.float32)
    cloud = _texels(atlas, np.full(len(u), TEXTURE["cloud"], np.int32), u, v, step, step)[:, :1].astype(np.float32) / 255
    color += (250 - color) * (0.9 * np.clip(cloud - 0.45, 0, 1) * (0.3 + 0.7 * rise))
    return np.concatenate([color, np.zeros_like(rise)], 1)


def scan(scene: Scene, pose: np.ndarray) -> np.ndarray:
    """A laser scan (N, 4) float32 of forward, left, up in metres and reflectance, from beside the camera at ``pose``.

    The part of a 64-beam scan that cameras see: those beams and directions within the picture's angles, ranges up to 100 m.
    """
    azimuth = np.deg2rad(np.arange(-43.0, 43.0, 0.35))
    elevation = np.deg2rad(BEAMS_DEG[BEAMS_DEG > -16.0])
    x, y = np.broadcast_arrays(np.tan(azimuth)[None], -np.tan(elevation)[:, None] / np.cos(azimuth)[None])
    R = pose[:, :3]
    origin = R @ T_VELO_TO_CAM + pose[:, 3]
    directions = np.stack([R[i, 0] * x + R[i, 1] * y + R[i, 2] for i in range(3)]).astype(np.float32)
    rays = Rays(origin.astype(np.float32), directions)
    plane = np.minimum(scene.kind, 2)
    rows = np.arange(len(plane))
    away = (scene.kind != ELLIPSOID) & ((origin[plane] - scene.low[rows, plane]) * scene.facing <= 0)
    windows = np.where(away[:, None], 0, np.array([0, x.shape[0], 0, x.shape[1]]))
    hits = cast(scene, rays, windows, np.zeros(len(plane)))
    kept = np.flatnonzero(hits.depth.ravel() < 100)
    depth, surface = hits.depth.ravel()[kept], hits.surface.ravel()[kept]
    reflectance = np.clip(0.4 * scene.tint[surface].mean(1), 0, 1)
    return np.stack([depth, -depth * x.ravel()[kept], -depth * y.ravel()[kept], reflectance], 1).astype(np.float32)
