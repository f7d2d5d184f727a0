"""Parcels: several tensors in one stretch of memory, so that they go to the GPU in one copy."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

ALIGNMENT = 64


class Parcel:
    """Tensors by name, not yet filled, in host memory.

    Args:
        contents: shape and dtype of each.
        pin_memory: in page-locked memory, from which a GPU copies without waiting.
    """

    def __init__(self, contents: Mapping[str, tuple[tuple[int, ...], torch.dtype]], *, pin_memory: bool) -> None:
        self._contents = dict(contents)
        self._buffer = torch.empty(sum(map(_padded_bytes, self._contents.values())), dtype=torch.uint8, pin_memory=pin_memory)
        self.tensors = self._views(self._buffer)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], *, pin_memory: bool, **empty: tuple[tuple[int, ...], torch.dtype]) -> Parcel:
        """A parcel that holds a copy of ``tensors`` and has room for ``empty`` (shape and dtype)."""
        parcel = cls({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()} | empty, pin_memory=pin_memory)
        for name, tensor in tensors.items():
            parcel.tensors[name].copy_(tensor)
        return parcel

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """The tensors on a device, copied in one go without waiting for it; the same ones if it is this memory."""
        if device.type == "cpu":
            return self.tensors
        return self._views(self._buffer.to(device, non_blocking=True))

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        views, start = {}, 0
        for name, (shape, dtype) in self._contents.items():
            views[name] = buffer[start : start + prod(shape) * dtype.itemsize].view(dtype).view(shape)
            start += _padded_bytes((shape, dtype))
        return views


def _padded_bytes(content: tuple[tuple[int, ...], torch.dtype]) -> int:
    """The bytes of a tensor of that shape and dtype, rounded up to ``ALIGNMENT``."""
    shape, dtype = content
    return -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
