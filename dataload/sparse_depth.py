"""Measured depth of images as plain values: the measured pixels of one image, and of many in three flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

# How many bits of each byte are set.
BITS_SET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


class SparseDepth(NamedTuple):
    """Measured depth of one image.

    Attributes:
        values_m: (n,) float32 metres, above 0, in the order of ``pixels``.
        pixels: (n,) int64 flat indices, row * width + column, ascending.
        size_px: (height, width).
    """

    values_m: NDArray[np.float32]
    pixels: NDArray[np.int64]
    size_px: tuple[int, int]

    @classmethod
    def of(cls, depth_m: NDArray[np.float32]) -> SparseDepth:
        """The measured pixels of a map (H, W) float32 in metres; what is not above 0 counts as missing."""
        height, width = depth_m.shape
        flat = depth_m.ravel()
        pixels = np.flatnonzero(flat > 0)
        return cls(flat[pixels], pixels, (height, width))

    def dense(self) -> NDArray[np.float32]:
        """The map (H, W) float32 in metres, 0 = missing."""
        height, width = self.size_px
        depth = np.zeros(height * width, dtype=np.float32)
        depth[self.pixels] = self.values_m
        return depth.reshape(height, width)


class PackedDepths(Sequence[SparseDepth]):
    """Depths of N images in three arrays; an item is unpacked when it is asked for, by any number of threads.

    Args:
        values_m: (n,) float32 metres of all images, one after another, row by row.
        masks: (bytes,) uint8, a bit for every pixel, 1 = measured; each image's bits packed by themselves.
        shapes: (N, 2) integers, height and width in pixels.

    Raises:
        ValueError: the arrays do not belong together.
    """

    def __init__(self, values_m: NDArray[np.float32], masks: NDArray[np.uint8], shapes: NDArray[np.int64]) -> None:
        if shapes.ndim != 2 or shapes.shape[1] != 2 or shapes.min(initial=1) < 1:
            raise ValueError(f"shapes of {shapes.shape} are no heights and widths")
        self.values_m, self.masks, self.shapes = values_m, masks, shapes
        self._byte_ends = np.cumsum((shapes.prod(axis=1, dtype=np.int64) + 7) // 8)
        if masks.shape != (self._byte_ends[-1] if len(shapes) else 0,):
            raise ValueError("the masks do not fit the shapes")
        counts = [BITS_SET[masks[_part(self._byte_ends, number)]].sum() for number in range(len(shapes))]
        self._value_ends = np.cumsum(counts, dtype=np.int64)
        if values_m.shape != (self._value_ends[-1] if len(shapes) else 0,):
            raise ValueError("the values do not fit the masks")

    @classmethod
    def pack(cls, depths: Iterable[SparseDepth]) -> PackedDepths:
        """Packs depths, which may come one by one."""
        values, masks, shapes = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.uint8)], []
        for depth in depths:
            measured = np.zeros(depth.size_px[0] * depth.size_px[1], dtype=bool)
            measured[depth.pixels] = True
            values.append(depth.values_m)
            masks.append(np.packbits(measured))
            shapes.append(depth.size_px)
        return cls(np.concatenate(values), np.concatenate(masks), np.array(shapes, dtype=np.int64).reshape(-1, 2))

    @classmethod
    def join(cls, parts: Iterable[PackedDepths]) -> PackedDepths:
        """The depths of all parts, one after another; there must be one."""
        values, masks, shapes = zip(*((part.values_m, part.masks, part.shapes) for part in parts), strict=True)
        return cls(np.concatenate(values), np.concatenate(masks), np.concatenate(shapes))

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
        mask = self.masks[_part(self._byte_ends, number)]
        pixels = np.flatnonzero(np.unpackbits(mask, count=height * width))
        return SparseDepth(self.values_m[_part(self._value_ends, number)], pixels, (height, width))


def _part(ends: NDArray[np.int64], number: int) -> slice:
    return slice(int(ends[number - 1]) if number else 0, int(ends[number]))
