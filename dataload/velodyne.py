"""KITTI's calibration files and laser scans; scans to sparse depth maps by the published rule."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError

CAM_TO_CAM = "calib_cam_to_cam.txt"
VELO_TO_CAM = "calib_velo_to_cam.txt"
# Images of both cameras are taken to have the size of the left one, as published.
SIZE_KEY = "S_rect_02"
POINT_FLOATS = 4


class Calibration(NamedTuple):
    """From the laser to one rectified camera.

    Attributes:
        projection: (3, 4) float64; homogeneous laser points in metres to (u z, v z, z), pixels counted from 1.
        size_px: (height, width) of the rectified images.
    """

    projection: NDArray[np.float64]
    size_px: tuple[int, int]


@lru_cache(maxsize=64)
def read_calibration(folder: Path, camera: int) -> Calibration:
    """Calibration of camera 2 (left) or 3 (right) from a date folder's files: P_rect_0c @ R_rect_00 @ [R | T].

    Raises:
        InputError: a file is missing, lacks a key or holds something else than numbers there.
    """
    cam = _read_entries(folder / CAM_TO_CAM, {SIZE_KEY: 2, "R_rect_00": 9, f"P_rect_0{camera}": 12})
    velo = _read_entries(folder / VELO_TO_CAM, {"R": 9, "T": 3})
    velo_to_cam, rectify = np.eye(4), np.eye(4)
    velo_to_cam[:3, :3], velo_to_cam[:3, 3] = velo["R"].reshape(3, 3), velo["T"]
    rectify[:3, :3] = cam["R_rect_00"].reshape(3, 3)
    width, height = cam[SIZE_KEY].astype(int).tolist()
    return Calibration(cam[f"P_rect_0{camera}"].reshape(3, 4) @ rectify @ velo_to_cam, (height, width))


def read_scan(path: Path) -> NDArray[np.float32]:
    """Laser points (N, 4) float32: forward, left, up in metres, reflectance; ``InputError`` where the file is cut short."""
    values = np.fromfile(path, dtype="<f4")
    if path.stat().st_size % (4 * POINT_FLOATS):
        raise InputError(f"{path} is no whole number of 16-byte laser points; it is cut short or damaged: fetch it anew")
    return values.reshape(-1, POINT_FLOATS)


def depth_map(scan: NDArray[np.float32], calibration: Calibration, *, vel_depth: bool) -> NDArray[np.float32]:
    """Depth in metres (H, W) float32 at the image's own size; 0 where no point falls.

    Points in front of the laser (x >= 0) are projected and fall on pixel round(u) - 1, round(v) - 1, half to even; the nearest
    point of a pixel counts, and a depth below 0 counts as none. This is the rule of Monodepth2's evaluation, kept to the last
    pixel: it tells pixels apart by v (W - 1) + u, so the last one of a row and the first of the next share a key; the nearest
    point of both then goes to the pixel of the first point, and the other pixel keeps its last point.

    Args:
        scan: (N, 4) float32 laser points.
        calibration: of the camera to project into.
        vel_depth: take the laser's forward distance x as depth (the published evaluation), else the camera's z.
    """
    height, width = calibration.size_px
    ahead = scan[scan[:, 0] >= 0]
    points = ahead.astype(np.float64)
    points[:, 3] = 1
    x, y, z = (points @ calibration.projection.T).T
    with np.errstate(divide="ignore", invalid="ignore"):  # points in the camera's plane fall nowhere
        u, v = np.round(x / z) - 1, np.round(y / z) - 1
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    u, v = u[inside].astype(np.int64), v[inside].astype(np.int64)
    depth = (points[:, 0] if vel_depth else z)[inside]
    key, pixel = v * (width - 1) + u, v * width + u
    nearest = np.full(height * (width - 1) + 1, np.inf)
    np.minimum.at(nearest, key, depth)
    first = np.zeros(nearest.size, dtype=np.int64)
    first[key[::-1]] = pixel[::-1]  # of equal indices, numpy keeps the last: here the first point
    image = np.zeros(height * width)
    image[pixel] = depth
    image[first[key]] = nearest[key]
    image[image < 0] = 0
    return image.reshape(height, width).astype(np.float32)


def _read_entries(path: Path, lengths: dict[str, int]) -> dict[str, NDArray[np.float64]]:
    """The entries named in ``lengths`` of a file of lines ``key: numbers``."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the calibration of that date; it comes in the archive <date>_calib.zip of KITTI raw")
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    texts = {key.strip(): text for key, _, text in lines}
    entries = {}
    for key, length in lengths.items():
        try:
            entries[key] = np.array([float(token) for token in texts[key].split()])
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: no numbers under {key!r}; fetch <date>_calib.zip of KITTI raw anew") from error
        if entries[key].size != length:
            raise InputError(f"{path}: {key!r} has {entries[key].size} numbers, not {length}; fetch <date>_calib.zip of KITTI raw anew")
    return entries
