"""Depth of single images: load them, predict them in batches, write them. The network's runner is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.choices import OutputConfig
from export.prediction.inputs import read_image
from export.prediction.writers import Prediction, write_prediction
from export.runtime.model_facts import ModelFacts
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


class LoadedImage(NamedTuple):
    """One decoded image at the network's size, (h,w,3), its own size (height, width), and itself (H,W,3) where it is needed."""

    path: Path
    resized: NDArray[np.uint8]
    size_px: tuple[int, int]
    image: NDArray[np.uint8] | None


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
    keep_image = "ply" in config.formats
    with ThreadPoolExecutor(num_threads) as pool:
        writing: list[Future[str | None]] = []
        for batch in _load_batches(files, predictor.size_px, keep_image, pool):
            yield from (str(item) for item in batch if isinstance(item, InputError))
            loaded = [item for item in batch if isinstance(item, LoadedImage)]
            inv_depths = predictor.run(np.stack([item.resized for item in loaded])) if loaded else ()
            written = []
            for item, inv_depth in zip(loaded, inv_depths, strict=True):
                prediction = Prediction(inv_depth, item.size_px, item.image, predictor.unit_m)
                written.append(pool.submit(_write, prediction, item.path, config))
            # One batch is written while the next is predicted.
            yield from (done.result() for done in writing)
            writing = written
        yield from (done.result() for done in writing)


def _load_batches(
    files: Sequence[Path], size_px: tuple[int, int], keep_image: bool, pool: ThreadPoolExecutor
) -> Iterator[list[LoadedImage | InputError]]:
    """Batches of decoded images, one batch decoded ahead; an unreadable file is its error."""
    waiting: deque[list[Future[LoadedImage | InputError]]] = deque()
    for first in range(0, len(files), BATCH_SIZE):
        waiting.append([pool.submit(_load, path, size_px, keep_image) for path in files[first : first + BATCH_SIZE]])
        if len(waiting) == 2:
            yield [future.result() for future in waiting.popleft()]
    for batch in waiting:
        yield [future.result() for future in batch]


def _load(path: Path, size_px: tuple[int, int], keep_image: bool) -> LoadedImage | InputError:
    try:
        image = read_image(path)
    except InputError as error:
        return error
    return LoadedImage(path, resize_image(image, size_px), (image.height, image.width), np.asarray(image) if keep_image else None)


def resize_image(image: Image.Image, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The image (h,w,3) as the network sees it: LANCZOS to ``size_px``, whatever its own shape."""
    return np.asarray(image.resize((size_px[1], size_px[0]), Image.Resampling.LANCZOS))


def fit_to_model(image: Image.Image, facts: ModelFacts) -> NDArray[np.uint8]:
    """The image (h,w,3) as an exported network takes it: as it is where the graph resizes, else at the network's size."""
    return np.asarray(image) if facts.preprocessing else resize_image(image, facts.size_px)


def _write(prediction: Prediction, path: Path, config: OutputConfig) -> str | None:
    if not np.isfinite(prediction.inv_depth).all():
        return f"{path}: its prediction holds values that are no numbers; the model is damaged: copy, download or export it again"
    try:
        write_prediction(prediction, path, config)
    except OSError as error:
        return f"{path}: its prediction cannot be written ({describe_fault(error)})"
    return None
