"""A DALI pipeline that batches of image files go through, and come out of as frames where they are decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dataload.frames.picture import encode_plain, is_plain, read_picture

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy.typing import NDArray
    from torch import Tensor

# Batches begun ahead of the one being used.
BATCHES_AHEAD = 2


class DaliPipeline:
    """One pipeline, built when the first batch comes and kept for all that follow, until DALI refuses a file: it says itself that a
    pipeline is no longer valid then.

    Args:
        size_px: (height, width) of a frame.
        device: where files are decoded and resized, and the frames are.
        batch_size: the most files of a batch.
        num_threads: of DALI's own.
        hardware_share: see ``decoders.DaliDecoder``.
    """

    def __init__(
        self, size_px: tuple[int, int], device: torch.device, *, batch_size: int, num_threads: int, hardware_share: float = 0.0
    ) -> None:
        self.size_px, self.device = size_px, device
        self.batch_size, self.num_threads, self.hardware_share = batch_size, num_threads, hardware_share
        self._pipeline: Any = None
        self._batches: Iterator[Sequence[NDArray[np.uint8]]] = iter(())

    def run(self, batches: Iterator[Sequence[NDArray[np.uint8]]]) -> Iterator[UInt8[Tensor, "N H W 3"]]:
        """The frames of each batch, in order; further batches are begun meanwhile. One run at a time; one that is left early may be
        followed by another.

        On a GPU the frames are made in the order of the stream that is torch's current one when they are asked for, and nothing waits for
        it. They are a copy in torch's memory: were DALI's own handed over (DLPack), a thread of DALI would wait for the whole GPU before
        it frees them, which spins a core, and breaks the capture of a CUDA graph.

        Args:
            batches: files as ``file_input`` or ``content_input`` make them.

        Raises:
            RuntimeError: DALI refuses a file, or does not work here.
        """
        self._restart()
        self._batches = batches
        while (frames := self._next()) is not None:
            yield frames
            assert self._batches is batches, "another run has been begun"

    def close(self) -> None:
        """Frees the pipeline and what it was to be given."""
        self._pipeline, self._batches = None, iter(())

    def _restart(self) -> None:
        """Makes the pipeline ready for other batches, throwing away what a run left early has begun, whatever became of it."""
        self._batches = iter(())
        with suppress(RuntimeError):
            while self._pipeline is not None and self._next() is not None:
                pass
        if self._pipeline is not None:
            self._pipeline.reset()
            return
        from dataload.pipeline.dali_graph import build_decoder

        self._pipeline = build_decoder(
            lambda: next(self._batches),
            self.size_px,
            device_id=dali_device(self.device),
            num_threads=self.num_threads,
            batch_size=self.batch_size,
            batches_ahead=BATCHES_AHEAD,
            hardware_share=self.hardware_share,
        )

    def _next(self) -> Tensor | None:
        """The next frames, None at the end."""
        try:
            stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
            (frames,) = self._pipeline.run(stream)
        except StopIteration:
            return None
        except RuntimeError:
            self._pipeline = None
            raise
        made = frames.as_tensor()
        if stream is None:
            on_cpu: Tensor = torch.utils.dlpack.from_dlpack(made)
            return on_cpu
        from nvidia.dali.plugin.pytorch import feed_ndarray

        return feed_ndarray(made, torch.empty(made.shape(), dtype=torch.uint8, device=self.device), cuda_stream=stream)


def dali_device(device: torch.device) -> int | None:
    """DALI's number of a GPU; None for the CPU."""
    if device.type != "cuda":
        return None
    if device.index is not None:
        return device.index
    # Where torch finds no GPU either, it is DALI that is to say why.
    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def file_input(path: Path) -> NDArray[np.uint8]:
    """A file as the graph takes it: its path, or where DALI's pixels would be others than ``read_picture``'s, a file of those.

    Raises:
        InputError: the file cannot be read, or such a one is damaged.
    """
    return np.frombuffer(os.fsencode(path), np.uint8) if is_plain(path) else content_input(encode_plain(read_picture(path)))


def content_input(data: bytes) -> NDArray[np.uint8]:
    """The bytes of a file as the graph takes them."""
    return np.frombuffer(b"\0" + data, np.uint8)
