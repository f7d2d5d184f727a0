"""Counts the bytes that tensors hold at once, on tensors with and without data."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the memory of all tensors that operators inside make, and of those that were there before, until each is freed.

    Views share their memory, which counts once. What an operator needs only while it runs, its workspace, is not seen.

    Args:
        present: tensors that are there already.

    Attributes:
        now: bytes that are held now.
        peak: the most bytes that were held at once.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Each held memory by its own number: the address of a freed one may soon be another's.
        self._held: dict[int, int] = {}
        self._at_peak: dict[int, int] = {}
        self._numbers = torch.utils.weak.WeakIdKeyDictionary()
        self._next = 0
        for tensor in present:
            self._see(tensor)

    def at_peak(self, tensors: Iterable[Tensor]) -> int:
        """How many bytes of these tensors were among the peak; each memory counts once."""
        numbers = {self._numbers.get(tensor.untyped_storage()) for tensor in tensors}
        return sum(self._at_peak.get(number, 0) for number in numbers)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """One operator: run, and what it has made counted."""
        outputs = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return outputs

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._numbers:
            return
        number, self._next = self._next, self._next + 1
        self._numbers[storage] = number
        self._held[number] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._free, number).atexit = False
        if self.now > self.peak:
            self.peak, self._at_peak = self.now, dict(self._held)

    def _free(self, number: int) -> None:
        self.now -= self._held.pop(number)
