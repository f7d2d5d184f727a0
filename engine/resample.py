"""Bilinear resizing with half-pixel centres, as OpenCV's ``INTER_LINEAR`` and torch's ``align_corners=False`` do it. Numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Taps(NamedTuple):
    """Per resized pixel along one axis: the two source pixels it lies between, and the share of the second."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    share: NDArray[np.float32]


def taps(source_px: int, resized_px: int) -> Taps:
    """Where ``resized_px`` pixels lie between ``source_px`` ones; borders repeat."""
    position = np.clip((np.arange(resized_px) + 0.5) * (source_px / resized_px) - 0.5, 0, source_px - 1)
    first = position.astype(np.intp)
    return Taps(first, np.minimum(first + 1, source_px - 1), (position - first).astype(np.float32))


def resize(field: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """``field`` (h,w) resized to ``size_px`` (height, width), without antialiasing."""
    rows, columns = taps(field.shape[0], size_px[0]), taps(field.shape[1], size_px[1])
    share = rows.share[:, None]
    tall = field[rows.first] * (1 - share) + field[rows.second] * share
    resized = tall[:, columns.first] * (1 - columns.share) + tall[:, columns.second] * columns.share
    return resized.astype(np.float32, copy=False)


def resize_at(
    field: NDArray[np.float32], size_px: tuple[int, int], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    """``resize(field, size_px)[rows, columns]`` (n,) at the cost of those n pixels: sparse ground truth needs few of them."""
    vertical, horizontal = taps(field.shape[0], size_px[0]), taps(field.shape[1], size_px[1])
    flat, width = field.reshape(-1), field.shape[1]
    top, bottom = vertical.first[rows] * width, vertical.second[rows] * width
    left, right, share = (axis[columns] for axis in horizontal)
    upper = flat[top + left] * (1 - share) + flat[top + right] * share
    lower = flat[bottom + left] * (1 - share) + flat[bottom + right] * share
    share = vertical.share[rows]
    sampled: NDArray[np.float32] = upper * (1 - share) + lower * share
    return sampled
