"""The yardstick: ground truth made in the way Monodepth2's script makes it, one frame after another.

Per frame both calibration files are parsed, the scan is projected in double precision, pixels hit more than once are found by counting
keys, and each of them is corrected separately. All maps stay in memory, then go into one compressed file as pickled objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataload.frames.frame_ref import FrameRef

CAMERAS = {"l": 2, "r": 3}


def write_plain_ground_truth(path: Path, data_path: Path, refs: Sequence[FrameRef]) -> None:
    """Writes the laser depths of ``refs`` in a KITTI raw tree to ``path``, an ``.npz`` with an object array ``data``."""
    maps = np.empty(len(refs), dtype=object)  # filled one by one, so that maps of one size stay maps too
    for number, ref in enumerate(refs):
        maps[number] = plain_depth_m(data_path, ref).astype(np.float32)
    np.savez_compressed(path, data=maps)


def plain_depth_m(data_path: Path, ref: FrameRef, *, vel_depth: bool = True) -> np.ndarray:
    """Depth (H, W) float64 in metres of one frame, 0 = missing, from its files."""
    projection, size_px = plain_calibration((data_path / ref.folder).parent, CAMERAS[str(ref.side)])
    scan = np.fromfile(data_path / ref.folder / "velodyne_points" / "data" / f"{ref.frame_index:010d}.bin", dtype=np.float32)
    return plain_depth_map(scan.reshape(-1, 4), projection, size_px, vel_depth=vel_depth)


def plain_calibration(folder: Path, camera: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The projection (3, 4) from laser points to a camera, and the image's height and width."""
    cam, velo = plain_entries(folder / "calib_cam_to_cam.txt"), plain_entries(folder / "calib_velo_to_cam.txt")
    velo_to_cam = np.vstack((np.hstack((velo["R"].reshape(3, 3), velo["T"][:, None])), [0, 0, 0, 1]))
    rectify = np.eye(4)
    rectify[:3, :3] = cam["R_rect_00"].reshape(3, 3)
    width, height = cam["S_rect_02"].astype(int)
    return cam[f"P_rect_0{camera}"].reshape(3, 4) @ rectify @ velo_to_cam, (height, width)


def plain_entries(path: Path) -> dict[str, np.ndarray]:
    """Every line ``key: numbers`` of a calibration file; what is no number is skipped."""
    entries = {}
    for line in path.read_text().splitlines():
        key, _, text = line.partition(":")
        try:
            entries[key] = np.array([float(token) for token in text.split()])
        except ValueError:
            continue
    return entries


def plain_depth_map(scan: np.ndarray, projection: np.ndarray, size_px: tuple[int, int], *, vel_depth: bool) -> np.ndarray:
    """Depth (H, W) float64 in metres of laser points (N, 4); the published rule, its confusion of row ends included."""
    height, width = size_px
    points = scan[scan[:, 0] >= 0].astype(np.float64)
    points[:, 3] = 1
    on_image = np.dot(projection, points.T).T
    with np.errstate(divide="ignore", invalid="ignore"):
        on_image[:, :2] /= on_image[:, 2:]
    depths = points[:, 0] if vel_depth else on_image[:, 2]
    u, v = np.round(on_image[:, 0]) - 1, np.round(on_image[:, 1]) - 1
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    u, v, depths = u[inside].astype(int), v[inside].astype(int), depths[inside]

    depth = np.zeros(size_px)
    depth[v, u] = depths
    keys = v * (width - 1) + u - 1
    for key, count in Counter(keys).items():
        if count > 1:
            hits = np.where(keys == key)[0]
            depth[v[hits[0]], u[hits[0]]] = depths[hits].min()
    depth[depth < 0] = 0
    return depth
