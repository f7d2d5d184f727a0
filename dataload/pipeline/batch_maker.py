"""Batches of plans: frames from their files, a store or the GPU's memory; on a CPU augmented sample by sample on worker threads, for a
GPU on it, batch by batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.frames.bad_frames import BadFrames, TooManyBadFrames
from dataload.pipeline.decoders import FileBatch
from dataload.pipeline.device_graph import DeviceDraws, augment, pack_draws
from dataload.pipeline.files import DaliFiles, TorchFiles
from dataload.pipeline.parcel import Parcel
from dataload.pipeline.plan import GEOMETRY, Plan
from dataload.pipeline.replacing import Replacing
from dataload.pipeline.torch_graph import Images, empty_images, fill_sample
from dataload.store.reading import DeviceFrames, FrameStore
from dataload.system.machine import usable_workers
from dataload.system.workers import Workers
from splits.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Batches made ahead of the one being used; more where batches are small, so that every worker has two samples to do.
BATCHES_AHEAD = 2
SAMPLES_PER_WORKER = 2

# Where frames come from: their files, by torch or by DALI, a store, or a store in the GPU's memory.
Source = TorchFiles | DaliFiles | FrameStore | DeviceFrames


class BatchMaker:
    """Makes the batches of plans.

    Args:
        source: where the frames come from.
        device: where the batches go.
        bad: frames that are skipped; None stops at the first.
    """

    def __init__(self, config: DataConfig, source: Source, *, training: bool, device: torch.device, bad: BadFrames | None = None) -> None:
        self.config, self.source, self.training, self.device = config, source, training, device
        self.replacing = Replacing(source.table, bad)
        self.workers, self.ahead = loader_workers(config)
        # One for all epochs: memory that was used on a stream is used again on that stream alone.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._scratch = threading.local()

    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""
        if self.stream is not None or isinstance(self.source, DeviceFrames):
            return self._on_device(plans)
        return self._on_workers(plans)

    def close(self) -> None:
        """Ends the worker threads, and frees DALI's pipeline."""
        if isinstance(self.source, DaliFiles):
            self.source.close()
        self.workers.close()

    def _on_workers(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        source = self.source
        read = self._decoded(plans, source) if isinstance(source, DaliFiles) else ((plan, None) for plan in plans)
        jobs = ((plan, frames, empty_images(self.config, len(plan.indices), training=self.training)) for plan, frames in read)

        def parts(job: tuple[Plan, Tensor | None, Images]) -> Iterable[Callable[[], object]]:
            return (partial(self._fill, *job, sample) for sample in range(len(job[0].indices)))

        for plan, _, made in self.workers.run(jobs, parts, ahead=self.ahead):
            yield batch_of(made, plan.geometry)

    def _fill(self, plan: Plan, frames: Tensor | None, made: Images, sample: int) -> None:
        """Makes the images of a sample, of its frames if they are decoded already."""
        if frames is not None:
            recorded = frames[sample]
        else:
            assert isinstance(self.source, TorchFiles | FrameStore)
            recorded = self._thread_buffer()
            self.replacing.read(plan, sample, partial(read_one, self.source, recorded.numpy()))
        fill_sample(list(recorded), plan.draws[sample], made.sample(sample), training=self.training)

    def _thread_buffer(self) -> Tensor:
        """One sample's frames as recorded, in memory that each thread uses again."""
        if not hasattr(self._scratch, "frames"):
            shape = (1 + self.config.num_sources, *self.config.size_px, 3)
            self._scratch.frames = torch.empty(shape, dtype=torch.uint8)
        frames: Tensor = self._scratch.frames
        return frames

    def _on_device(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """One batch ahead of the one being used, on a stream of its own: copying, decoding and augmenting overlap with training."""
        ready: deque[tuple[Batch, Any]] = deque()
        arriving = self._arriving(plans)
        while True:
            with self._on_stream():
                there = next(arriving, None)
                if there is None:
                    break
                ready.append((self._augment(there), self.stream.record_event() if self.stream else None))
            if len(ready) > int(self.stream is not None):
                yield self._hand_over(*ready.popleft())
        while ready:
            yield self._hand_over(*ready.popleft())

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def _arriving(self, plans: Iterator[Plan]) -> Iterator[dict[str, Tensor]]:
        """What a batch is made of, by name, on the device: its geometry, its draws, and its frames (B, F, H, W, 3) as recorded."""
        source = self.source
        if isinstance(source, DaliFiles):
            for plan, frames in self._decoded(plans, source):
                yield self._parcel(plan).to(self.device) | {"frames": frames}
            return
        for _, parcel in self.workers.run(((plan, self._parcel(plan)) for plan in plans), self._reads, ahead=self.ahead):
            there = parcel.to(self.device)
            if isinstance(source, DeviceFrames):
                there["frames"] = source.gather(there["rows"])
            yield there

    def _parcel(self, plan: Plan) -> Parcel:
        """What of a batch goes to the device from here: beside geometry and draws its frames, to be read, or where they are there already
        their rows."""
        frames = {}
        if isinstance(self.source, TorchFiles | FrameStore):
            frames["frames"] = ((*plan.rows.shape, *self.source.size_px, 3), torch.uint8)
        return Parcel.of(self._known(plan), pin_memory=self.stream is not None, **frames)

    def _known(self, plan: Plan) -> dict[str, Tensor]:
        """What a parcel holds beside frames."""
        known = plan.geometry | (pack_draws(plan.draws)._asdict() if self.training else {})
        return known | ({"rows": torch.from_numpy(plan.rows)} if isinstance(self.source, DeviceFrames) else {})

    def _reads(self, job: tuple[Plan, Parcel]) -> Iterable[Callable[[], object]]:
        """What fills the frames of a parcel, sample by sample; of frames that are on the device already only the bad ones matter."""
        if isinstance(self.source, DeviceFrames) and self.replacing.bad is None:
            return ()
        return (partial(self._read_into, *job, sample) for sample in range(len(job[0].indices)))

    def _read_into(self, plan: Plan, parcel: Parcel, sample: int) -> None:
        source = self.source
        if isinstance(source, TorchFiles | FrameStore):
            read: Callable[[int, int], object] = partial(read_one, source, parcel.tensors["frames"][sample].numpy())
        else:
            read = _is_there
        if self.replacing.read(plan, sample, read):
            for name, values in self._known(plan).items():
                parcel.tensors[name][sample] = values[sample]

    def _decoded(self, plans: Iterator[Plan], source: DaliFiles) -> Iterator[tuple[Plan, Tensor]]:
        """Each plan with its frames (B, F, H, W, 3), decoded by DALI; the workers read ahead what it is to be given."""
        begun: deque[tuple[Plan, FileBatch]] = deque()
        again: list[tuple[Plan, FileBatch]] = []

        def parts(job: tuple[Plan, FileBatch]) -> Iterable[Callable[[], object]]:
            return (partial(self._prepare, *job, sample) for sample in range(len(job[0].indices)))

        prepared = self.workers.run(((plan, source.batch(plan.rows)) for plan in plans), parts, ahead=self.ahead)

        def batches() -> Iterator[FileBatch]:
            for job in chain(again, prepared):
                begun.append(job)
                yield job[1]

        while True:
            try:
                for frames in source.decode(batches()):
                    plan, _ = begun.popleft()
                    yield plan, frames.unflatten(0, plan.rows.shape)
                return
            except InputError as fault:  # noqa: PERF203
                # DALI gives up all that it has begun: that is decoded file by file to find the bad ones, and begun again without them.
                again = list(begun)
                begun.clear()
                stops = self.replacing.bad is None or isinstance(fault, TooManyBadFrames)
                if stops or not sum(self._mend(source, *job) for job in again):
                    raise

    def _prepare(self, plan: Plan, batch: FileBatch, sample: int) -> bool:
        """Prepare a sample's files for DALI; whether the sample had to be replaced."""
        first, table = sample * plan.rows.shape[1], self.source.table
        return self.replacing.read(plan, sample, lambda row, place: batch.put(first + place, table.path(row)))

    def _mend(self, source: DaliFiles, plan: Plan, batch: FileBatch) -> bool:
        """Replace the samples of a batch whose files DALI does not decode; whether there are any."""
        replaced = [
            self.replacing.read(plan, sample, lambda row, _: source.decoder.frame(source.table.path(row)))
            for sample in range(len(plan.indices))
        ]
        for sample in range(len(plan.indices)):
            self._prepare(plan, batch, sample)
        return any(replaced)

    def _augment(self, there: dict[str, Tensor]) -> Batch:
        """The batch of what has come to the device."""
        draws = DeviceDraws(*(there[name] for name in DeviceDraws._fields)) if self.training else None
        return batch_of(augment(there["frames"], draws, self.config), there)

    def _hand_over(self, batch: Batch, made: Any) -> Batch:
        """The batch for the caller's stream, which waits until it is made and keeps its memory until it has used it."""
        if made is None:
            return batch
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(made)
        for tensor in batch.tensors():
            tensor.record_stream(stream)
        return batch


def read_one(source: TorchFiles | FrameStore, out: NDArray[np.uint8], row: int, place: int) -> None:
    """Fills one of the frames ``out`` (F, H, W, 3) with that of a row."""
    source.read(row, out[place])


def _is_there(_row: int, _place: int) -> None:
    """Nothing to read."""


def loader_workers(config: DataConfig) -> tuple[Workers, int]:
    """The worker threads of a config, and how many batches they work ahead."""
    workers = Workers(usable_workers(config.num_workers))
    return workers, max(BATCHES_AHEAD, -(-SAMPLES_PER_WORKER * workers.number // config.batch_size))


def batch_of(frames: Images, others: Mapping[str, Tensor]) -> Batch:
    """A batch of images (B, ..., h, w, 3), seen as (B, ..., 3, h, w), and of what is not images, found by name among ``others``."""
    return Batch(
        target=tuple(level.movedim(-1, -3) for level in frames.target),
        sources=tuple(level.movedim(-1, -3) for level in frames.sources),
        target_input=frames.target_input.movedim(-1, -3),
        source_inputs=frames.source_inputs.movedim(-1, -3),
        **{name: others[name] for name in GEOMETRY},
    )
