"""KITTI's calibration files and laser scans; scans to sparse depth maps by the published rule."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dataload.frames.sparse_depth import MOST_SIDE_PX, SparseDepth
from splits.errors import InputError
from splits.limits import IMAGE_PIXELS
from splits.reading import read_bytes

CAM_TO_CAM = "calib_cam_to_cam.txt"
VELO_TO_CAM = "calib_velo_to_cam.txt"
# Images of both cameras are taken to have the size of the left one, as published.
SIZE_KEY = "S_rect_02"
POINT_FLOATS = 4
# Of a calibration file, which takes 3 KB, and of a scan, which has 120,000 points.
MOST_TEXT_BYTES, MOST_SCAN_BYTES = 2**16, 2**27
# Far more pixels or metres than any camera's, and than lasers measure; the products of such numbers are finite.
LARGEST, FARTHEST_M = 1e7, 1e13
# Bound on the error of a float32 sum of four products, relative to the sum of the largest they can be.
FLOAT32_ERROR = 1e-6
MAX_ERROR = 1e4
INDEX_BITS = 32
Floats = TypeVar("Floats", np.float32, np.float64)
CALIBRATION_REMEDY = "fetch <date>_calib.zip of KITTI raw again"


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
        InputError: a file is missing, lacks a key or holds something else than (finite) numbers there, or gives images no size.
    """
    cam = _read_entries(folder / CAM_TO_CAM, {SIZE_KEY: 2, "R_rect_00": 9, f"P_rect_0{camera}": 12})
    velo = _read_entries(folder / VELO_TO_CAM, {"R": 9, "T": 3})
    velo_to_cam, rectify = np.eye(4), np.eye(4)
    velo_to_cam[:3, :3], velo_to_cam[:3, 3] = velo["R"].reshape(3, 3), velo["T"]
    rectify[:3, :3] = cam["R_rect_00"].reshape(3, 3)
    width, height = map(int, cam[SIZE_KEY].tolist())
    if not 1 <= min(width, height) <= max(width, height) <= MOST_SIDE_PX:
        raise InputError(f"{folder / CAM_TO_CAM}: images of {width}x{height} pixels under {SIZE_KEY!r}; {CALIBRATION_REMEDY}")
    IMAGE_PIXELS.require(width * height, folder / CAM_TO_CAM)
    return Calibration(cam[f"P_rect_0{camera}"].reshape(3, 4) @ rectify @ velo_to_cam, (height, width))


def read_scan(path: Path) -> NDArray[np.float32]:
    """Laser points (N, 4) float32: forward, left, up in metres, reflectance; ``InputError`` where the file is empty or cut short."""
    data = read_bytes(path, "a laser scan", "fetch it again", MOST_SCAN_BYTES)
    if not data:
        raise InputError(f"{path} is empty, where laser points should be; fetch it again")
    if len(data) % (4 * POINT_FLOATS):
        raise InputError(
            f"{path} is no whole number of 16-byte laser points ({len(data)} bytes); it is cut short or damaged: fetch it again"
        )
    return np.frombuffer(data, "<f4").reshape(-1, POINT_FLOATS)


def sparse_depth(scan: NDArray[np.float32], calibration: Calibration, *, vel_depth: bool) -> SparseDepth:
    """Depth in metres at the pixels of the image on which points fall.

    Points in front of the laser (x >= 0) are projected and fall on pixel round(u) - 1, round(v) - 1, half to even; the nearest
    point of a pixel counts, and a depth below 0 counts as none. This is the rule of Monodepth2's evaluation, kept to the last
    pixel: it distinguishes pixels by v (W - 1) + u, so the last one of a row and the first of the next share a key; the nearest
    point of both then goes to the pixel of the first point, and the other pixel keeps its last point.

    Args:
        scan: (N, 4) float32 laser points.
        calibration: of the camera to project into.
        vel_depth: take the laser's forward distance x as depth (the published evaluation), else the camera's z.
    """
    height, width = calibration.size_px
    near = _drop_outside(scan, calibration)
    points = near[:, :3].T.astype(np.float64)
    x, y, z = (_affine(row, points) for row in calibration.projection.tolist())
    with np.errstate(divide="ignore", invalid="ignore"):  # points in the camera's plane fall nowhere
        u, v = np.rint(x / z) - 1, np.rint(y / z) - 1
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    pixels, depth = _nearest((v * width + u)[inside].astype(np.int64), (points[0] if vel_depth else z)[inside], width)
    values = depth.astype(np.float32)
    measured = values > 0
    rows, columns = np.divmod(pixels[measured], width)
    return SparseDepth.at(rows, columns, values[measured], (height, width))


