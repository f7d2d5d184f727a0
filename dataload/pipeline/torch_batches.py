"""Batches without DALI: on a CPU sample by sample on worker threads, for a GPU frames by worker threads and the rest on it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.pipeline.batch_maker import BatchMaker, FileFrames, Source, batch_of, read_all
from dataload.pipeline.device_graph import DeviceDraws, augment
from dataload.pipeline.plan import Plan
from dataload.pipeline.torch_graph import Images, empty_images, fill_sample
from dataload.store.reading import DeviceFrames, FrameStore


class TorchBatches(BatchMaker):
    """Batches by torch alone."""

    def __init__(self, config: DataConfig, source: Source, *, training: bool, device: torch.device) -> None:
        super().__init__(config, source, training=training, device=device)
        self._scratch = threading.local()

    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""
        if self.device.type == "cpu" and not isinstance(self.source, DeviceFrames):
            return self._on_workers(plans, self.source)
        return self._on_device(plans)

    def _on_workers(self, plans: Iterator[Plan], source: FileFrames | FrameStore) -> Iterator[Batch]:
        jobs = ((plan, empty_images(self.config, len(plan.indices), training=self.training)) for plan in plans)

        def parts(job: tuple[Plan, Images]) -> Iterable[Callable[[], object]]:
            plan, frames = job
            return (partial(self._fill, source, plan, sample, frames.sample(sample)) for sample in range(len(plan.indices)))

        for plan, frames in self.workers.run(jobs, parts, ahead=self.ahead):
            yield batch_of(frames, plan.geometry)

    def _fill(self, source: FileFrames | FrameStore, plan: Plan, sample: int, out: Images) -> None:
        recorded = self._thread_buffer()
        read_all(source, plan.rows[sample], recorded.numpy())
        fill_sample(list(recorded), plan.draws[sample], out, training=self.training)

    def _thread_buffer(self) -> Tensor:
        """One sample's frames as recorded, in memory that each thread uses again."""
        if not hasattr(self._scratch, "frames"):
            shape = (1 + self.config.num_sources, *self.config.size_px, 3)
            self._scratch.frames = torch.empty(shape, dtype=torch.uint8)
        frames: Tensor = self._scratch.frames
        return frames

    def _on_device(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """One batch ahead of the one being used, on a stream of its own: copying and augmenting overlap with training."""
        ready: deque[tuple[Batch, Any]] = deque()
        on_gpu = self.stream is not None
        for _, parcel in self.parcels(plans, with_draws=self.training):
            with torch.cuda.stream(self.stream) if self.stream else nullcontext():
                batch = self._augment(parcel.to(self.device))
                ready.append((batch, self.stream.record_event() if self.stream else None))
            if len(ready) > int(on_gpu):
                yield self._hand_over(*ready.popleft())
        while ready:
            yield self._hand_over(*ready.popleft())

    def _augment(self, there: dict[str, Tensor]) -> Batch:
        """The batch of what has come to the device."""
        frames = self.source.gather(there["rows"]) if isinstance(self.source, DeviceFrames) else there["frames"]
        draws = DeviceDraws(*(there[name] for name in DeviceDraws._fields)) if self.training else None
        return batch_of(augment(frames, draws, self.config), there)

    def _hand_over(self, batch: Batch, made: Any) -> Batch:
        """The batch for the caller's stream, which waits until it is made and keeps its memory until it has used it."""
        if made is None:
            return batch
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(made)
        for tensor in batch.tensors():
            tensor.record_stream(stream)
        return batch
