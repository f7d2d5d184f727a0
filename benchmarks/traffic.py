"""Counts the operators of a computation and the bytes they read and write, on tensors that hold no data.

An operator's bytes are those of its inputs and outputs, each once; what it changes in place is read and written, what it overwrites only
written. Views and allocations are free. BatchNorm reads its input twice forward, for statistics and to normalise, and input and gradient
twice backward. A kernel of our own declares its bytes in ``engine.loss.photometric_triton.TRAFFIC``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FREE = {"aten::" + name for name in ("detach", "alias", "_unsafe_view", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty")}
# What these change they do not read.
OVERWRITING = {"aten::" + name for name in ("copy_", "fill_", "zero_")}
# The arguments that are read twice.
READ_TWICE = {"aten::native_batch_norm": (0,), "aten::native_batch_norm_backward": (0, 1)}


class Tally(NamedTuple):
    """Operators, and the bytes they read and write."""

    operators: int
    bytes: int

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        return Tally(self.operators + other.operators, self.bytes + other.bytes)


class Traffic(TorchDispatchMode):
    """Counts what runs inside, by section: the one that was entered last."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies: dict[str, Tally] = defaultdict(lambda: Tally(0, 0))
        self._section = ""

    def enter(self, section: str) -> None:
        """What follows counts for ``section``."""
        self._section = section

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """One operator: run, and counted."""
        outputs = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in FREE:
            self.tallies[self._section] += Tally(1, bytes_moved(func._schema.name, args, kwargs or {}, outputs))
        return outputs


def bytes_moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> int:
    """What the operator ``name`` reads and writes.

    Raises:
        KeyError: a kernel of our own declares nothing.
    """
    if not name.startswith(("aten::", "prims::")):
        from engine.loss.photometric_triton import TRAFFIC

        return TRAFFIC[name](args, outputs)
    again = [args[i] for i in READ_TWICE.get(name, ())]
    read = args[1:] if name in OVERWRITING else args
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves((read, kwargs, outputs, again)) if isinstance(leaf, Tensor))


def fused_adam(parameters: Iterable[torch.nn.Parameter]) -> Tally:
    """Adam as one kernel: it reads parameters, gradients and both moments, and writes all but the gradients."""
    return Tally(1, sum(7 * p.numel() * p.element_size() for p in parameters if p.grad is not None))
