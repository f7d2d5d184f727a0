"""Tensors on a GPU that is not there: shapes, layouts and devices as CUDA gives them, no values.

What torch asks a device for is answered here: whether autocast may be on, what cuDNN does with layouts, which streams a backward pass has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import _scoped_library
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import GraphExecGroup

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# How many maps and weights a convolution is given: in inference mode, otherwise, and in the backward pass, whose first is the gradient.
CONVOLUTIONS = {aten.conv2d.default: 2, aten.convolution.default: 2, aten.convolution_backward.default: 3}


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within the block, all tensors that are made are without values, and may be made on ``CUDA``.

    Reading a value is an error, and so is an operator on tensors of two devices, but for those of no dimensions.
    """
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_, **__: True))
        stack.enter_context(patch("torch._C._select_conv_backend", lambda *_, **__: torch._C._ConvBackend.Cudnn))
        stack.enter_context(patch("torch.Tensor.backward", backward))
        # It changes its arguments alone, and torch has it for no tensors without values.
        library = stack.enter_context(_scoped_library("aten", "IMPL"))
        library.impl("_fused_adam_.tensor_lr", lambda *_, **__: None, "Meta")
        yield


def on_gpu(tensor: Tensor) -> Tensor:
    """A tensor on ``CUDA`` of the same shape, layout and dtype."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def move_to_gpu(module: nn.Module) -> None:
    """Put a module's weights on ``CUDA``, in the layout that they have."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(on_gpu(weight), weight.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, on_gpu(buffer))


class OnlyOnTheGpu(TorchDispatchMode):
    """Within the block, an operator that takes or makes a tensor elsewhere is an error: even one of no dimensions is a copy to the GPU.

    Attributes:
        convolutions: how many ran, forward and backward.
        astray: shape and strides of what convolutions were given in another layout than channels_last, which cuDNN copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0
        self.astray: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """One operator."""
        outputs = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, outputs)) if isinstance(each, Tensor)]
        elsewhere = {str(each.device) for each in tensors if not each.is_cuda and each.numel()}
        assert not elsewhere, f"{func} has a tensor on {', '.join(elsewhere)}"
        if func in CONVOLUTIONS:
            self.convolutions += 1
            given = args[: CONVOLUTIONS[func]]
            self.astray += [(tuple(x.shape), x.stride()) for x in given if not x.is_contiguous(memory_format=torch.channels_last)]
        return outputs


def backward(loss: Tensor) -> None:
    """``loss.backward()``: the nodes of its graph called one after the other, as torch's engine does it on streams of the device."""
    root = loss.grad_fn
    assert root is not None
    given: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    given[root][0] = torch.ones_like(loss)
    # One group, so that what is recomputed is recomputed once.
    with torch.no_grad(), GraphExecGroup():
        for node in _from_root(root):
            upstream = [given[node].get(i) for i in range(len(node._input_metadata))]
            del given[node]
            if hasattr(node, "variable"):
                before = node.variable.grad
                node.variable.grad = upstream[0] if before is None else before.add_(upstream[0])
                continue
            for (receiver, position), gradient in _results(node, upstream):
                if gradient is not None:
                    # What was broadcast is summed.
                    gradient = gradient.sum_to_size(receiver._input_metadata[position].shape)
                    before = given[receiver].get(position)
                    given[receiver][position] = gradient if before is None else before + gradient


def _results(node: Any, upstream: list[Tensor | None]) -> Iterator[tuple[tuple[Any, int], Tensor | None]]:
    """What a node makes of the gradients of its outputs, with the input of another node that each result goes to."""
    edges = [edge for edge in node.next_functions if edge[0] is not None]
    if all(each is None for each in upstream):
        results: list[Tensor | None] = [None] * len(edges)
    elif hasattr(node, "apply"):  # written in Python: one result per argument, be it a tensor or not
        results = [result for result, wanted in zip(_tuple(node.apply(*upstream)), node.needs_input_grad, strict=True) if wanted]
    else:
        results = [
            result for result, (receiver, _) in zip(_tuple(node(*upstream)), node.next_functions, strict=True) if receiver is not None
        ]
    return zip(edges, results, strict=True)


def _tuple(made: Any) -> tuple[Tensor | None, ...]:
    return made if isinstance(made, tuple) else (made,)


def _from_root(root: Any) -> list[Any]:
    """All nodes, each before those that its results go to."""
    seen, order, path = {root}, [], [(root, iter(root.next_functions))]
    while path:
        node, edges = path[-1]
        receiver = next((each for each, _ in edges if each is not None and each not in seen), None)
        if receiver is None:
            order.append(node)
            path.pop()
        else:
            seen.add(receiver)
            path.append((receiver, iter(receiver.next_functions)))
    return order[::-1]
