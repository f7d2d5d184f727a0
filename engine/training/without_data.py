"""What lets an update run on tensors without data, on the path that a GPU takes: to count what it would hold and move."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class CudaAutocast(TorchFunctionMode):
    """What CUDA's autocast does to these networks, which torch offers for no tensors without data.

    Convolutions take inputs and weights in bf16, each weight that is not yet, once; all else follows its inputs.
    """

    def __init__(self) -> None:
        super().__init__()
        # As long as something needs them.
        self._weights: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """One function, a convolution with its tensors cast."""
        if func is Tensor.backward:
            # Within a function that it was asked about a mode is off, but what is computed again in a backward pass needs the casts.
            with patch.object(torch.nn.functional, "conv2d", lambda *inputs: torch.conv2d(*map(self._cast, inputs))):
                return func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            args = tuple(map(self._cast, args))
        return func(*args, **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype is not torch.float32:
            return value
        if not isinstance(value, torch.nn.Parameter):
            return value.bfloat16()
        cast = self._weights.get(id(value))
        if cast is None:
            cast = self._weights[id(value)] = value.bfloat16()
        return cast


@contextmanager
def on_meta() -> Iterator[None]:
    """Lets an update run on tensors without data, which torch.autocast does not know, not even to be switched off, nor the fused Adam."""
    with (
        patch.object(torch, "autocast", lambda *_, **__: nullcontext()),
        patch.object(sys.modules[torch.optim.Optimizer.__module__], "_get_fused_kernels_supported_devices", lambda: ["meta"]),
    ):
        yield
