"""Depth of single images: find them, predict them in batches, write arrays and pictures. What runs the network is passed in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.pictures import colour_disp
from engine.resample import resize
from splits.errors import InputError

EXTENSIONS = ("jpg", "jpeg", "png")
# The ending of our own pictures, which are no input when a folder is predicted again.
PICTURE_ENDING = "_disp.jpeg"
BATCH_SIZE = 8


class Predictor(NamedTuple):
    """A network ready to run, and the facts its weights were trained under.

    Attributes:
        run: images (B,H,W,3) uint8 to disp (B,H,W) float32, the sigmoid output in (0,1).
        size_px: (height, width) of its input. min_depth, max_depth: range of its depth, in its own unit.
        use_stereo: trained on stereo pairs, so that depth times the metric factor is metres.
    """

    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    size_px: tuple[int, int]
    min_depth: float
    max_depth: float
    use_stereo: bool


class Loaded(NamedTuple):
    """One decoded image at the network's size, (H,W,3), and its own size (height, width)."""

    path: Path
    image: NDArray[np.uint8]
    original_size_px: tuple[int, int]


def find_images(path: Path, ext: str | None = None) -> list[Path]:
    """``path`` itself, or the images in that folder, sorted, without our own ``*_disp.jpeg``.

    Args:
        ext: take only this extension of a folder (with or without its dot, any case); None takes jpg, jpeg and png.

    Raises:
        InputError: no such path, no images in it, or two whose outputs would have one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"--image {path} does not exist; give an image or a folder of images")
    wanted = EXTENSIONS if ext is None else (ext.lower().removeprefix("."),)
    files = sorted(p for p in path.iterdir() if p.suffix.lower().removeprefix(".") in wanted and p.is_file())
    images = [p for p in files if not p.name.endswith(PICTURE_ENDING)]
    if not images:
        raise InputError(f"folder {path} holds no {', '.join(wanted)} image; choose others with --ext")
    twice = [stem for stem, count in Counter(p.stem for p in images).items() if count > 1]
    if twice:
        names = " and ".join(p.name for p in images if p.stem == twice[0])
        raise InputError(f"{names} in {path} would write the same {twice[0]}{PICTURE_ENDING}; choose one kind with --ext")
    return images


def predict_images(
    predictor: Predictor, files: Sequence[Path], out: Path | None, *, metric_factor: float | None = None, num_threads: int = 4
) -> Iterator[str | None]:
    """Predict ``files`` and write, beside each or in ``out``, ``<stem>_disp.npy`` and ``<stem>_disp.jpeg``.

    ``<stem>_disp.npy`` is inverse depth (1,1,h,w), float32, at the network's size; with ``metric_factor`` there is ``<stem>_depth.npy``
    instead, depth times that factor. The picture is disp at the image's own size in magma.

    Yields once for each image when it is done: None, or why it could not be read.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(num_threads) as pool:
        writing: list[Future[None]] = []
        for batch in _load_batches(files, predictor.size_px, pool):
            yield from (str(item) for item in batch if isinstance(item, InputError))
            loaded = [item for item in batch if isinstance(item, Loaded)]
            disps = predictor.run(np.stack([item.image for item in loaded])) if loaded else ()
            written = [pool.submit(_write, *pair, predictor, out, metric_factor) for pair in zip(loaded, disps, strict=True)]
            # One batch is written while the next is predicted.
            yield from (done.result() for done in writing)
            writing = written
        yield from (done.result() for done in writing)


def _load_batches(files: Sequence[Path], size_px: tuple[int, int], pool: ThreadPoolExecutor) -> Iterator[list[Loaded | InputError]]:
    """Batches of decoded images, one batch decoded ahead; an unreadable file is its error."""
    waiting: deque[list[Future[Loaded | InputError]]] = deque()
    for first in range(0, len(files), BATCH_SIZE):
        waiting.append([pool.submit(_load, path, size_px) for path in files[first : first + BATCH_SIZE]])
        if len(waiting) == 2:
            yield [future.result() for future in waiting.popleft()]
    for batch in waiting:
        yield [future.result() for future in batch]


def _load(path: Path, size_px: tuple[int, int]) -> Loaded | InputError:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow reports damage in all these ways
        return InputError(f"{path} cannot be read as an image ({error})")
    resized = image.resize((size_px[1], size_px[0]), Image.Resampling.LANCZOS)
    return Loaded(path, np.asarray(resized), (image.height, image.width))


def _write(item: Loaded, disp: NDArray[np.float32], predictor: Predictor, out: Path | None, metric_factor: float | None) -> None:
    folder, stem = out or item.path.parent, item.path.stem
    lowest, highest = 1 / predictor.max_depth, 1 / predictor.min_depth
    inv_depth = (lowest + (highest - lowest) * disp).astype(np.float32)[None, None]
    if metric_factor is None:
        np.save(folder / f"{stem}_disp.npy", inv_depth)
    else:
        np.save(folder / f"{stem}_depth.npy", metric_factor / inv_depth)
    Image.fromarray(colour_disp(resize(disp, item.original_size_px))).save(folder / f"{stem}{PICTURE_ENDING}")
