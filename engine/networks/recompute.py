"""Networks that keep less for the backward pass and recompute it there instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


class Recomputing(nn.Module):
    """A network whose forward pass is made of sections, each of which may be run again in the backward pass.

    Attributes:
        recompute: in training, keep of each section what goes in and what comes out, and nothing of what is made in between.
    """

    recompute = False

    def section(self, function: Callable[..., T], *inputs: Any) -> T:
        """``function(*inputs)``: a part of this network's forward pass, without random numbers; the same numbers either way."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return function(*inputs)
        # When compiled, the statistics are an output of the forward pass alone, and contexts cannot be traced.
        contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": self._contexts}
        result: T = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **contexts)
        return result

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Around the first run of a section and around the second."""
        return nullcontext(), self._keep_statistics()

    @contextmanager
    def _keep_statistics(self) -> Iterator[None]:
        """Within the block, normalise by the batch's statistics as in training, but keep the running ones: they are updated already.

        They are updated by nothing rather than not at all, as the second run has to keep the same tensors for the backward pass as
        the first. Batches are counted outside of sections.
        """
        kept = [(module, module.momentum) for module in self.modules() if isinstance(module, _BatchNorm)]
        for module, _ in kept:
            module.momentum = 0.0
        try:
            yield
        finally:
            for module, momentum in kept:
                module.momentum = momentum


def recompute_activations(networks: nn.Module) -> None:
    """Switch recomputation on in every network that has it."""
    for module in networks.modules():
        if isinstance(module, Recomputing):
            module.recompute = True


def recomputes(networks: nn.Module) -> bool:
    """Whether a network recomputes anything in the backward pass."""
    return any(isinstance(module, Recomputing) and module.recompute for module in networks.modules())
