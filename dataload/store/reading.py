"""A frame store in use: frames that were decoded and resized once, read from the disk or kept on the GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.frame_table import FrameTable
from dataload.store.file import StoreFault, StoreFile, StoreKey
from dataload.system.console import console
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from dataload.system.workers import Workers
from splits.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import UInt8
    from torch import Tensor

    from dataload.frames.bad_frames import BadFrames

# Frames that go to the GPU at once, through one pinned buffer.
FRAMES_PER_COPY = 64
# Damaged frames that are named; a file that is cut off has very many.
NAMED_FRAMES = 3


class FrameStore:
    """The store of a run's frames, opened; every frame is checked as it is read.

    Args:
        file: a whole store that fits its sources.
        table: the run's frames, in the order of the file's.
        decode: makes a frame (H, W, 3) from its source again, should its copy be damaged.
    """

    def __init__(self, file: StoreFile, table: FrameTable, decode: Callable[[Path], NDArray[np.uint8]]) -> None:
        self.file, self.table, self._decode = file, table, decode
        self._mended: set[int] = set()

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of a frame."""
        return self.file.key.size_px

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Fills ``out`` (H, W, 3), contiguous, with the frame of a row.

        Raises:
            InputError: the frame is damaged, and its source is gone or has changed.
        """
        if not self.file.read(row, out):
            self._mend(row, out)

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def _mend(self, row: int, out: NDArray[np.uint8]) -> None:
        """Decodes the source of a damaged frame again, and repairs the file where it may be written."""
        path, recorded = self.table.path(row), self.file.records[row]
        source = fingerprint(path)
        if source != (int(recorded["bytes"]), int(recorded["mtime_ns"])):
            raise InputError(
                f"the frame of {path} in {self.file.path} is damaged, and its source has changed since; start again to repair it"
            )
        out[:] = self._decode(path)
        if row not in self._mended:
            self._mended.add(row)
            if len(self._mended) <= NAMED_FRAMES:
                more = "; no others are named" if len(self._mended) == NAMED_FRAMES else ""
                console.warning("Frame store  the frame of %s in %s was damaged; decoded again%s", path, self.file.path, more)
        # A store of another user, or on a read-only or full disk, is repaired in memory only.
        with suppress(OSError, StoreFault), closing(StoreFile(self.file.path, writable=True)) as file:
            if file.key == self.file.key:
                file.write(row, out, source)
                self.file.records[row] = file.records[row]


class DeviceFrames:
    """All frames of a store in the memory of a GPU.

    Attributes:
        frames: (N, H, W, 3) uint8; a row as in the store's table. Those of ``bad``, which nothing reads, are undefined.

    Raises:
        torch.OutOfMemoryError: the GPU has no room for them.
    """

    def __init__(self, store: FrameStore, device: torch.device, bad: BadFrames | None = None) -> None:
        import torch

        self.table, self.size_px = store.table, store.size_px
        count, shape = len(self.table), (*self.size_px, 3)
        self.frames: UInt8[Tensor, "N H W 3"] = torch.empty((count, *shape), dtype=torch.uint8, device=device)
        blocks = [range(start, min(start + FRAMES_PER_COPY, count)) for start in range(0, count, FRAMES_PER_COPY)]
        jobs = ((rows, torch.empty((len(rows), *shape), dtype=torch.uint8, pin_memory=device.type == "cuda")) for rows in blocks)

        def parts(job: tuple[range, Tensor]) -> Iterable[Callable[[], object]]:
            reads = ((row, partial(store.read, row, frame.numpy())) for row, frame in zip(*job, strict=True))
            return (read if bad is None else partial(bad.reads, self.table.path(row), read) for row, read in reads)

        workers = Workers(usable_cores())
        with closing(workers), progress_bar(count, "Frames to the GPU", "frames", stays=False) as bar:
            for rows, buffer in workers.run(jobs, parts, ahead=1):
                self.frames[rows.start : rows.stop].copy_(buffer)
                bar.update(len(rows))

    def gather(self, rows: Tensor) -> UInt8[Tensor, "B F H W 3"]:
        """The frames of rows (B, F), an index tensor on the device."""
        import torch

        # Eight bytes at a time: a frame's are a multiple of eight, as its sides are of 32.
        words = self.frames.view(len(self.frames), -1).view(torch.int64).index_select(0, rows.flatten())
        return words.view(torch.uint8).view(*rows.shape, *self.frames.shape[1:])

    def close(self) -> None:
        """Gives the memory back."""
        del self.frames


def fingerprint(path: Path | str) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file; two zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def fingerprints(key: StoreKey) -> NDArray[np.int64]:
    """(N, 2) fingerprints of a key's source files, as they are now."""
    return np.array([fingerprint(os.path.join(key.data_path, name)) for name in key.names], np.int64).reshape(-1, 2)
