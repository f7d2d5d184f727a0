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

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.decode import decode
from dataload.frame_store import DeviceFrames, FrameStore
from dataload.machine import usable_workers
from dataload.parcel import Parcel
from dataload.plan import FileFrames, Plan, batch_of, loader_workers, read_all
from dataload.torch_graph import Frames


class Input(NamedTuple):
    """A plan, what of it is on the device already (geometry, by name), and for each frame of a sample a list over the samples."""

    plan: Plan
    there: dict[str, torch.Tensor]
    frames: list[Any]


class DaliFrames:
    """DALI; on a GPU the images are made and stay there.

    Args:
        source: where the frames come from: their files, a store, or a store in the GPU's memory.
        device: where the batches go.
    """

    def __init__(self, config: DataConfig, source: FileFrames | FrameStore | DeviceFrames, *, training: bool, device: torch.device) -> None:
        self.config, self.source, self.training, self.device = config, source, training, device
        self.device_id = dali_device(device)
        self.workers, self.ahead = loader_workers(config)
        self.pipeline: Any = None
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.inputs: Iterator[Input] = iter(())
        self.fed: deque[Input] = deque()

    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""
        self._restart()
        self.inputs = inputs = self._inputs_of(plans)
        while self.inputs is inputs and (outputs := self._next()) is not None:
            yield self._batch(self.fed.popleft().there, outputs)

    def close(self) -> None:
        """Frees the pipeline and ends the threads."""
        self.pipeline = None
        self.workers.close()

    def _restart(self) -> None:
        """Makes the pipeline ready for other plans, throwing away what an epoch left early has prefetched."""
        self.inputs = iter(())
        if self.pipeline is None:
            from dataload.graph import build_pipeline

            threads = max(usable_workers(self.config.num_workers), 1)
            stored = not isinstance(self.source, FileFrames)
            self.pipeline = build_pipeline(
                self._feed, self.config, training=self.training, device_id=self.device_id, num_threads=threads, stored=stored
            )
        while self._next() is not None:
            pass
        self.fed.clear()
        self.pipeline.reset()

    def _inputs_of(self, plans: Iterator[Plan]) -> Iterator[Input]:
        """Each plan with what it needs of its frames, those of a store read ahead by the worker threads."""
        source, pin_memory = self.source, self.device.type == "cuda"
        if isinstance(source, FileFrames):
            for plan in plans:
                paths = [[path_bytes(source.table.path(row)) for row in frame] for frame in plan.rows.T.tolist()]
                yield Input(plan, self._on_device(Parcel.of(plan.geometry, pin_memory=pin_memory)), paths)
        elif isinstance(source, DeviceFrames):
            for plan in plans:
                rows = torch.from_numpy(np.ascontiguousarray(plan.rows.T))
                there = self._on_device(Parcel.of(plan.geometry | {"rows": rows}, pin_memory=pin_memory))
                yield Input(plan, there, list(source.gather(there["rows"])))
        else:
            yield from self._stored(plans, source)

    def _stored(self, plans: Iterator[Plan], source: FrameStore) -> Iterator[Input]:
        shape = (self.config.height_px, self.config.width_px, 3)
        pin_memory = self.device.type == "cuda"
        jobs = (
            (plan, Parcel.of(plan.geometry, pin_memory=pin_memory, frames=((*plan.rows.T.shape, *shape), torch.uint8))) for plan in plans
        )

        def parts(job: tuple[Plan, Parcel]) -> Iterable[Callable[[], object]]:
            plan, frames = job[0], job[1].tensors["frames"].numpy()
            return (partial(read_all, source, plan.rows[sample], frames[:, sample]) for sample in range(len(plan.indices)))

        for plan, parcel in self.workers.run(jobs, parts, ahead=self.ahead):
            there = self._on_device(parcel)
            yield Input(plan, there, list(there["frames"]) if self.stream else [list(frame) for frame in there["frames"].numpy()])

    def _on_device(self, parcel: Parcel) -> dict[str, torch.Tensor]:
        """The tensors of a parcel, on a GPU copied beside what it is doing; what the caller's stream does next comes after."""
        if self.stream is None:
            return parcel.tensors
        with torch.cuda.stream(self.stream):
            there = parcel.to(self.device)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_stream(self.stream)
        for tensor in there.values():
            tensor.record_stream(stream)
        return there

    def _feed(self) -> tuple[Any, ...]:
        """The next plan as inputs of the graph; ``StopIteration`` at the end of the epoch."""
        fed = next(self.inputs)
        # DALI copies the frames; only what it does not see is kept.
        self.fed.append(fed._replace(frames=[]))
        if not self.training:
            return (*fed.frames,)
        draws = zip(*((np.int32(d.flip), np.bool_(d.jitter), d.color, d.color_mean) for d in fed.plan.draws), strict=True)
        return (*fed.frames, *(list(part) for part in draws))

    def _next(self) -> tuple[Any, ...] | None:
        """The outputs of the next plan, None at the end.

        Raises:
            InputError: one of its files is missing or damaged.
        """
        try:
            return self.pipeline.run(torch.cuda.current_stream(self.device_id) if self.device_id is not None else None)
        except StopIteration:
            return None
        except Exception as error:
            # A pipeline that has failed cannot go on. DALI does not say which file it was; the twin's decoder does.
            self.pipeline = None
            if isinstance(error, RuntimeError):
                name_the_damaged(path for fed in self.fed for path in map(self.source.table.path, fed.plan.rows.flatten().tolist()))
            raise

    def _batch(self, there: dict[str, torch.Tensor], outputs: Sequence[Any]) -> Batch:
        """The outputs as a batch; no copy is made of them, and the memory lives as long as the tensors do."""
        tensors = [torch.from_dlpack(output.as_tensor()) for output in outputs]
        config, temporal = self.config, len(self.config.temporal_ids)
        target, rest = tuple(tensors[: config.num_levels]), tensors[config.num_levels :]
        if config.num_sources:
            sources, rest = tuple(rest[: config.source_levels]), rest[config.source_levels :]
        else:
            sources = tuple(level[:, None][:, :0] for level in target[: config.source_levels])
        if not self.training:
            frames = Frames(target, sources, target[0], sources[0][:, :temporal])
        else:
            frames = Frames(target, sources, rest[0], rest[1] if temporal else sources[0][:, :0])
        return batch_of(frames, there)


def dali_device(device: torch.device) -> int | None:
    """DALI's number of a GPU; None for the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def name_the_damaged(paths: Iterable[Path]) -> None:
    """``InputError`` for the first file that is missing or damaged."""
    for path in dict.fromkeys(paths):
        decode(path)


def path_bytes(path: Path) -> np.ndarray:
    """A path as the graph takes it."""
    return np.frombuffer(os.fsencode(path), np.uint8)
