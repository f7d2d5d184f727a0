"""Batches on the training device, by DALI or by its twin; the position is (epoch, step), so any batch can be made again."""

from __future__ import annotations

import importlib.util
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.cores import usable_cores
from dataload.order import Draw, draw, epoch_batches
from dataload.torch_graph import Frames, decode, empty_frames, fill_sample
from splits.errors import InputError

if TYPE_CHECKING:
    from dataload.datasets.base import Dataset
    from dataload.split import FrameRef

# Batches made ahead of the one being used; more where batches are small, so that every worker has two samples to do.
BATCHES_AHEAD = 2
SAMPLES_PER_WORKER = 2
# Mirrors x: a transform T seen in mirrored images is MIRROR_X @ T @ MIRROR_X.
MIRROR_X = np.diag(np.array([-1, 1, 1, 1], np.float32))


class Plan(NamedTuple):
    """What a batch is to hold: per sample its position in the split list, the paths of its frames (target first), its draw."""

    indices: np.ndarray
    paths: list[list[Path]]
    draws: list[Draw]


class Loader:
    """Makes the batches of one split list.

    Args:
        refs: the lines of the split, in list order.
        training: shuffled, full batches only, with flips and jitter; otherwise in list order, the last batch may be smaller.
        device: where the batches go.
        rank, world: this process's place among those that share each epoch.

    Attributes:
        backend: "dali" or "torch".
        steps_per_epoch: batches of this rank in an epoch.

    Raises:
        InputError: DALI is asked for but not installed, or a training list is too short for one batch.
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
    ) -> None:
        self.config, self.dataset, self.refs, self.training = config, dataset, refs, training
        self.device, self.rank, self.world = torch.device(device), rank, world
        self.steps_per_epoch = len(self._order(0))
        if training and self.steps_per_epoch == 0:
            need = config.batch_size * world
            raise InputError(f"the training list has {len(refs)} samples, fewer than one batch of {need}; give a smaller batch_size")
        self.backend = choose_backend(config.loader, self.device)
        frames = DaliFrames if self.backend == "dali" else TorchFrames
        self._frames = frames(config, training=training, device=self.device)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; may be left early, and begun again from any step.

        One epoch at a time: beginning another ends the one before.

        Raises:
            InputError: a file is missing or damaged.
        """
        plans = (self._plan(epoch, index) for index in self._order(epoch)[start_step:])
        for plan, frames in self._frames.run(plans):
            yield self._batch(plan, frames)

    def close(self) -> None:
        """Ends the worker threads or the pipeline; no epoch can be begun afterwards."""
        self._frames.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(
            len(self.refs),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
            shuffle=self.training,
            drop_last=self.training,
        )

    def _plan(self, epoch: int, index: np.ndarray) -> Plan:
        draws = [draw(self.config.seed, epoch, int(i), training=self.training) for i in index]
        return Plan(index, [self._paths(self.refs[i]) for i in index], draws)

    def _paths(self, ref: FrameRef) -> list[Path]:
        paths = [self.dataset.image_path(ref, frame_id) for frame_id in self.config.frame_ids]
        return [*paths, self.dataset.image_path(ref, stereo=True)] if self.config.use_stereo else paths

    def _batch(self, plan: Plan, frames: Frames) -> Batch:
        cameras = [self._camera(self.refs[i], d.flip) for i, d in zip(plan.indices, plan.draws, strict=True)]
        K, T_stereo = (torch.from_numpy(np.stack(part)) for part in zip(*cameras, strict=True))
        return Batch(
            target=tuple(self._images(level) for level in frames.target),
            sources=tuple(self._images(level) for level in frames.sources),
            target_input=self._images(frames.target_input),
            source_inputs=self._images(frames.source_inputs),
            K=to_device(K, self.device),
            T_stereo=to_device(T_stereo, self.device),
            indices=to_device(torch.from_numpy(plan.indices), self.device),
        )

    def _images(self, frames: torch.Tensor) -> torch.Tensor:
        return to_device(frames, self.device).movedim(-1, -3)

    def _camera(self, ref: FrameRef, flip: bool) -> tuple[np.ndarray, np.ndarray]:
        """K and T_stereo of one sample, flipped with its images."""
        K: np.ndarray = self.dataset.K(ref, self.config.height_px, self.config.width_px)
        T_stereo: np.ndarray = self.dataset.T_stereo(ref) if self.config.use_stereo else np.eye(4, dtype=np.float32)
        if flip:
            K = K.copy()
            K[0, 2] = self.config.width_px - K[0, 2]
            T_stereo = MIRROR_X @ T_stereo @ MIRROR_X
        return K, T_stereo


def choose_backend(loader: str, device: torch.device) -> str:
    """ "dali" or "torch" for ``--loader``: auto means DALI on a GPU, where it is installed, and the faster torch twin on a CPU.

    Raises:
        InputError: DALI is asked for but not installed.
    """
    installed = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    if loader == "dali" and not installed:
        raise InputError("loader=dali needs NVIDIA DALI, which is not installed; pip install nvidia-dali-cuda130, or give --loader torch")
    if loader == "auto":
        return "dali" if installed and device.type == "cuda" else "torch"
    return loader


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on ``device``, copied without waiting for the GPU."""
    if tensor.device.type == device.type:
        return tensor
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def usable_workers(num_workers: int) -> int:
    """``num_workers``, but no more than this process may use of the machine's cores."""
    return min(num_workers, usable_cores())


