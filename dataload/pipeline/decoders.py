"""The decoders that make a frame store: files to resized frames, by either backend."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dataload.config import DataConfig
from dataload.datasets.frame_table import FrameTable
from dataload.pipeline.backend import choose_backend
from dataload.pipeline.dali_batches import dali_device, file_input, name_the_damaged
from dataload.pipeline.decode import RESIZER, load_frame
from dataload.store.build import Decoder, Keep
from dataload.system.machine import usable_cores
from dataload.system.threads import in_threads
from dataload.system.workers import Workers

# Frames begun ahead of those that are done.
FRAMES_AHEAD = 64
DALI_BATCH = 32


class TorchDecoder:
    """torch's decoder and resizer, on all cores."""

    def __init__(self, config: DataConfig) -> None:
        self.name, self.size_px = RESIZER, config.size_px

    def frame(self, path: Path) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        return np.ascontiguousarray(load_frame(path, self.size_px).numpy())

    def make(self, table: FrameTable, rows: Sequence[int], keep: Keep) -> Generator[int, None, None]:
        """Keeps the frames of all rows, and yields each row when it is done."""

        def part(row: int) -> Iterable[Callable[[], object]]:
            return (lambda: keep(row, self.frame(table.path(row))),)

        workers = Workers(usable_cores())
        try:
            yield from workers.run(rows, part, ahead=FRAMES_AHEAD)
        finally:
            workers.close()


class DaliDecoder:
    """DALI's decoder and resizer; on a GPU with its hardware decoder."""

    def __init__(self, config: DataConfig, device_id: int | None) -> None:
        self.config, self.device_id = config, device_id
        self.name = "dali-cpu" if device_id is None else "dali-gpu"

    def frame(self, path: Path) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        return next(iter(self._frames([path])))

    def make(self, table: FrameTable, rows: Sequence[int], keep: Keep) -> Generator[int, None, None]:
        """Keeps the frames of all rows, and yields each row when it is done."""
        for row, frame in zip(rows, self._frames([table.path(row) for row in rows]), strict=True):
            keep(row, frame)
            yield row

    def _frames(self, paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
        from dataload.pipeline.dali_graph import BATCHES_AHEAD, build_decoder

        batches = [paths[start : start + DALI_BATCH] for start in range(0, len(paths), DALI_BATCH)]
        with closing(in_threads((partial(_file_inputs, batch) for batch in batches), ahead=1 + BATCHES_AHEAD)) as inputs:
            pipeline = build_decoder(
                lambda: next(inputs), self.config, device_id=self.device_id, num_threads=usable_cores(), batch_size=DALI_BATCH
            )
            for number in range(len(batches)):
                try:
                    (frames,) = pipeline.run()
                except RuntimeError:
                    # DALI does not say which file it was, and has begun others.
                    begun = batches[number : number + 2 + BATCHES_AHEAD]
                    name_the_damaged((path for batch in begun for path in batch), self.config, self.device_id)
                    raise
                yield from np.asarray(frames.as_tensor())


def _file_inputs(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    return [file_input(path) for path in paths]


def decoder_of(config: DataConfig, device: torch.device) -> Decoder:
    """What makes the frames of a loader with this config on this device."""
    if choose_backend(config.loader, device) == "torch":
        return TorchDecoder(config)
    return DaliDecoder(config, dali_device(device))
