"""Tensors on a GPU that is not there: shapes, layouts and devices as CUDA gives them, no values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# The 4-D tensors among the inputs of a convolution: its input and weight; of its backward, the gradient and the same.
CONVOLUTIONS = {aten.convolution.default: 2, aten.convolution_backward.default: 3}


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within the block, tensors hold no values and may be made on ``CUDA``, whose autocast is the real one; without a GPU too.

    A tensor on the CPU beside one on the GPU is an error in every operator, and so is reading a value.
    """
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        # Both ask for a device, and are off without one.
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_, **__: True))
        # The layout of convolutions is cuDNN's.
        stack.enter_context(patch("torch._C._select_conv_backend", lambda *_, **__: torch._C._ConvBackend.Cudnn))
        yield


def on_gpu(tensor: Tensor) -> Tensor:
    """A tensor on ``CUDA`` of the same shape, layout and dtype."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def move_to_gpu(module: nn.Module) -> None:
    """Put a module's weights on ``CUDA``, in the layout that they have."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(on_gpu(parameter), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, on_gpu(buffer))


class OnlyOnTheGpu(TorchDispatchMode):
    """Within the block, an operator that takes or makes a tensor on the CPU is an error: one of no dimensions would be sent to the GPU.

    Attributes:
        convolutions: how many ran, forward and backward.
        not_channels_last: shapes and strides of what convolutions were given in another layout than channels_last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0
        self.not_channels_last: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """One operator."""
        outputs = func(*args, **(kwargs or {}))
        beside = [leaf for leaf in tree_leaves((args, kwargs, outputs)) if isinstance(leaf, Tensor) and leaf.device.type != "cuda"]
        assert not beside, f"{func} has tensors on {beside[0].device}"
        if func in CONVOLUTIONS:
            self.convolutions += 1
            for given in args[: CONVOLUTIONS[func]]:
                if not given.is_contiguous(memory_format=torch.channels_last):
                    self.not_channels_last.append((tuple(given.shape), given.stride()))
        return outputs


def gradients_of(loss: Tensor) -> dict[int, Tensor]:
    """The gradients of a scalar, by the id of the leaf that each belongs to: what ``backward`` computes, and nothing accumulated.

    torch's own engine asks for the streams of the device. This one calls the same nodes, one after the other.
    """
    root = loss.grad_fn
    assert root is not None
    order = _from_root(root)
    given: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    given[root][0] = torch.ones_like(loss)
    found = {}
    with torch.no_grad():
        for node in order:
            gradients = given.pop(node, {})
            if not gradients:
                continue
            if hasattr(node, "variable"):
                found[id(node.variable)] = gradients[0]
                continue
            upstream = [gradients.get(i) for i in range(len(node._input_metadata))]
            edges = [edge for edge in node.next_functions if edge[0] is not None]
            for (receiver, position), gradient in zip(edges, _apply(node, upstream), strict=True):
                if gradient is not None:
                    # As the engine does it: what was broadcast is summed.
                    gradient = gradient.sum_to_size(receiver._input_metadata[position].shape)
                    before = given[receiver].get(position)
                    given[receiver][position] = gradient if before is None else before + gradient
    return found


def _apply(node: Any, upstream: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients of those inputs of a node that have any."""
    if hasattr(node, "apply"):  # a function of Python: one output per argument, be it a tensor or not
        made = node.apply(*upstream)
        return [each for each, wanted in zip(_tuple(made), node.needs_input_grad, strict=True) if wanted]
    return [each for each, (receiver, _) in zip(_tuple(node(*upstream)), node.next_functions, strict=True) if receiver is not None]


def _tuple(made: Any) -> tuple[Tensor | None, ...]:
    return made if isinstance(made, tuple) else (made,)


def _from_root(root: Any) -> list[Any]:
    """All nodes, each before those that its gradients go to."""
    seen, order, stack = {root}, [], [(root, iter(root.next_functions))]
    while stack:
        node, receivers = stack[-1]
        receiver = next((each for each, _ in receivers if each is not None and each not in seen), None)
        if receiver is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(receiver)
            stack.append((receiver, iter(receiver.next_functions)))
    return order[::-1]
