"""Frames decoded and resized once, read back at the speed of memory, or kept on the GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dataload.frame_table import FrameTable
from dataload.store_file import StoreFault, StoreFile
from splits.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import UInt8
    from torch import Tensor

# Frames that go to the GPU at once, through one pinned buffer.
FRAMES_PER_COPY = 64

console = logging.getLogger("md")


class FrameStore:
    """The store of a run's frames, opened; every frame is checked as it is read.

    Args:
        file: a whole store that fits its sources.
        table: the run's frames, in the order of the file's.
        decode: makes a frame (H, W, 3) of its source anew, should its copy be damaged.
    """

    def __init__(self, file: StoreFile, table: FrameTable, decode: Callable[[Path], NDArray[np.uint8]]) -> None:
        self.file, self.table, self._decode = file, table, decode
        self._mended: set[int] = set()

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Fills ``out`` (H, W, 3), contiguous, with the frame of a row.

        Raises:
            InputError: the frame is damaged, and its source is gone or has changed.
            OSError: the disk does not give it.
        """
        if not self.file.read(row, out):
            self._mend(row, out)

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def _mend(self, row: int, out: NDArray[np.uint8]) -> None:
        """Decodes the source of a damaged frame anew, and puts it in its place where the file may be written."""
        path, recorded = self.table.path(row), self.file.records[row]
        source = fingerprint(path)
        if source != (int(recorded["bytes"]), int(recorded["mtime_ns"])):
            raise InputError(
                f"the frame of {path} in {self.file.path} is damaged, and its source has changed since; start again to mend it"
            )
        out[:] = self._decode(path)
        if row not in self._mended:
            self._mended.add(row)
            console.warning("Frame store  the frame of %s in %s was damaged; decoded anew from its source", path, self.file.path)
        # A store that others keep, or on a disk that takes nothing, is mended in memory alone.
        with suppress(OSError, StoreFault), closing(StoreFile(self.file.path, writable=True)) as file:
            file.write(row, out, source)
            self.file.records[row] = file.records[row]


class DeviceFrames:
    """All frames of a store in the memory of a GPU.

    Attributes:
        frames: (N, H, W, 3) uint8; a row as in the store's table.
    """

    def __init__(self, store: FrameStore, device: torch.device) -> None:
        import torch
        from tqdm import tqdm

        self.table = store.table
        shape = (*store.file.key.size_px, 3)
        self.frames: UInt8[Tensor, "N H W 3"] = torch.empty((len(self.table), *shape), dtype=torch.uint8, device=device)
        buffer = torch.empty((FRAMES_PER_COPY, *shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
        with tqdm(total=len(self.table), desc="Frames to the GPU", unit="frame", dynamic_ncols=True, leave=False) as bar:
            for start in range(0, len(self.table), FRAMES_PER_COPY):
                rows = range(start, min(start + FRAMES_PER_COPY, len(self.table)))
                for place, row in enumerate(rows):
                    store.read(row, buffer[place].numpy())
                self.frames[rows.start : rows.stop].copy_(buffer[: len(rows)])
                bar.update(len(rows))

    def gather(self, rows: Tensor) -> UInt8[Tensor, "B F H W 3"]:
        """The frames of rows (B, F), an index tensor on the device."""
        return self.frames.index_select(0, rows.flatten()).view(*rows.shape, *self.frames.shape[1:])


def fingerprint(path: Path | str) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file; two zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def fingerprints(data_path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(N, 2) fingerprints of files below a folder."""
    return np.array([fingerprint(os.path.join(data_path, name)) for name in names], np.int64).reshape(-1, 2)
