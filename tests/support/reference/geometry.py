"""Warping one pixel at a time in float64, by homogeneous coordinates and matrices throughout."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rotation(axisangle: Array) -> Array:
    """The matrix exponential of the cross-product matrix of ``axisangle``, by its series."""
    x, y, z = axisangle
    generator = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    result, term = np.eye(3), np.eye(3)
    for order in range(1, 40):
        term = term @ generator / order
        result = result + term
    return result


def source_pixel(x: int, y: int, depth: float, K: Array, T: Array) -> tuple[float, float]:
    """Where the source sees what the target sees at (x, y), in pixels."""
    point = np.append(depth * (np.linalg.inv(K) @ np.array([x, y, 1.0])), 1.0)
    seen = K @ (T @ point)[:3]
    return float(seen[0] / seen[2]), float(seen[1] / seen[2])


def sample(image: Array, x: float, y: float) -> Array:
    """Bilinear value of an image (H, W, C) at pixel (x, y), clamped to its border."""
    height, width = image.shape[:2]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    value: Array = (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1]) + b * (
        (1 - a) * image[top + 1, left] + a * image[top + 1, left + 1]
    )
    return value


def warp(source: Array, depth: Array, K: Array, T: Array) -> Array:
    """The source (H, W, C) as the target would see it, given the target's depth (H, W) and T_source_target."""
    height, width = depth.shape
    return np.array([[sample(source, *source_pixel(x, y, depth[y, x], K, T)) for x in range(width)] for y in range(height)])
