"""One update: from a batch to new weights, in parts where memory is short, replayed as one CUDA graph on a GPU."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataload.batch import Batch
from dataload.system.console import console
from engine.networks.recompute import recomputes
from engine.training.build import Engine
from engine.training.compiling import first_call, is_compiled
from engine.training.memory import is_out_of_memory
from engine.training.step import LossTerms, TrainStep
from splits.faults import first_line

# Real updates before the capture: in them the step is compiled, cuDNN chooses its kernels, scaler and Adam make their state.
WARM_UP_CALLS = 3
# Calls that try to capture, before training continues without: another thread that waits for the whole GPU can break one.
CAPTURE_TRIES = 3


class Updater:
    """Makes one optimisation step per call.

    Args:
        engine: what is trained; its step in training mode.
        parts: equal parts in which a batch is processed, their gradients added up, before the one update; divides the batch.
        capture: on a GPU, capture the whole update in a CUDA graph after the first three calls and replay it from then on. Batches then
            have one shape, and the learning rate changes in place only, as ``set_learning_rate`` does it.

    Attributes:
        prepared: whether the last call compiled or captured, so that its time says nothing about the pace.
    """

    def __init__(self, engine: Engine, *, parts: int = 1, capture: bool = False) -> None:
        self.engine, self.parts = engine, parts
        self._step = engine.step if engine.parallel is None else engine.parallel
        self.capture = capture and engine.device.type == "cuda"
        self.prepared = False
        self._calls = 0
        self._tries_left = CAPTURE_TRIES
        # What a captured step needs: the stream it is captured on, the memory it reads, itself, and the memory that holds its losses.
        self._stream = torch.cuda.Stream(engine.device) if self.capture else None
        self._static: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._terms: LossTerms | None = None

    def __str__(self) -> str:
        """How the update runs, in words."""
        words = ["compiled" if is_compiled(self.engine.step) else "not compiled"]
        words += ["captured in a CUDA graph"] if self.capture else []
        words += [f"{self.parts} parts per batch"] if self.parts > 1 else []
        words += ["activations recomputed"] if recomputes(self.engine.networks) else []
        return ", ".join(words)

    @property
    def compiles_next(self) -> bool:
        """Whether the next call compiles the step first."""
        return self._calls == 0 and is_compiled(self.engine.step)

    def __call__(self, batch: Batch) -> LossTerms:
        """Update the weights on ``batch``; its losses, without gradient, hold until the next call."""
        self.prepared = self.compiles_next
        self._calls += 1
        if not self.capture:
            return self._update(batch)
        static = self._put_in_place(batch)
        if self._calls <= WARM_UP_CALLS:
            return self._update_beside(static)
        if self._graph is None:
            self.prepared = True
            if not self._capture_update(static):
                return self._update_beside(static) if self.capture else self._update(batch)
        assert self._graph is not None
        assert self._terms is not None
        self._graph.replay()
        return self._terms

    def _update(self, batch: Batch) -> LossTerms:
        optimizer, scaler = self.engine.optimizer, self.engine.scaler
        if self._calls == 1:
            alone = self.engine.parallel is None
            terms = first_call(self.engine.step, lambda: self._gradients(batch), self.engine.device, alone=alone)
        else:
            terms = self._gradients(batch)
        scaler.step(optimizer)
        scaler.update()
        return terms

    def _gradients(self, batch: Batch) -> LossTerms:
        """Fill the parameters' gradients with those of the mean loss, which is returned."""
        self.engine.optimizer.zero_grad(set_to_none=True)
        parallel, losses, per_scale = self.engine.parallel, [], []
        for number, part in enumerate(batch.parts(self.parts), 1):
            # Gradients are exchanged once per update, while those of the last part come.
            with nullcontext() if number == self.parts or parallel is None else parallel.no_sync():
                terms: LossTerms = self._step(part)
                self.engine.scaler.scale(terms.loss / self.parts).backward()
            losses.append(terms.loss.detach())
            per_scale.append(terms.per_scale)
        return LossTerms(_mean(losses), tuple(_mean(of_parts) for of_parts in zip(*per_scale, strict=True)))

    def _put_in_place(self, batch: Batch) -> Batch:
        """``batch`` where the graph reads it, in the memory and layout of the first one."""
        if self._static is None:
            self._static = batch.with_tensors([tensor.clone() for tensor in batch.tensors()])
            return self._static
        for place, tensor in zip(self._static.tensors(), batch.tensors(), strict=True):
            assert place.shape == tensor.shape, (
                f"a captured step takes batches of one shape, {tuple(place.shape)}, not {tuple(tensor.shape)}"
            )
            place.copy_(tensor, non_blocking=True)
        return self._static

    def _update_beside(self, static: Batch) -> LossTerms:
        """Update on the stream that will be captured: what libraries set up for a stream is then there."""
        assert self._stream is not None
        current = torch.cuda.current_stream(self.engine.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._update(static)
        current.wait_stream(self._stream)
        return terms

    def _capture_update(self, static: Batch) -> bool:
        """Capture the update without running it; False where that fails, with weights and optimizer as they were. The last failure is
        reported, and no further call captures.

        Raises:
            RuntimeError: there is not enough memory.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream(self.engine.device)
        # Gradients are allocated again, in the graph's own memory.
        self.engine.optimizer.zero_grad(set_to_none=True)
        try:
            # The loader's threads may continue: their CUDA calls do not concern this stream.
            with torch.cuda.graph(graph, pool, stream=self._stream, capture_error_mode="thread_local"):
                self._terms = self._update(static)
        except RuntimeError as error:
            # torch 2.11 stays in the stream whose capture failed, where nothing waits for the loader.
            torch.cuda.set_stream(current)
            self._leave_capture(pool)
            # The end of a capture that failed raises an error of its own, which hides the first.
            if is_out_of_memory(error):
                raise
            self._tries_left -= 1
            if not self._tries_left:
                self.capture, self._static = False, None
                console.warning(
                    "The step cannot be captured in a CUDA graph (%s); training continues without one, slower; --no_cuda_graph skips this",
                    first_line(error.__context__ or error),
                )
            return False
        self._graph = graph
        return True

    def _leave_capture(self, pool: Any) -> None:
        """Back to updates without a graph."""
        self.engine.optimizer.zero_grad(set_to_none=True)
        # Versions of torch differ in what they leave of a capture that failed: an allocator and a generator that act as if it still ran.
        device = torch.cuda.current_device() if self.engine.device.index is None else self.engine.device.index
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(device, pool)
        generator = torch.cuda.default_generators[device]
        generator.graphsafe_set_state(generator.clone_state())
        scaler = self.engine.scaler
        if scaler.is_enabled():
            # Reset the scaler's per-step state by setting its own scale again.
            scaler.update(new_scale=scaler.get_scale())


def seed_step(step: TrainStep, seed: int, number: int) -> None:
    """Seed the step for one update, so that its noise depends on the run's seed, the update's number and the sample alone.

    Works under a replayed graph too: ``noise_seed`` lies on the device.
    """
    step.noise_seed.fill_(int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]) >> 1)


def _mean(values: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()
