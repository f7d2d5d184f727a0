"""Depth images to metres, to the pixels of the rectified left image, and to 16-bit PNG files.

Depth is the distance along the optical axis. A depth image belongs to the image's pixels by one of these rules:

- The two cameras have one frame (``frame_id``), or the depth image says nothing of its own and has the image's shape: depth is registered,
  and each pixel of the image takes the nearest of the depth image, through both K where they differ.
- Their frames differ and the transform is known, of ``/tf_static`` or ``--depth_extrinsics``: each pixel is projected as a point.
- Otherwise nothing says where its pixels lie in the image, and depth is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.bags.formats.container import named
from dataload.bags.messages.camera_info import Camera
from dataload.bags.messages.images import PNG_LEVEL, PNG_START, BadFrame, decoding, is_compressed, read_png, rows
from dataload.bags.messages.rectify import ROWS_AT_ONCE, lookup
from dataload.frames.picture_header import read_header
from splits.errors import InputError

SCALE = 256  # PNG units per metre
MAX_DEPTH_M = 255.99
CONFIG_BYTES = 12  # before the PNG of compressedDepth: a number that says little, then A and B
_MILLIMETRES = np.rint(np.arange(2**16) * (SCALE / 1000)).astype(np.uint16)


class Registration(NamedTuple):
    """For each pixel of the image its pixel of the depth image, flat, -1 for none; and the factor on its depth, None for 1."""

    pixel: NDArray[np.int32]
    factor: NDArray[np.float32] | None


def decode(message: Any, topic: str) -> NDArray[Any]:
    """The values of a depth image, (h, w): uint16 millimetres or float32 metres.

    Raises:
        BadFrame: damaged data.
        InputError: an encoding that is not one of depth, or not known.
    """
    with decoding():
        if is_compressed(message):
            return _decode_compressed(message, topic)
        if message.encoding in ("16UC1", "mono16"):
            return rows(message, "u2")
        if message.encoding == "32FC1":
            return rows(message, "f4")
    raise InputError(f"{topic}: depth of encoding {named(message.encoding)!r}, not 16UC1 or 32FC1; name another with --depth_topic")


def metres(values: NDArray[Any]) -> NDArray[np.float32]:
    """Values as ``decode`` gives them in metres."""
    return values.astype(np.float32) * np.float32(0.001) if values.dtype == np.uint16 else values


def levels(values: NDArray[Any]) -> NDArray[np.uint16]:
    """What is written of values as ``decode`` gives them: metres times 256; 0 for none, for what is no depth, and beyond 255.99 m."""
    if values.dtype == np.uint16:
        return _MILLIMETRES[values]
    return _by_rows(values, np.uint16, lambda part: np.rint(np.where((part > 0) & (part <= MAX_DEPTH_M), part, 0) * SCALE))


def encode(pixels: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def registration(depth: Camera, image: Camera) -> Registration | None:
    """How registered depth is brought to the rectified image's pixels; None where they are the same.

    Raises:
        InputError: the depth image is distorted and OpenCV is not installed.
    """
    same = depth.size_px == image.size_px and np.allclose(depth.K, image.P[:, :3], atol=1e-3)
    if same and not depth.rectifies:
        return None
    height, width = depth.size_px
    where = lookup(depth, image)
    pixel = np.empty(image.size_px, np.int32)
    for top in range(0, len(pixel), ROWS_AT_ONCE):
        with np.errstate(invalid="ignore"):
            x, y = (np.rint(part[top : top + ROWS_AT_ONCE]) for part in where)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = (np.where(inside, part, 0).astype(np.int32) for part in (x, y))
        pixel[top : top + ROWS_AT_ONCE] = np.where(inside, y * np.int32(width) + x, -1)
    factor = None
    if not np.allclose(depth.R, np.eye(3), atol=1e-9):
        # In a rotated camera a point has another depth: along the ray r of the rectified camera by 1 / (R^T r)_z.
        u, v = np.arange(image.size_px[1])[None, :], np.arange(image.size_px[0])[:, None]
        back = depth.R.T @ np.linalg.inv(image.P[:, :3])
        factor = np.empty(image.size_px, np.float32)
        with np.errstate(all="ignore"):
            for top in range(0, len(factor), ROWS_AT_ONCE):
                part = v[top : top + ROWS_AT_ONCE]
                factor[top : top + ROWS_AT_ONCE] = 1 / (back[2, 0] * u + back[2, 1] * part + back[2, 2])
    return Registration(pixel, factor)


def register(values: NDArray[Any], how: Registration) -> NDArray[Any]:
    """Values as ``decode`` gives them, at the pixels of the image."""
    taken = np.where(how.pixel >= 0, values.ravel()[how.pixel], values.dtype.type(0))
    with np.errstate(all="ignore"):
        return taken if how.factor is None else metres(taken) * how.factor


def points_of(values: NDArray[Any], depth: Camera, top: int = 0) -> NDArray[np.float64]:
    """The points (N, 3) that a depth image shows, or rows of it from ``top`` on, in metres in its camera's frame; distortion is left."""
    depth_m = metres(values).astype(np.float64)
    with np.errstate(invalid="ignore"):
        v, u = np.nonzero((depth_m > 0) & (depth_m <= MAX_DEPTH_M))
    z = depth_m[v, u]
    K = depth.K
    with np.errstate(all="ignore"):
        return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v + top - K[1, 2]) / K[1, 1] * z, z], 1)


def size_of(message: Any, topic: str) -> tuple[int, int]:
    """(height, width) of a depth image; raises as ``decode``."""
    if not is_compressed(message):
        return int(message.height), int(message.width)
    data, _ = _png_of(message, topic)
    header = read_header(data)
    if header is None:
        raise BadFrame("damaged")
    return header.size_px


def _png_of(message: Any, topic: str) -> tuple[bytes, tuple[float, float]]:
    """The PNG in a compressed depth image, and A and B of its quantisation."""
    data = message.data.tobytes()
    if data.startswith(PNG_START):
        return data, (0.0, 0.0)
    if "rvl" in message.format.lower():
        raise InputError(f"{topic}: depth compressed by rvl cannot be read; record it as compressedDepth png or uncompressed")
    if data[CONFIG_BYTES : CONFIG_BYTES + len(PNG_START)] != PNG_START:
        if len(data) < CONFIG_BYTES + len(PNG_START):
            raise BadFrame("damaged")
        raise InputError(f"{topic}: {named(message.format)!r} is no compressed depth in PNG; name another with --depth_topic")
    _, a, b = struct.unpack_from("<iff", data)
    return data[CONFIG_BYTES:], (a, b)


def _decode_compressed(message: Any, topic: str) -> NDArray[Any]:
    data, (a, b) = _png_of(message, topic)
    values = read_png(data)
    if values.ndim != 2 or values.dtype.itemsize < 2:
        raise InputError(f"{topic}: a PNG of 8 bits is no depth; name another with --depth_topic")
    values = values.astype(np.uint16)
    if not message.format.startswith("32FC1"):
        return values
    # Quantised 1/depth: value = A / depth + B, 0 for none.
    return _by_rows(values, np.float32, lambda part: np.where(part > 0, a / (part.astype(np.float64) - b), 0))


def _by_rows(values: NDArray[Any], dtype: type, make: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """What ``make`` makes of an image, some rows at a time: its arithmetic takes many times the bytes."""
    made: NDArray[Any] = np.empty(values.shape, dtype)
    with np.errstate(all="ignore"):
        for top in range(0, len(values), ROWS_AT_ONCE):
            made[top : top + ROWS_AT_ONCE] = make(values[top : top + ROWS_AT_ONCE])
    return made
