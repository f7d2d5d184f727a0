"""Batches by a DALI pipeline, fed with file paths, with stored frames, or with frames in the GPU's memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
        self.plans: Iterator[Plan] = iter(())
        self.inputs: Iterator[tuple[Plan, list[Any]]] = iter(())
        self.fed: deque[Plan] = deque()

    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""
        self._restart()
        self.inputs = inputs = self._frames_of(plans)
        while self.inputs is inputs and (outputs := self._next()) is not None:
            yield self._batch(self.fed.popleft(), outputs)

    def close(self) -> None:
        """Frees the pipeline and ends the threads."""
        self.pipeline = None
        self.workers.close()

    def _restart(self) -> None:
        """Makes the pipeline ready for other plans, throwing away what an epoch left early has prefetched."""
        self.inputs = iter(())
        if self.pipeline is None:
            from dataload.graph import DEVICE, FILES, HOST, build_pipeline

            threads = max(usable_workers(self.config.num_workers), 1)
            kind = {FileFrames: FILES, FrameStore: HOST, DeviceFrames: DEVICE}[type(self.source)]
            self.pipeline = build_pipeline(
                self._feed, self.config, training=self.training, device_id=self.device_id, num_threads=threads, frames=kind
            )
        while self._next() is not None:
            pass
        self.fed.clear()
        self.pipeline.reset()

    def _frames_of(self, plans: Iterator[Plan]) -> Iterator[tuple[Plan, list[Any]]]:
        """Each plan with its frames as inputs of the graph: for each frame of a sample, a list over the samples."""
        source = self.source
        if isinstance(source, FileFrames):
            return ((plan, [[path_bytes(source.table.path(row)) for row in frame] for frame in plan.rows.T.tolist()]) for plan in plans)
        if isinstance(source, DeviceFrames):
            return ((plan, list(source.gather(self._to_device({"rows": torch.from_numpy(plan.rows.T)})["rows"]))) for plan in plans)
        return self._stored_frames(plans, source)

    def _stored_frames(self, plans: Iterator[Plan], source: FrameStore) -> Iterator[tuple[Plan, list[Any]]]:
        """The same from a store, read ahead by the worker threads."""
        shape = (self.config.height_px, self.config.width_px, 3)
        on_gpu = self.device.type == "cuda"
        jobs = ((plan, torch.empty((*plan.rows.T.shape, *shape), dtype=torch.uint8, pin_memory=on_gpu).numpy()) for plan in plans)

        def parts(job: tuple[Plan, np.ndarray]) -> Iterable[Callable[[], object]]:
            plan, frames = job
            return (partial(read_all, source, plan.rows[sample], frames[:, sample]) for sample in range(len(plan.indices)))

        return ((plan, [list(frame) for frame in frames]) for plan, frames in self.workers.run(jobs, parts, ahead=self.ahead))

    def _feed(self) -> tuple[Any, ...]:
        """The next plan as inputs of the graph; ``StopIteration`` at the end of the epoch."""
        plan, frames = next(self.inputs)
        self.fed.append(plan)
        if not self.training:
            return (*frames,)
        draws = zip(*((np.int32(d.flip), np.bool_(d.jitter), d.color, d.color_mean) for d in plan.draws), strict=True)
        return (*frames, *(list(part) for part in draws))

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
                name_the_damaged(path for plan in self.fed for path in map(self.source.table.path, plan.rows.flatten().tolist()))
            raise

    def _batch(self, plan: Plan, outputs: Sequence[Any]) -> Batch:
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
        return batch_of(frames, self._to_device(plan.geometry))

    def _to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return Parcel.of(tensors, pin_memory=self.device.type == "cuda").to(self.device)


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
