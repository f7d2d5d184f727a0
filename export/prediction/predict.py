"""Depth of single images: load them, predict them in batches, write them. The network's runner is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.frames.picture import read_picture
from export.choices import OutputConfig
from export.prediction.depth import Depth
from export.prediction.writers import write_prediction
from export.runtime.fitting import resize_image
from splits.errors import InputError
from splits.faults import describe_fault

BATCH_SIZE = 8


class Predictor(NamedTuple):
    """A network ready to run.

    Attributes:
        run: images (B,h,w,3) uint8 to inverse depth (B,h,w) float32, 1 over the network's unit.
        size_px: (height, width) of its input.
        unit_m: metres in the network's unit; None where unknown, as for a model trained without stereo.
    """

    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    size_px: tuple[int, int]
    unit_m: float | None


class NamedImage(NamedTuple):
    """An image to be predicted: what messages call it, its file where it is one, and what gives its upright pixels (H,W,3) uint8."""

    name: str
    path: Path | None
    read: Callable[[], NDArray[np.uint8]]


class LoadedImage(NamedTuple):
    """An image at the network's size, (h,w,3), its own size (height, width), and what its ``Depth`` keeps of it."""

    name: str
    resized: NDArray[np.uint8]
    size_px: tuple[int, int]
    source: Path | NDArray[np.uint8]


def check_unit(predictor: Predictor, config: OutputConfig) -> None:
    """Raise InputError where ``config`` asks for metres, which this model cannot give."""
    option = config.needs_metres()
    if option and predictor.unit_m is None:
        raise InputError(
            f"{option} needs a model trained with stereo: this one learned from a single moving camera, from which the scale of the world "
            "cannot be observed; choose a stereo or mono+stereo model, or leave the option out"
        )


def predict_images(predictor: Predictor, files: Sequence[Path], config: OutputConfig, *, num_threads: int = 4) -> Iterator[str | None]:
    """Predict ``files`` and write what ``config`` says.

    Yields once for each image when it is done: None, or why it could not be read, predicted or written.
    """
    named = (NamedImage(str(path), path, partial(read_picture, path)) for path in files)
    rest = iter(files)
    with ThreadPoolExecutor(num_threads) as pool:
        writing: list[Future[str | None]] = []
        for batch in predict_batches(predictor, named, pool, keep_pixels="ply" in config.formats):
            written = [pool.submit(_write, depth, path, config) for depth, path in zip(batch, rest, strict=False)]
            # One batch is written while the next is predicted.
            yield from (done.result() for done in writing)
            writing = written
        yield from (done.result() for done in writing)


def predict_batches(
    predictor: Predictor, images: Iterable[NamedImage], pool: ThreadPoolExecutor, *, batch_size: int = BATCH_SIZE, keep_pixels: bool = False
) -> Iterator[list[Depth | InputError]]:
    """The depth of each image, batch by batch in their order; of one that cannot be read or predicted, why.

    ``pool`` reads one batch ahead. With ``keep_pixels`` the depth of a file keeps the pixels, which else are read again when asked for.
    """
    for batch in _load_batches(images, predictor.size_px, batch_size, keep_pixels, pool):
        loaded = [item for item in batch if isinstance(item, LoadedImage)]
        inv_depths = iter(predictor.run(np.stack([item.resized for item in loaded])) if loaded else ())
        yield [_depth(item, next(inv_depths), predictor.unit_m) if isinstance(item, LoadedImage) else item for item in batch]


def _depth(image: LoadedImage, inv_depth: NDArray[np.float32], unit_m: float | None) -> Depth | InputError:
    if not np.isfinite(inv_depth).all():
        return InputError(
            f"{image.name}: its prediction holds values that are no numbers; the model is damaged: copy, download or export it again"
        )
    return Depth(inv_depth, image.size_px, unit_m, image.source)


def _load_batches(
    images: Iterable[NamedImage], size_px: tuple[int, int], batch_size: int, keep_pixels: bool, pool: ThreadPoolExecutor
) -> Iterator[list[LoadedImage | InputError]]:
    """Batches of decoded images, one batch decoded ahead; an unreadable file is its error."""
    rest = iter(images)
    waiting: deque[list[Future[LoadedImage | InputError]]] = deque()
    while batch := list(islice(rest, batch_size)):
        waiting.append([pool.submit(_load, image, size_px, keep_pixels) for image in batch])
        if len(waiting) == 2:
            yield [future.result() for future in waiting.popleft()]
    for loading in waiting:
        yield [future.result() for future in loading]


def _load(image: NamedImage, size_px: tuple[int, int], keep_pixels: bool) -> LoadedImage | InputError:
    try:
        pixels = image.read()
    except InputError as error:
        return error
    height, width, _ = pixels.shape
    source = pixels if keep_pixels or image.path is None else image.path
    return LoadedImage(image.name, resize_image(Image.fromarray(pixels), size_px), (height, width), source)


def _write(depth: Depth | InputError, path: Path, config: OutputConfig) -> str | None:
    if isinstance(depth, InputError):
        return str(depth)
    try:
        write_prediction(depth, path, config)
    except OSError as error:
        return f"{path}: its prediction cannot be written ({describe_fault(error)})"
    return None
