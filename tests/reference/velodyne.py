"""Laser scan to depth map, point by point, with the published rule's confusion of row ends: slow and plain."""

import numpy as np


def depth_map(scan: np.ndarray, projection: np.ndarray, size_px: tuple[int, int], *, vel_depth: bool) -> np.ndarray:
    """(H, W) float64 depth in metres of (N, 4) points through a (3, 4) projection; 0 = missing."""
    height, width = size_px
    image = np.zeros((height, width))
    by_key: dict[int, list[tuple[int, int, float]]] = {}
    for point in scan:
        if point[0] < 0:
            continue
        x, y, z = projection @ np.array([point[0], point[1], point[2], 1.0])
        u, v = round(x / z) - 1, round(y / z) - 1
        if 0 <= u < width and 0 <= v < height:
            depth = float(point[0]) if vel_depth else z
            image[v, u] = depth
            by_key.setdefault(v * (width - 1) + u - 1, []).append((v, u, depth))
    for points in by_key.values():
        if len(points) > 1:
            v, u, _ = points[0]
            image[v, u] = min(depth for _, _, depth in points)
    image[image < 0] = 0
    return image
