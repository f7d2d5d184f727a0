"""Rectification: where each pixel of a rectified image lies in the image as the camera took it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.bags.messages.camera_info import FISHEYE, Camera
from dataload.bags.messages.images import opencv

# Arithmetic of 64 bits on a whole image of 100 megapixels would take gigabytes.
ROWS_AT_ONCE = 64


class Lookup(NamedTuple):
    """For each pixel of the target the point of the source, float32 (H, W) each."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]


def lookup(source: Camera, target: Camera) -> Lookup:
    """From the rectified image of ``target`` to the image of ``source`` as it lies in the recording; both cameras stand in one place.

    Raises:
        InputError: the source is distorted and OpenCV is not installed.
    """
    height, width = target.size_px
    if source.distortion.any():
        cv2 = opencv(f"rectifying images of {source.size_px[1]}x{source.size_px[0]} pixels with distortion")
        K, size = target.P[:, :3], (width, height)
        if source.model in FISHEYE:
            x, y = cv2.fisheye.initUndistortRectifyMap(source.K, source.distortion[:4], source.R, K, size, cv2.CV_32FC1)
        else:
            x, y = cv2.initUndistortRectifyMap(source.K, source.distortion, source.R, K, size, cv2.CV_32FC1)
        return Lookup(x, y)
    # Through the ray of the pixel, turned back from the rectified camera.
    to_source = source.K @ source.R.T @ np.linalg.inv(target.P[:, :3])
    found = Lookup(np.empty((height, width), np.float32), np.empty((height, width), np.float32))
    u = np.arange(width, dtype=np.float64)[None, :]
    with np.errstate(all="ignore"):  # behind the camera there is no point
        for top in range(0, height, ROWS_AT_ONCE):
            v = np.arange(top, min(top + ROWS_AT_ONCE, height), dtype=np.float64)[:, None]
            x, y, z = (row[0] * u + row[1] * v + row[2] for row in to_source)
            found.x[top : top + ROWS_AT_ONCE], found.y[top : top + ROWS_AT_ONCE] = x / z, y / z
    return found


def rectify(pixels: NDArray[np.uint8], where: Lookup) -> NDArray[np.uint8]:
    """Sample an image (h, w, 3) or (h, w) bilinearly; black outside."""
    cv2 = opencv("rectifying images")
    return cv2.remap(pixels, where.x, where.y, cv2.INTER_LINEAR)
