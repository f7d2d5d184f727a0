"""Measured depth of images as plain values: the measured pixels of one image, and of many in four flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

# What the 16 bits of columns and of rows' counts can say; and the images that a list of a million lines has.
MOST_SIDE_PX, MOST_IMAGES = 2**16 - 1, 1_000_000


class SparseDepth(NamedTuple):
    """Measured depth of one image, row after row.

    Attributes:
        values_m: (n,) float32 metres, above 0.
        columns: (n,) uint16 column of each value, ascending within a row.
        row_counts: (height,) uint16, how many values each row has.
        size_px: (height, width).
    """

    values_m: NDArray[np.float32]
    columns: NDArray[np.uint16]
    row_counts: NDArray[np.uint16]
    size_px: tuple[int, int]

    @classmethod
    def of(cls, depth_m: NDArray[np.float32]) -> SparseDepth:
        """The measured pixels of a map (H, W) float32 in metres; what is not above 0 counts as missing."""
        height, width = depth_m.shape
        measured = depth_m > 0
        # Two bytes per value: places in 64 bits take several times as much as the map.
        columns = np.broadcast_to(np.arange(width, dtype=np.uint16), depth_m.shape)[measured]
        return cls(depth_m[measured], columns, np.count_nonzero(measured, axis=1).astype(np.uint16), (height, width))

    @classmethod
    def at(
        cls, rows: NDArray[np.int64], columns: NDArray[np.int64], values_m: NDArray[np.float32], size_px: tuple[int, int]
    ) -> SparseDepth:
        """Values (n,) at pixels (n,), which ascend row by row."""
        row_counts = np.bincount(rows, minlength=size_px[0])
        return cls(values_m, columns.astype(np.uint16), row_counts.astype(np.uint16), size_px)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row (n,) of each value."""
        return np.repeat(np.arange(self.size_px[0]), self.row_counts)

    def dense(self) -> NDArray[np.float32]:
        """The map (H, W) float32 in metres, 0 = missing."""
        depth = np.zeros(self.size_px, dtype=np.float32)
        depth[self.rows, self.columns] = self.values_m
        return depth


class PackedDepths(Sequence[SparseDepth]):
    """Depths of N images in four arrays; an item is unpacked when it is asked for, by any number of threads.

    A mask of bits would be smaller for dense depth, but takes ten times as long to unpack.

    Args:
        values_m: (n,) float32 metres of all images, one after another, row by row.
        columns: (n,) uint16, the column of each value.
        row_counts: uint16, how many values each row of each image has, image after image.
        shapes: (N, 2) integers, height and width in pixels.

    Raises:
        ValueError: the arrays do not belong together.
    """

    def __init__(
        self, values_m: NDArray[np.float32], columns: NDArray[np.uint16], row_counts: NDArray[np.uint16], shapes: NDArray[np.int64]
    ) -> None:
        if shapes.ndim != 2 or shapes.shape[1] != 2 or shapes.dtype.kind not in "iu" or len(shapes) > MOST_IMAGES:
            raise ValueError(f"shapes of {shapes.dtype}, {shapes.shape}, are no heights and widths")
        if shapes.size and not 1 <= shapes.min() <= shapes.max() <= MOST_SIDE_PX:
            raise ValueError(f"heights and widths go from {shapes.min()} to {shapes.max()}, not from 1 to {MOST_SIDE_PX}")
        self.values_m, self.columns, self.row_counts, self.shapes = values_m, columns, row_counts, shapes.astype(np.int64)
        if any(array.dtype != np.uint16 for array in (columns, row_counts)) or values_m.dtype != np.float32:
            raise ValueError("columns and rows are counted in 16 bits, and values are of 32")
        self._row_ends = np.concatenate([[0], np.cumsum(self.shapes[:, 0])])
        if row_counts.shape != (self._row_ends[-1],):
            raise ValueError("the rows do not fit the shapes")
        counts = np.add.reduceat(row_counts, self._row_ends[:-1], dtype=np.int64) if len(shapes) else np.zeros(0, np.int64)
        self._value_ends = np.concatenate([[0], np.cumsum(counts)])
        if not values_m.shape == columns.shape == (self._value_ends[-1],):
            raise ValueError("the values do not fit the rows")
        for number, width in enumerate(shapes[:, 1].tolist()):
            if np.max(columns[self._span_of(number)], initial=0) >= width:
                raise ValueError("a value lies beside its image")

    @classmethod
    def pack(cls, depths: Iterable[SparseDepth]) -> PackedDepths:
        """Packs depths, which may come one by one."""
        return cls.join(cls(d.values_m, d.columns, d.row_counts, np.array([d.size_px], np.int64)) for d in depths)

    @classmethod
    def join(cls, parts: Iterable[PackedDepths]) -> PackedDepths:
        """The depths of all parts, one after another."""
        none = cls(np.zeros(0, np.float32), np.zeros(0, np.uint16), np.zeros(0, np.uint16), np.zeros((0, 2), np.int64))
        arrays = zip(*((part.values_m, part.columns, part.row_counts, part.shapes) for part in (none, *parts)), strict=True)
        return cls(*(np.concatenate(array) for array in arrays))

    def __len__(self) -> int:
        return len(self.shapes)

    @overload
    def __getitem__(self, index: int) -> SparseDepth: ...
    @overload
    def __getitem__(self, index: slice) -> list[SparseDepth]: ...
    def __getitem__(self, index: int | slice) -> SparseDepth | list[SparseDepth]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        height, width = self.shapes[number].tolist()
        row_counts = self.row_counts[self._row_ends[number] : self._row_ends[number + 1]]
        mine = self._span_of(number)
        return SparseDepth(self.values_m[mine], self.columns[mine], row_counts, (height, width))

    def _span_of(self, number: int) -> slice:
        """Where the values of one image stand."""
        return slice(self._value_ends[number], self._value_ends[number + 1])
