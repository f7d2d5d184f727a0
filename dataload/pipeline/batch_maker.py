"""The base class of the ways of making batches: where frames come from, threads that read them ahead, how a batch is put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.datasets.frame_table import FrameTable
from dataload.pipeline.decode import load_frame
from dataload.pipeline.device_graph import pack_draws
from dataload.pipeline.parcel import Parcel
from dataload.pipeline.plan import GEOMETRY, Plan
from dataload.store.reading import DeviceFrames, FrameStore
from dataload.system.machine import usable_workers
from dataload.system.workers import Workers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dataload.pipeline.torch_graph import Images

# Batches made ahead of the one being used; more where batches are small, so that every worker has two samples to do.
BATCHES_AHEAD = 2
SAMPLES_PER_WORKER = 2


class FileFrames:
    """Images straight from their files, decoded and resized each time they are read; as a ``FrameStore``, but slow."""

    def __init__(self, table: FrameTable, size_px: tuple[int, int]) -> None:
        self.table, self.size_px = table, size_px

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Fills ``out`` (H, W, 3) with the frame of a row.

        Raises:
            InputError: the file is missing or damaged.
        """
        out[:] = load_frame(self.table.path(row), self.size_px).numpy()


# Where frames come from: their files, a store, or a store in the GPU's memory.
Source = FileFrames | FrameStore | DeviceFrames


class BatchMaker(ABC):
    """Makes the batches of plans: what both backends have in common.

    Args:
        source: where the frames come from.
        device: where the batches go.
    """

    def __init__(self, config: DataConfig, source: Source, *, training: bool, device: torch.device) -> None:
        self.config, self.source, self.training, self.device = config, source, training, device
        self.workers, self.ahead = loader_workers(config)
        # One for all epochs: memory that was used on a stream is used again on that stream alone.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @abstractmethod
    def run(self, plans: Iterator[Plan]) -> Iterator[Batch]:
        """The batch of each plan, in order."""

    def close(self) -> None:
        """Ends the worker threads."""
        self.workers.close()

    def parcels(self, plans: Iterable[Plan], *, with_draws: bool) -> Iterator[tuple[Plan, Parcel]]:
        """Each plan with all that is to go to the device: its geometry, its draws if wanted, and the frames (B, F, H, W, 3) as recorded,
        which the workers read ahead; of frames that are on the device already, their ``rows``."""
        source, pin_memory = self.source, self.stream is not None

        def begin(plan: Plan) -> tuple[Plan, Parcel]:
            known = plan.geometry | (pack_draws(plan.draws)._asdict() if with_draws else {})
            if isinstance(source, DeviceFrames):
                return plan, Parcel.of(known | {"rows": torch.from_numpy(plan.rows)}, pin_memory=pin_memory)
            return plan, Parcel.of(known, pin_memory=pin_memory, frames=((*plan.rows.shape, *source.size_px, 3), torch.uint8))

        def parts(job: tuple[Plan, Parcel]) -> Iterable[Callable[[], object]]:
            if isinstance(source, DeviceFrames):
                return ()
            frames = job[1].tensors["frames"].numpy()
            return (partial(read_all, source, rows, out) for rows, out in zip(job[0].rows, frames, strict=True))

        return self.workers.run(map(begin, plans), parts, ahead=self.ahead)


def read_all(source: FileFrames | FrameStore, rows: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
    """Fills ``out`` (F, H, W, 3) with the frames of rows (F,)."""
    for row, frame in zip(rows.tolist(), out, strict=True):
        source.read(row, frame)


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