def _drop_outside(scan: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float32]:
    """The points (n, 4) with x >= 0, without most of those that fall outside the image: a cheap test in float32 before the exact one.

    A point before the camera (z > 0) that falls on the image has x >= 0 and x <= (W + 1) z there, whatever the rounding; only what
    misses one of the two by more than float32 can err is left out.
    """
    with np.errstate(invalid="ignore"):  # NaN lies nowhere
        ahead = _rows(scan, scan[:, 0] >= 0)
        if not np.abs(ahead[:, :3]).max(initial=0) <= FARTHEST_M:
            ahead = _rows(ahead, np.abs(ahead[:, :3]).max(axis=1) <= FARTHEST_M)
    to_x, _, to_z = calibration.projection
    sides = np.stack([to_x, (calibration.size_px[1] + 1) * to_z - to_x, to_z])
    reach = float(np.abs(ahead).max(initial=1))
    error = FLOAT32_ERROR * reach * float(np.abs(sides).sum(axis=1).max())
    if not error < MAX_ERROR:  # points that no laser measures
        return ahead
    points = np.ascontiguousarray(ahead[:, :3].T)
    left, right, z = (_affine(row, points) for row in sides.tolist())
    return _rows(ahead, ~(((left < -error) | (right < -error)) & (z > error)))


def _affine(row: list[float], points: NDArray[Floats]) -> NDArray[Floats]:
    """a x + b y + c z + d of (3, N) points, in their precision; no matrix product, whose own threads cost more than they bring here."""
    a, b, c, d = row
    x, y, z = points
    values = a * x
    values += b * y
    values += c * z
    values += d
    return values


def _rows(points: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``points[chosen]``, each row of 16 bytes moved as one value, which is several times faster."""
    return np.ascontiguousarray(points).view(np.complex128)[:, 0][chosen].view(np.float32).reshape(-1, POINT_FLOATS)


def _nearest(pixels: NDArray[np.int64], depth: NDArray[np.float64], width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The pixels hit, ascending, and the depth of each by the rule of ``sparse_depth``; points in the scan's order."""
    if not pixels.size:
        return pixels, depth
    # Sorting pixel and place in the scan as one number is faster than a stable argsort.
    combined = (pixels << INDEX_BITS) | np.arange(pixels.size)
    combined.sort()
    pixels, order = combined >> INDEX_BITS, combined & ((1 << INDEX_BITS) - 1)
    depth = depth[order]
    starts = np.flatnonzero(np.concatenate([[True], pixels[1:] != pixels[:-1]]))
    pixels, nearest = pixels[starts], np.minimum.reduceat(depth, starts)
    # The first pixel of a row, where it is hit along with the one before it, which shares its key.
    row_starts = np.arange(width, int(pixels[-1]) + 1, width)
    lower = np.searchsorted(pixels, row_starts)
    lower = lower[(pixels[lower] == row_starts) & (pixels[lower - 1] == row_starts - 1)]
    upper = lower - 1
    last = depth[np.append(starts[1:], depth.size) - 1]
    upper_first = order[starts[upper]] < order[starts[lower]]
    both = np.minimum(nearest[upper], nearest[lower])
    nearest[upper], nearest[lower] = np.where(upper_first, both, last[upper]), np.where(upper_first, last[lower], both)
    return pixels, nearest


def _read_entries(path: Path, lengths: dict[str, int]) -> dict[str, NDArray[np.float64]]:
    """The entries named in ``lengths`` of a file of lines ``key: numbers``."""
    if not path.exists():
        raise InputError(f"{path} is missing: the calibration of that date; it comes in the archive <date>_calib.zip of KITTI raw")
    data = read_bytes(path, "a calibration of KITTI", CALIBRATION_REMEDY, MOST_TEXT_BYTES)
    lines = (line.partition(":") for line in data.decode(errors="replace").splitlines())
    texts = {key.strip(): text for key, _, text in lines}
    entries = {}
    for key, length in lengths.items():
        try:
            entries[key] = np.array([float(token) for token in texts[key].split()])
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: no numbers under {key!r}; {CALIBRATION_REMEDY}") from error
        if entries[key].size != length:
            raise InputError(f"{path}: {key!r} has {entries[key].size} numbers, not {length}; {CALIBRATION_REMEDY}")
        if not np.abs(entries[key]).max() <= LARGEST:  # nor of NaN
            raise InputError(f"{path}: {key!r} has infinite or undefined numbers; {CALIBRATION_REMEDY}")
    return entries
