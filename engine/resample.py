"""Bilinear resizing with half-pixel centres, as OpenCV's ``INTER_LINEAR`` and torch's ``align_corners=False`` do it. Numpy alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Taps(NamedTuple):
    """Per resized pixel along one axis: the first of the two neighbouring source pixels it lies between, and the share of the second.

    ``step`` leads from the first to the second: 1, or 0 where the source has one pixel.
    """

    first: NDArray[np.intp]
    share: NDArray[np.float32]
    step: int


@lru_cache(maxsize=64)
def taps(source_px: int, resized_px: int) -> Taps:
    """Where ``resized_px`` pixels lie between ``source_px`` ones; borders repeat."""
    position = np.clip((np.arange(resized_px) + 0.5) * (source_px / resized_px) - 0.5, 0, source_px - 1)
    # The last pixel has no neighbour beyond: there the whole share is the second's.
    first = np.minimum(position.astype(np.intp), max(source_px - 2, 0))
    return Taps(first, (position - first).astype(np.float32), min(source_px - 1, 1))


def resize(field: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """``field`` (h,w) resized to ``size_px`` (height, width), without antialiasing."""
    rows, columns = taps(field.shape[0], size_px[0]), taps(field.shape[1], size_px[1])
    share = rows.share[:, None]
    tall = field[rows.first] * (1 - share) + field[rows.first + rows.step] * share
    resized = tall[:, columns.first] * (1 - columns.share) + tall[:, columns.first + columns.step] * columns.share
    return resized.astype(np.float32, copy=False)


def resize_at(
    fields: NDArray[np.float32], size_px: tuple[int, int], top: int, row_counts: NDArray[np.integer], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Pixels of resized fields at the cost of those pixels: sparse ground truth needs few of them.

    Args:
        fields: (B,h,w). size_px: what each would be resized to.
        top: the first row with pixels. row_counts: (B,R), how many each of R rows from there on has, of each field.
        columns: (n,) of the pixels, row after row, field after field.

    Returns:
        (n,), what ``resize(fields[b], size_px)[row, column]`` would be.
    """
    height, width = fields.shape[1:]
    vertical, horizontal = taps(height, size_px[0]), taps(width, size_px[1])
    rows = slice(top, top + row_counts.shape[1])
    starts = vertical.first[rows] * width + np.arange(len(fields))[:, None] * (height * width)
    corner = np.repeat(starts.ravel(), row_counts.ravel())
    corner += horizontal.first.take(columns)
    flat, share = fields.reshape(-1), horizontal.share.take(columns)
    upper, lower = (_between(flat[down:], corner, horizontal.step, share) for down in (0, vertical.step * width))
    lower -= upper
    lower *= np.repeat(np.tile(vertical.share[rows], len(fields)), row_counts.ravel())
    upper += lower
    return upper


def _between(flat: NDArray[np.float32], first: NDArray[np.intp], step: int, share: NDArray[np.float32]) -> NDArray[np.float32]:
    left, right = flat.take(first), flat[step:].take(first)
    right -= left
    right *= share
    left += right
    return left
