"""Counts the bytes that tensors hold at once, on tensors with and without data, and so the memory of an update on a GPU that is not there.

Not counted: CUDA's context, the workspaces of cuDNN and of kernels, what the allocator rounds up and keeps in pieces too small, and what
compiling and a CUDA graph change.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dataload.batch import Batch
from dataload.config import DataConfig
from engine.training.build import Engine, build_engine
from engine.training.config import TrainConfig
from engine.training.update import Updater
from engine.training.without_data import CudaAutocast, on_meta

META = torch.device("meta")
PEAK = "peak"


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


def update_bytes_on_gpu(config: TrainConfig, *, exchanges: bool = False) -> dict[str, int]:
    """Bytes at the peak of an uncompiled update on a GPU, as ``count_update``; half precision is bf16 unless it is off."""
    config = replace(untrained(config), amp="off" if config.amp == "off" else "bf16")
    with on_meta():
        with META:
            engine = build_engine(config, META, metric_factor=1.0)
        with CudaAutocast() if config.amp == "bf16" else nullcontext():
            return count_update(engine, blank_batch(config.data, META), parts=config.grad_accumulation, exchanges=exchanges)


def count_update(engine: Engine, batch: Batch, *, parts: int = 1, exchanges: bool = False) -> dict[str, int]:
    """Bytes at the peak of the engine's second update, on any device: the first makes Adam's state.

    Args:
        exchanges: as where several processes exchange gradients: these lie in buckets that are kept from update to update.

    Returns:
        Those of parameters (with buffers), adam, gradients, batch and activations, and their sum, the peak.
    """
    updater = Updater(engine, parts=parts)
    updater(batch)
    gradients = [p.grad for p in engine.step.parameters() if p.grad is not None]
    adam = [leaf for leaf in tree_leaves(list(engine.optimizer.state.values())) if isinstance(leaf, Tensor)]
    kept = [*engine.step.parameters(), *engine.step.buffers()]
    if exchanges:
        _free_complete_gradients(engine.step, parts)
    else:
        gradients.clear()
    engine.optimizer.zero_grad(set_to_none=True)
    with LiveBytes([*kept, *adam, *gradients, *batch.tensors()]) as live:
        updater(batch)
    gradients = gradients or [p.grad for p in kept if p.grad is not None]
    named = {"parameters": kept, "adam": adam, "gradients": gradients, "batch": batch.tensors()}
    held = {kind: live.at_peak(tensors) for kind, tensors in named.items()}
    return held | {"activations": live.peak - sum(held.values()), PEAK: live.peak}


def _free_complete_gradients(step: nn.Module, parts: int) -> None:
    """From now on gradients are freed as by DistributedDataParallel: each as soon as it is complete, and copied into its bucket."""
    added: Counter[int] = Counter()

    def free(parameter: Tensor) -> None:
        added[id(parameter)] += 1
        if added[id(parameter)] % parts == 0:
            parameter.grad = None

    for parameter in step.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(free)


def untrained(config: TrainConfig) -> TrainConfig:
    """The config of a run from random weights, uncompiled: with the same tensors, and nothing to look for or to wait for."""
    model = replace(config.model, weights_init="scratch", initial_depth_m=None)
    return replace(config, model=model, load_weights_folder=None, compile=False)


def blank_batch(data: DataConfig, device: torch.device) -> Batch:
    """A batch of black images by cameras that stand at one place, of the shapes and layouts that a loader makes."""
    samples = data.batch_size

    def images(*count: int, level: int = 0) -> Tensor:
        height_px, width_px = data.height_px >> level, data.width_px >> level
        return torch.zeros(samples, *count, height_px, width_px, 3, dtype=torch.uint8, device=device).movedim(-1, -3)

    return Batch(
        target=tuple(images(level=level) for level in range(data.num_levels)),
        sources=tuple(images(data.num_sources, level=level) for level in range(data.source_levels)),
        target_input=images(),
        source_inputs=images(len(data.temporal_ids)),
        K=torch.eye(3, device=device).repeat(samples, 1, 1),
        T_stereo=torch.eye(4, device=device).repeat(samples, 1, 1),
        indices=torch.arange(samples, device=device),
    )
