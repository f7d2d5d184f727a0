"""Batches by a DALI pipeline, fed with file paths, with stored frames, or with frames in the GPU's memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.frames.picture import REMEDY, encode_plain, is_plain, read_picture
from dataload.pipeline.batch_maker import BatchMaker, FileFrames, Source, batch_of
from dataload.pipeline.device_graph import pack_draws
from dataload.pipeline.parcel import Parcel
from dataload.pipeline.plan import GEOMETRY, Plan
from dataload.pipeline.torch_graph import Images
from dataload.store.reading import DeviceFrames
from dataload.system.machine import usable_workers
from splits.errors import InputError


class PendingPlan(NamedTuple):
    """A plan that the pipeline has been given.

    Attributes:
        there: what of its batch the pipeline makes no part of, the geometry, on the device, by name.
        copied: the event after which it is there; None on a CPU.
    """

    plan: Plan
    there: dict[str, torch.Tensor]
    copied: Any


class DaliBatches(BatchMaker):
    """Batches by DALI; on a GPU the images are made and stay there."""

    def __init__(self, config: DataConfig, source: Source, *, training: bool, device: torch.device) -> None:
        super().__init__(config, source, training=training, device=device)
        self.device_id = dali_device(device)
        self.pipeline: Any = None
        self.inputs: Iterator[tuple[PendingPlan, list[Any]]] = iter(())
        self.pending: deque[PendingPlan] = deque()

    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""
        self._restart()
        self.inputs = inputs = self._inputs_of(plans)
        while (outputs := self._next()) is not None:
            yield self._batch(self.pending.popleft(), outputs)
            assert self.inputs is inputs, "another epoch has been begun"

    def close(self) -> None:
        """Frees the pipeline and what it was to be given, and ends the threads."""
        self.pipeline, self.inputs = None, iter(())
        self.pending.clear()
        super().close()

    def _restart(self) -> None:
        """Makes the pipeline ready for other plans, throwing away what an epoch left early has prefetched."""
        self.inputs = iter(())
        if self.pipeline is None:
            from dataload.pipeline.dali_graph import build_pipeline

            threads = max(usable_workers(self.config.num_workers), 1)
            stored = not isinstance(self.source, FileFrames)
            self.pipeline = build_pipeline(
                self._feed, self.config, training=self.training, device_id=self.device_id, num_threads=threads, stored=stored
            )
        while self._next() is not None:
            pass
        self.pending.clear()
        self.pipeline.reset()

    def _inputs_of(self, plans: Iterator[Plan]) -> Iterator[tuple[PendingPlan, list[Any]]]:
        """Each plan as the pipeline takes it: for each frame of a sample a list over the samples, or on a GPU a tensor."""
        source = self.source
        if isinstance(source, FileFrames):
            for plan, files in self._files_of(plans, source):
                there = Parcel.of(plan.geometry, pin_memory=self.stream is not None).to(self.device)
                yield self._pending_plan(plan, there), [list(samples) for samples in zip(*files, strict=True)]
            return
        for plan, parcel in self.parcels(plans, with_draws=False):
            there = parcel.to(self.device)
            frames = source.gather(there["rows"]) if isinstance(source, DeviceFrames) else there["frames"]
            pending = self._pending_plan(plan, there)
            by_frame = frames.transpose(0, 1)
            yield pending, list(by_frame.contiguous()) if frames.is_cuda else [list(samples) for samples in by_frame.numpy()]

    def _files_of(self, plans: Iterator[Plan], source: FileFrames) -> Iterator[tuple[Plan, list[list[NDArray[np.uint8]]]]]:
        """Each plan with the files of its samples as the graph takes them, which the workers read ahead."""

        def begin(plan: Plan) -> tuple[Plan, list[list[NDArray[np.uint8]]]]:
            return plan, [[] for _ in plan.rows]

        def parts(job: tuple[Plan, list[list[NDArray[np.uint8]]]]) -> Iterable[Callable[[], object]]:
            return (partial(_fill, files, source, rows) for files, rows in zip(job[1], job[0].rows.tolist(), strict=True))

        return self.workers.run(map(begin, plans), parts, ahead=self.ahead)

    def _pending_plan(self, plan: Plan, there: dict[str, torch.Tensor]) -> PendingPlan:
        return PendingPlan(plan, {name: there[name] for name in GEOMETRY}, self.stream.record_event() if self.stream else None)

    def _feed(self) -> tuple[Any, ...]:
        """The next plan as inputs of the graph; ``StopIteration`` at the end of the epoch."""
        pending, frames = next(self.inputs)
        self.pending.append(pending)
        if not self.training:
            return (*frames,)
        draws = pack_draws(pending.plan.draws)
        draws = draws._replace(flip=draws.flip.int())
        return (*frames, *(part.numpy() for part in draws))

    def _next(self) -> tuple[Any, ...] | None:
        """The outputs of the next plan, None at the end.

        Raises:
            InputError: one of its files is missing or damaged.
        """
        try:
            if self.stream is None:
                return self.pipeline.run()
            # The pipeline's inputs are copied on their own stream, and DALI asks torch which one that is.
            caller = torch.cuda.current_stream(self.device)
            with torch.cuda.stream(self.stream):
                return self.pipeline.run(caller)
        except StopIteration:
            return None
        except Exception as error:
            # A failed pipeline cannot continue. DALI does not say which file it was.
            self.pipeline = None
            if isinstance(error, RuntimeError) and isinstance(self.source, FileFrames):
                rows = (row for pending in self.pending for row in pending.plan.rows.flatten().tolist())
                name_the_damaged(map(self.source.table.path, rows), self.config, self.device_id)
            raise

    def _batch(self, pending: PendingPlan, outputs: Sequence[Any]) -> Batch:
        """The outputs as a batch; no copy is made of them, and the memory lives as long as the tensors do."""
        tensors = [torch.utils.dlpack.from_dlpack(output.as_tensor()) for output in outputs]
        config, temporal = self.config, len(self.config.temporal_ids)
        target, rest = tuple(tensors[: config.num_levels]), tensors[config.num_levels :]
        if config.num_sources:
            sources, rest = tuple(rest[: config.source_levels]), rest[config.source_levels :]
        else:
            sources = tuple(level[:, None][:, :0] for level in target[: config.source_levels])
        if not self.training:
            frames = Images(target, sources, target[0], sources[0][:, :temporal])
        else:
            frames = Images(target, sources, rest[0], rest[1] if temporal else sources[0][:, :0])
        if self.stream is not None:
            caller = torch.cuda.current_stream(self.device)
            caller.wait_event(pending.copied)
            for tensor in pending.there.values():
                tensor.record_stream(caller)
        return batch_of(frames, pending.there)


def dali_device(device: torch.device) -> int | None:
    """DALI's number of a GPU; None for the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def name_the_damaged(paths: Iterable[Path], config: DataConfig, device_id: int | None) -> None:
    """``InputError`` for the first file that is missing or damaged, else for the first that DALI's decoder alone refuses."""
    files = list(dict.fromkeys(paths))
    for path in files:
        read_picture(path)
    for path in files:
        _decode_alone(path, config, device_id)


def _decode_alone(path: Path, config: DataConfig, device_id: int | None) -> None:
    from dataload.pipeline.dali_graph import build_decoder

    files = iter([[file_input(path)]])
    pipeline = build_decoder(lambda: next(files), config, device_id=device_id, num_threads=1, batch_size=1)
    try:
        pipeline.run()
    except RuntimeError as error:
        raise InputError(
            f"{path} is a damaged image (DALI's decoder refuses it, others do not); {REMEDY}, or give --loader torch"
        ) from error


def _fill(files: list[NDArray[np.uint8]], source: FileFrames, rows: Sequence[int]) -> None:
    files += [file_input(source.table.path(row)) for row in rows]


def file_input(path: Path) -> NDArray[np.uint8]:
    """A file as the graph takes it: its path, or where DALI's pixels would be others than ``read_picture``'s, a file of those.

    Raises:
        InputError: the file cannot be read, or such a one is damaged.
    """
    entry = os.fsencode(path) if is_plain(path) else b"\0" + encode_plain(read_picture(path))
    return np.frombuffer(entry, np.uint8)
