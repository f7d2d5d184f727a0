"""What a batch is to hold, known before any of its images is read; and what every way of making it shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.decode import load_frame
from dataload.frame_table import FrameTable
from dataload.machine import usable_workers
from dataload.order import Draw
from dataload.workers import Workers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dataload.frame_store import FrameStore
    from dataload.torch_graph import Frames

# Batches made ahead of the one being used; more where batches are small, so that every worker has two samples to do.
BATCHES_AHEAD = 2
SAMPLES_PER_WORKER = 2
# The fields of a batch that are no images.
GEOMETRY = ("K", "T_stereo", "indices")


class Plan(NamedTuple):
    """What a batch of B samples is to hold.

    Attributes:
        indices: (B,) int64 positions in the split list.
        rows: (B, 1 + S) int32 rows of the frame table: the target, then the sources in the order of ``Batch.sources``.
        draws: how each sample is augmented.
        K, T_stereo: (B, 3, 3) and (B, 4, 4) float32, as in ``Batch``.
    """

    indices: NDArray[np.int64]
    rows: NDArray[np.int32]
    draws: list[Draw]
    K: NDArray[np.float32]
    T_stereo: NDArray[np.float32]

    @property
    def geometry(self) -> dict[str, Tensor]:
        """What a batch holds beside images."""
        return {name: torch.from_numpy(getattr(self, name)) for name in GEOMETRY}


class FileFrames:
    """Frames straight from their files, decoded and resized each time they are read; as a ``FrameStore``, but slow."""

    def __init__(self, table: FrameTable, size_px: tuple[int, int]) -> None:
        self.table, self.size_px = table, size_px

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Fills ``out`` (H, W, 3) with the frame of a row.

        Raises:
            InputError: the file is missing or damaged.
        """
        out[:] = load_frame(self.table.path(row), self.size_px).numpy()


def read_all(source: FileFrames | FrameStore, rows: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
    """Fills ``out`` (F, H, W, 3) with the frames of rows (F,)."""
    for row, frame in zip(rows.tolist(), out, strict=True):
        source.read(row, frame)


def loader_workers(config: DataConfig) -> tuple[Workers, int]:
    """The worker threads of a config, and how many batches they are to be ahead."""
    workers = Workers(usable_workers(config.num_workers))
    return workers, max(BATCHES_AHEAD, -(-SAMPLES_PER_WORKER * workers.number // config.batch_size))


def batch_of(frames: Frames, others: Mapping[str, Tensor]) -> Batch:
    """A batch of images (B, ..., h, w, 3), seen as (B, ..., 3, h, w), and of what is not images, found by name among ``others``."""
    return Batch(
        target=tuple(level.movedim(-1, -3) for level in frames.target),
        sources=tuple(level.movedim(-1, -3) for level in frames.sources),
        target_input=frames.target_input.movedim(-1, -3),
        source_inputs=frames.source_inputs.movedim(-1, -3),
        **{name: others[name] for name in GEOMETRY},
    )
