"""Images straight from their files, decoded and resized each time: by torch one at a time, by DALI a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dataload.config import DataConfig
from dataload.datasets.frame_table import FrameTable
from dataload.pipeline.decoders import DaliDecoder, FileBatch, TorchDecoder
from dataload.system.machine import usable_workers

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy.typing import NDArray
    from torch import Tensor


class TorchFiles:
    """The files of a table, by torch; as a ``FrameStore``, but slow."""

    def __init__(self, table: FrameTable, decoder: TorchDecoder) -> None:
        self.table, self.decoder, self.size_px = table, decoder, decoder.size_px

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Fills ``out`` (H, W, 3) with the frame of a row.

        Raises:
            InputError: the file is missing or damaged.
        """
        out[:] = self.decoder.frame(self.table.path(row))


class DaliFiles:
    """The files of a table, by DALI: all frames of a batch go through one decoder."""

    def __init__(self, table: FrameTable, decoder: DaliDecoder, config: DataConfig) -> None:
        self.table, self.decoder, self.size_px = table, decoder, decoder.size_px
        files = config.batch_size * (1 + config.num_sources)
        self._pipeline = decoder.pipeline(batch_size=files, num_threads=max(usable_workers(config.num_workers), 1))

    def batch(self, rows: NDArray[np.int32]) -> FileBatch:
        """The files of rows (B, F), to be read."""
        return FileBatch([self.table.path(row) for row in rows.flatten().tolist()])

    def decode(self, batches: Iterator[FileBatch]) -> Iterator[UInt8[Tensor, "B*F H W 3"]]:
        """The frames of each batch, on the decoder's device; ``InputError`` names a file that is missing or damaged."""
        return self.decoder.decode(self._pipeline, batches)

    def close(self) -> None:
        """Frees the pipeline."""
        self._pipeline.close()


def files_of(table: FrameTable, decoder: TorchDecoder | DaliDecoder, config: DataConfig) -> TorchFiles | DaliFiles:
    """The files of a table as the decoder reads them."""
    return TorchFiles(table, decoder) if isinstance(decoder, TorchDecoder) else DaliFiles(table, decoder, config)
