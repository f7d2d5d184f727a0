"""The decoders, by either backend: image files to resized frames, one by one or many at a time, for batches and for frame stores."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataload.config import DataConfig
from dataload.datasets.frame_table import FrameTable
from dataload.frames.bad_frames import BadFrames
from dataload.frames.picture import REMEDY, read_picture
from dataload.pipeline.backend import choose_backend
from dataload.pipeline.dali_pipeline import BATCHES_AHEAD, DaliPipeline, file_input
from dataload.pipeline.decode import RESIZER, load_frame
from dataload.store.build import Keep
from dataload.system.machine import usable_cores
from dataload.system.threads import in_threads
from dataload.system.workers import Workers
from splits.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import UInt8
    from numpy.typing import NDArray
    from torch import Tensor

# Frames begun ahead of those that are done.
FRAMES_AHEAD = 64
DALI_BATCH = 32


class FileBatch:
    """Files that DALI decodes together; ``read`` prepares them, from any thread."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.inputs = list(paths), [np.empty(0, np.uint8)] * len(paths)

    def read(self, start: int = 0, end: int | None = None) -> FileBatch:
        """Prepares the files from ``start`` to ``end``, by default all; ``InputError`` where one cannot be read."""
        self.inputs[start:end] = map(file_input, self.paths[start:end])
        return self

    def put(self, place: int, path: Path) -> None:
        """Prepares a file for a place; ``InputError`` where it cannot be read."""
        self.paths[place], self.inputs[place] = path, file_input(path)


class TorchDecoder:
    """torch's decoder and resizer, on all cores."""

    backend = "torch"

    def __init__(self, config: DataConfig) -> None:
        self.name, self.size_px = RESIZER, config.size_px

    def frame(self, path: Path) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        return np.ascontiguousarray(load_frame(path, self.size_px).numpy())

    def make(self, table: FrameTable, rows: Sequence[int], keep: Keep, bad: BadFrames | None = None) -> Generator[int, None, None]:
        """Keeps the frames of all rows but the ``bad`` ones, and yields each row when it is done."""

        def part(row: int) -> Iterable[Callable[[], object]]:
            return (partial(_keep_one, table.path(row), self.frame, partial(keep, row), bad),)

        workers = Workers(usable_cores())
        try:
            yield from workers.run(rows, part, ahead=FRAMES_AHEAD)
        finally:
            workers.close()


class DaliDecoder:
    """DALI's decoder and resizer.

    A GPU's JPEG engine makes other pixels than its decoder in CUDA, and of every batch it would decode the first part: a frame would
    depend on its place in the batch. So it is left out, unless ``hardware_share`` is given, which is for measuring; ``name`` tells.

    Args:
        device: where it decodes and resizes.
        hardware_share: of each batch, the share that the JPEG engine decodes.
    """

    backend = "dali"

    def __init__(self, config: DataConfig, device: torch.device, *, hardware_share: float = 0.0) -> None:
        self.size_px, self.device, self.hardware_share = config.size_px, device, hardware_share
        self.name = "dali-cpu" if device.type == "cpu" else "dali-cuda" + (f"-hardware-{hardware_share:g}" if hardware_share else "")
        self._single, self._single_lock = self.pipeline(batch_size=1, num_threads=1), threading.Lock()

    def pipeline(self, *, batch_size: int, num_threads: int) -> DaliPipeline:
        """A pipeline for ``decode``, which builds it when it is first used."""
        return DaliPipeline(self.size_px, self.device, batch_size=batch_size, num_threads=num_threads, hardware_share=self.hardware_share)

    def decode(self, pipeline: DaliPipeline, batches: Iterator[FileBatch]) -> Iterator[UInt8[Tensor, "N H W 3"]]:
        """The frames of each batch, as ``DaliPipeline.run`` gives them.

        Raises:
            InputError: one of the files is missing or damaged.
        """
        begun: deque[FileBatch] = deque()

        def inputs() -> Iterator[list[NDArray[np.uint8]]]:
            for batch in batches:
                begun.append(batch)
                yield batch.inputs

        try:
            for frames in pipeline.run(inputs()):
                begun.popleft()
                yield frames
        except RuntimeError:
            # DALI does not say which file it was.
            self.name_the_damaged(path for batch in begun for path in batch.paths)
            raise

    def frame(self, path: Path) -> NDArray[np.uint8]:
        """One frame (H, W, 3), by a pipeline that is kept for this; from any thread.

        Raises:
            InputError: the file is missing or damaged.
        """
        with self._single_lock:
            try:
                ((frame,),) = self._single.run(iter([[file_input(path)]]))
            except RuntimeError as error:
                read_picture(path)
                raise InputError(
                    f"{path} is a damaged image (DALI's decoder refuses it, others do not); {REMEDY}, or give --loader torch"
                ) from error
            return frame.cpu().numpy()

    def make(self, table: FrameTable, rows: Sequence[int], keep: Keep, bad: BadFrames | None = None) -> Generator[int, None, None]:
        """Keeps the frames of all rows but the ``bad`` ones, and yields each row when it is done."""
        parts = deque(rows[start : start + DALI_BATCH] for start in range(0, len(rows), DALI_BATCH))
        pipeline = self.pipeline(batch_size=DALI_BATCH, num_threads=usable_cores())
        while parts:
            try:
                yield from self._make_parts(table, parts, keep, pipeline)
            except InputError:  # noqa: PERF203
                if bad is None:
                    raise
                # DALI gives up all that it has begun: the first part not done is done file by file, then it begins again with the next.
                for row in parts.popleft():
                    _keep_one(table.path(row), self.frame, partial(keep, row), bad)
                    yield row

    def _make_parts(self, table: FrameTable, parts: deque[Sequence[int]], keep: Keep, pipeline: DaliPipeline) -> Generator[int, None, None]:
        """Takes parts that are done away from ``parts``, and yields their rows."""
        reads = (FileBatch([table.path(row) for row in part]).read for part in list(parts))
        with closing(in_threads(reads, ahead=1 + BATCHES_AHEAD)) as batches:
            for frames in self.decode(pipeline, batches):
                for row, frame in zip(parts[0], frames.cpu().numpy(), strict=True):
                    keep(row, frame)
                yield from parts.popleft()

    def name_the_damaged(self, paths: Iterable[Path]) -> None:
        """``InputError`` for the first file that is missing or damaged, else for the first that DALI's decoder alone refuses."""
        files = list(dict.fromkeys(paths))
        for path in files:
            read_picture(path)
        for path in files:
            self.frame(path)


def _keep_one(
    path: Path, frame_of: Callable[[Path], NDArray[np.uint8]], keep: Callable[[NDArray[np.uint8]], None], bad: BadFrames | None
) -> None:
    """Keeps the frame of a file, unless it is one of ``bad``."""
    if bad is None:
        keep(frame_of(path))
        return
    found: list[NDArray[np.uint8]] = []
    if bad.reads(path, lambda: found.append(frame_of(path))):
        keep(found[0])


def decoder_of(config: DataConfig, device: torch.device) -> TorchDecoder | DaliDecoder:
    """What makes the frames of a run with this config on this device: a run's one choice of its backend; see ``choose_backend``."""
    if choose_backend(config.loader, device) == "torch":
        return TorchDecoder(config)
    return DaliDecoder(config, device)
