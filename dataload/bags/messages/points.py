"""sensor_msgs/PointCloud2 to points, and points to a depth image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.bags.formats.container import named
from dataload.bags.messages.camera_info import Camera
from dataload.bags.messages.depth import MAX_DEPTH_M
from dataload.bags.messages.images import BadFrame, decoding
from splits.errors import InputError

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}  # PointField's datatypes
MOST_POINTS = 10_000_000  # the largest scanners give a quarter of a million
MIN_DEPTH_M = 0.1  # nearer points are the car's own or none


def xyz_of(message: Any, topic: str) -> NDArray[np.float64]:
    """The finite points of a cloud, (N, 3) in its own frame and unit.

    Raises:
        BadFrame: fewer data than the cloud's size needs.
        InputError: the cloud has no x, y, z.
    """
    with decoding():
        return _xyz_of(message, topic)


def _xyz_of(message: Any, topic: str) -> NDArray[np.float64]:
    fields = {field.name: field for field in message.fields}
    if not {"x", "y", "z"} <= fields.keys() or any(fields[name].datatype not in NUMBERS for name in "xyz"):
        raise InputError(f"{topic} has no fields x, y, z but {named(', '.join(fields)) or 'none'}; name another with --points_topic")
    step, width, height = int(message.point_step), int(message.width), int(message.height)
    row = int(message.row_step) or step * width
    if not width or not height:
        return np.zeros((0, 3))
    if width * height > MOST_POINTS:
        raise BadFrame(f"of more than {MOST_POINTS:,} points")
    if any(int(fields[name].offset) + np.dtype(NUMBERS[fields[name].datatype]).itemsize > step for name in "xyz"):
        raise BadFrame("damaged")
    if row < step * width or message.data.size < (height - 1) * row + step * width:
        raise BadFrame("damaged")
    order = ">" if message.is_bigendian else "<"
    formats = [order + NUMBERS[fields[name].datatype] for name in "xyz"]
    kind = np.dtype({"names": list("xyz"), "formats": formats, "offsets": [int(fields[name].offset) for name in "xyz"], "itemsize": step})
    lines = np.lib.stride_tricks.as_strided(message.data, (height, step * width), (row, 1), writeable=False)
    points = np.ascontiguousarray(lines).view(kind).ravel()
    with np.errstate(invalid="ignore"):
        xyz = np.stack([points[name].astype(np.float64) for name in "xyz"], 1)
    return xyz[np.isfinite(xyz).all(1)]


def nothing_at(camera: Camera) -> NDArray[np.float32]:
    """The depth image (H, W) of a camera that no point has been projected to yet."""
    return np.zeros(camera.size_px, np.float32)


def project(
    xyz: NDArray[np.float64], T_camera_points: NDArray[np.float64], camera: Camera, depth_m: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Depth (H, W) in metres of the rectified image, 0 where no point falls; of several points in a pixel the nearest.

    The frame of the tree is taken for the rectified camera's, as ROS's own image_geometry takes it.

    Args:
        depth_m: what earlier points have made, to add these to; by default none have.
    """
    depth_m = nothing_at(camera) if depth_m is None else depth_m
    height, width = camera.size_px
    P = camera.P
    with np.errstate(all="ignore"):  # points may be as far as numbers go
        x, y, z = T_camera_points[:3, :3] @ xyz.T + T_camera_points[:3, 3:]
        front = (z > MIN_DEPTH_M) & (z <= MAX_DEPTH_M)
        x, y, z = x[front], y[front], z[front]
        u, v = np.rint(P[0, 0] * x / z + P[0, 2]), np.rint(P[1, 1] * y / z + P[1, 2])
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v, z = u[inside].astype(np.intp), v[inside].astype(np.intp), z[inside]
    there = depth_m[v, u]
    nearer = (there == 0) | (z < there)
    u, v, z = u[nearer], v[nearer], z[nearer]
    # From far to near: where several are written, the last one stays.
    order = np.argsort(-z, kind="stable")
    depth_m[v[order], u[order]] = z[order]
    return depth_m
