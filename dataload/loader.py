"""The loader: batches on the training device; a batch depends on its epoch and place alone, so any can be made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from dataload.batch import Batch
from dataload.config import SKIP, DataConfig
from dataload.datasets.frame_table import FrameTable
from dataload.frames.bad_frames import BadFrames
from dataload.option import whole_number
from dataload.pipeline.batch_maker import BatchMaker
from dataload.pipeline.decoders import decoder_of
from dataload.pipeline.files import files_of
from dataload.pipeline.order import draw, epoch_batches, replacements
from dataload.pipeline.plan import Plan
from dataload.pipeline.waits import GpuWaits, HostWaits
from splits.errors import InputError

if TYPE_CHECKING:
    from dataload.datasets.base import Dataset
    from dataload.frames.frame_ref import FrameRef
    from dataload.pipeline.decoders import DaliDecoder, TorchDecoder
    from dataload.store.reading import DeviceFrames, FrameStore

# Mirrors x: a transform T seen in mirrored images is MIRROR_X @ T @ MIRROR_X.
MIRROR_X = np.diag(np.array([-1, 1, 1, 1], np.float32))


class Loader:
    """Makes the batches of one split list: each ``for batch in loader`` is one epoch, in order, of ``len`` batches.

    Args:
        refs: the lines of the split, in list order.
        training: shuffled, full batches only, with flips and jitter; otherwise in list order, the last batch may be smaller.
        device: where the batches go.
        rank: this process's number among those that share each epoch, from 0.
        world: how many share it. In training each takes a batch per step, of which all have the same number; otherwise the batches
            that one process would make go round the processes, some of which may have one fewer than others, or none.
        store: the frames of these lines, and perhaps of others, decoded and resized before; by default each is read from its file.
        decoder: what reads the files; by default chosen as ``config`` says.
        bad: the frames that cannot be read, which loaders of one run share where ``config.bad_frames`` is "skip"; by default its own.

    Attributes:
        backend: "dali" or "torch": what decodes and resizes.
        steps_per_epoch: batches of this rank in an epoch.
        bad: the frames that could not be read, so far; None where one ends the run.

    Raises:
        InputError: no such device or rank, DALI is asked for but does not work here, a training list is too short for one batch, or a
            line has no such frames.
    """

    def __init__(
        self,
        config: DataConfig,
        dataset: Dataset,
        refs: Sequence[FrameRef],
        *,
        training: bool,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        store: FrameStore | DeviceFrames | None = None,
        decoder: TorchDecoder | DaliDecoder | None = None,
        bad: BadFrames | None = None,
    ) -> None:
        self.config, self.dataset, self.refs, self.training = config, dataset, refs, training
        self.device, self.rank, self.world = usable_device(device), rank, whole_number("world", world, least=1)
        if whole_number("rank", rank, least=0) >= world:
            raise InputError(f"rank={rank} must be below world={world}: the first process is rank 0")
        self.steps_per_epoch = len(self._order(0))
        self._next_epoch = 0
        self._is_closed = False
        if training:
            require_full_batch(len(refs), config.batch_size, world)
        decoder = decoder or decoder_of(config, self.device)
        self.backend = decoder.backend
        source = files_of(FrameTable.of(config, dataset, refs), decoder, config) if store is None else store
        table = source.table
        assert (table.frame_ids, table.use_stereo, source.size_px) == (config.frame_ids, config.use_stereo, config.size_px), "another store"
        self.rows = table.rows(refs)
        self._waits = GpuWaits(self.device) if self.device.type == "cuda" else HostWaits()
        self.bad = bad or bad_frames_of(config, len(refs))
        self._maker = BatchMaker(config, source, training=training, device=self.device, bad=self.bad)

    def epoch(self, epoch: int, start_step: int = 0, *, samples_done: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; may be left early, and begun again from any step. One epoch at a time.

        Args:
            epoch: its number, from 0; it decides the order, flips and jitter.
            start_step: the first of this rank's batches to make.
            samples_done: samples of the epoch that all ranks together have had, whatever their number was. The rest is shared
                out among the present ones, and ``start_step`` counts from there.

        Raises:
            InputError: a file is missing or damaged, or the loader is closed.
        """
        if self._is_closed:
            raise InputError("this loader is closed, as it is after its with block; begin epochs within the block, or open another")
        plans = (self._plan(epoch, index) for index in self._order(epoch, samples_done)[start_step:])
        return self._waits.measure(self._maker.run(plans))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, beginning with epoch 0; as ``epoch``."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        return self.epoch(epoch)

    def __len__(self) -> int:
        """The batches of this rank in an epoch."""
        return self.steps_per_epoch

    @property
    def waited_s(self) -> float:
        """How long training has waited for batches in all: the caller's time, or on a GPU the GPU's idle time."""
        return self._waits.waited_s

    @property
    def replaced(self) -> Set[int]:
        """The positions in the list of the samples in whose place another was loaded, as their frames cannot be read (``bad``)."""
        return self._maker.replacing.replaced

    def close(self) -> None:
        """Ends the worker threads or the pipeline; no epoch can be begun afterwards."""
        self._is_closed = True
        self._maker.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, epoch: int, done: int = 0) -> list[np.ndarray]:
        return epoch_batches(
            len(self.refs),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
            shuffle=self.training,
            drop_last=self.training,
            done=done,
        )

    def _plan(self, epoch: int, index: np.ndarray) -> Plan:
        draws = [draw(self.config.seed, epoch, int(i), training=self.training) for i in index]
        cameras = [self._camera(self.refs[i], d.flip) for i, d in zip(index, draws, strict=True)]
        K, T_stereo = (np.stack(part) for part in zip(*cameras, strict=True))
        return Plan(index, self.rows[index], draws, K, T_stereo, partial(self._others, epoch), index.copy())

    def _others(self, epoch: int, index: int) -> Iterator[Plan]:
        """What may take the place of a sample, one by one."""
        for other in replacements(self.config.seed, epoch, index, len(self.refs)):
            yield self._plan(epoch, np.array([other]))

    def _camera(self, ref: FrameRef, flip: bool) -> tuple[np.ndarray, np.ndarray]:
        """K and T_stereo of one sample, flipped with its images; the identity where there is nothing to warp."""
        if not self.config.num_sources:
            return np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)
        K: np.ndarray = self.dataset.K(ref, *self.config.size_px)
        T_stereo: np.ndarray = self.dataset.T_stereo(ref) if self.config.use_stereo else np.eye(4, dtype=np.float32)
        if not (np.isfinite(K).all() and np.isfinite(T_stereo).all()):
            raise InputError(f"the camera of '{ref.line}' holds NaN or infinite numbers; correct the calibration of its folder")
        if flip:
            K = K.copy()
            # Pixel x, centres at whole numbers, goes to W - 1 - x, and the principal point with it.
            K[0, 2] = self.config.width_px - 1 - K[0, 2]
            T_stereo = MIRROR_X @ T_stereo @ MIRROR_X
        return K, T_stereo


def bad_frames_of(config: DataConfig, num_samples: int) -> BadFrames | None:
    """Where the bad frames of a run with so many samples in its lists are kept; None where one ends the run."""
    return BadFrames(num_samples) if config.bad_frames == SKIP else None


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name; ``InputError`` where torch knows none, or finds no such GPU."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is no device of torch; give 'cpu', 'cuda', or 'cuda:1' for the second GPU") from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            here = f"torch finds {count} here, counted from cuda:0" if count else "torch finds no GPU here (md-data doctor says why)"
            raise InputError(f"device={device}: {here}; give another device, or 'cpu'")
    return found


def require_full_batch(samples: int, batch_size: int, world: int = 1) -> None:
    """``InputError`` where a training list is too short for one batch on each of ``world`` processes."""
    if samples < batch_size * world:
        several = f" for each of {world} processes ({batch_size * world})" if world > 1 else ""
        fewer = ", or start fewer processes" if world > 1 else ""
        raise InputError(
            f"the training list has {samples} samples, fewer than one batch of {batch_size}{several}; give a smaller --batch_size{fewer}"
        )