class TorchFrames:
    """The twin on worker threads (decoding, resizing and arithmetic all release the interpreter lock), or in the caller's."""

    def __init__(self, config: DataConfig, *, training: bool, device: torch.device) -> None:
        self.config, self.training = config, training
        self.pin_memory = device.type == "cuda"
        workers = usable_workers(config.num_workers)
        # Each worker keeps to one core: without this every worker would start a team of as many threads as there are cores. The
        # setting belongs to the thread, but a thread that has not asked for its own yet would take over the last one made: so the
        # caller's is asked for first, or training would run on one core or all, whichever came first.
        torch.get_num_threads()
        self.pool = ThreadPoolExecutor(workers, "loader", initializer=torch.set_num_threads, initargs=(1,)) if workers else None
        self.ahead = max(BATCHES_AHEAD, -(-SAMPLES_PER_WORKER * workers // config.batch_size)) if workers else 0

    def run(self, plans: Iterator[Plan]) -> Iterator[tuple[Plan, Frames]]:
        """Frames of each plan, in order."""
        pending: deque[tuple[Plan, Frames, list[Future[None]]]] = deque()
        try:
            for plan in plans:
                pending.append(self._start(plan))
                if len(pending) > self.ahead:
                    yield self._finish(pending.popleft())
            while pending:
                yield self._finish(pending.popleft())
        finally:
            for _, _, futures in pending:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """Ends the worker threads."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _start(self, plan: Plan) -> tuple[Plan, Frames, list[Future[None]]]:
        frames = empty_frames(self.config, len(plan.indices), training=self.training, pin_memory=self.pin_memory)
        futures = []
        for row, (paths, sample_draw) in enumerate(zip(plan.paths, plan.draws, strict=True)):
            if self.pool is None:
                fill_sample(paths, sample_draw, frames.sample(row), training=self.training)
            else:
                futures.append(self.pool.submit(fill_sample, paths, sample_draw, frames.sample(row), training=self.training))
        return plan, frames, futures

    @staticmethod
    def _finish(started: tuple[Plan, Frames, list[Future[None]]]) -> tuple[Plan, Frames]:
        plan, frames, futures = started
        for future in futures:
            future.result()
        return plan, frames


class DaliFrames:
    """A DALI pipeline fed with plans; on a GPU the frames are made and stay there."""

    def __init__(self, config: DataConfig, *, training: bool, device: torch.device) -> None:
        self.config, self.training = config, training
        self.on_gpu = device.type == "cuda"
        self.device_id = (torch.cuda.current_device() if device.index is None else device.index) if self.on_gpu else None
        self.pipeline: Any = None
        self.plans: Iterator[Plan] = iter(())
        self.fed: deque[Plan] = deque()

    def run(self, plans: Iterator[Plan]) -> Iterator[tuple[Plan, Frames]]:
        """Frames of each plan, in order."""
        self._restart()
        self.plans = plans
        while self.plans is plans and (outputs := self._next()) is not None:
            yield self.fed.popleft(), self._frames(outputs)

    def close(self) -> None:
        """Frees the pipeline."""
        self.pipeline = None

    def _restart(self) -> None:
        """Makes the pipeline ready for other plans, throwing away what an epoch left early has prefetched."""
        self.plans = iter(())
        if self.pipeline is None:
            from dataload.graph import build_pipeline

            threads = max(usable_workers(self.config.num_workers), 1)
            self.pipeline = build_pipeline(self._feed, self.config, training=self.training, device_id=self.device_id, num_threads=threads)
        while self._next() is not None:
            pass
        self.fed.clear()
        self.pipeline.reset()

    def _feed(self) -> tuple[list[Any], ...]:
        """The next plan as inputs of the graph; ``StopIteration`` at the end of the epoch."""
        plan = next(self.plans)
        self.fed.append(plan)
        frames = [[np.frombuffer(os.fsencode(path), np.uint8) for path in frame] for frame in zip(*plan.paths, strict=True)]
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
            return self.pipeline.run(torch.cuda.current_stream(self.device_id) if self.on_gpu else None)
        except StopIteration:
            return None
        except RuntimeError:
            # DALI does not say which file; the twin's decoder does. A pipeline that has failed cannot go on.
            self.pipeline = None
            for path in {path: None for plan in self.fed for sample in plan.paths for path in sample}:
                decode(path)
            raise

    def _frames(self, outputs: tuple[Any, ...]) -> Frames:
        """The outputs as tensors; no copy is made, and the memory lives as long as the tensors do."""
        tensors = [torch.from_dlpack(output.as_tensor()) for output in outputs]
        config, temporal = self.config, len(self.config.temporal_ids)
        target, rest = tuple(tensors[: config.num_levels]), tensors[config.num_levels :]
        if config.num_sources:
            sources, rest = tuple(rest[: config.source_levels]), rest[config.source_levels :]
        else:
            sources = tuple(level[:, None][:, :0] for level in target[: config.source_levels])
        if not self.training:
            return Frames(target, sources, target[0], sources[0][:, :temporal])
        return Frames(target, sources, rest[0], rest[1] if temporal else sources[0][:, :0])
