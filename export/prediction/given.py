"""The images that ``DepthModel.predict`` is given, in whichever of their forms, as pixels."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.frames.picture import pixels_of, read_picture
from dataload.system.home import expand_home
from export.prediction.predict import NamedImage
from splits.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor"
FORMS = (
    "a path, a PIL image, a uint8 array (H, W, 3), a torch tensor (3, H, W), a batch of these with one dimension more, or a list of them"
)


def is_one(images: object) -> bool:
    """Whether ``images`` is one image, no list or batch."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return True
    if isinstance(images, np.ndarray) and images.ndim > 0 and images.dtype.kind in "OTU":  # of paths, or of images of several sizes
        return False
    return (isinstance(images, np.ndarray) or _is_tensor(images)) and getattr(images, "ndim", 0) < 4


def named_images(images: Any, name: str = "images") -> Iterator[NamedImage]:
    """Each of the images that ``images`` means, in order, under a name for messages.

    Files are read later, by whoever calls ``read``. All else is read here, when its turn comes: the next turn may fill the same buffer or
    close the picture, and Pillow's images cannot be read by two threads at once.

    Raises:
        InputError: there is none, or what is no image or cannot be read.
    """
    if is_one(images):
        yield _named(images, name)
        return
    if not isinstance(images, Iterable) or isinstance(images, (Mapping, bytes, bytearray, io.IOBase)):
        raise InputError(f"{name} is {_kind(images)}; give {FORMS}")
    number = -1
    for number, each in enumerate(images):
        yield from named_images(each, f"{name}[{number}]")
    if number < 0:
        raise InputError(f"{name} is empty; give one image or more")


def _named(image: Any, name: str) -> NamedImage:
    if isinstance(image, (str, os.PathLike)):
        path = Path(expand_home(os.fspath(image)))
        return NamedImage(str(path), path, partial(_pixels_of_file, path))
    if isinstance(image, Image.Image):
        pixels = pixels_of(image, name)
    elif isinstance(image, np.ndarray):
        pixels = _pixels_of_array(image, name)
    else:
        pixels = _pixels_of_tensor(image, name)
    return NamedImage(name, None, lambda: pixels)


def _pixels_of_file(path: Path) -> NDArray[np.uint8]:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give its files, for example sorted(Path({str(path)!r}).glob('*.jpg'))")
    return read_picture(path)


def _pixels_of_array(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    shown = f"{name} is an array {image.dtype} {image.shape}"
    if image.dtype != np.uint8:
        raise InputError(f"{shown}; give uint8 levels, 0 to 255 (of floats in 0..1: (255 * image).round().astype('uint8'))")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        turned = "; transpose(1, 2, 0) turns it so" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise InputError(f"{shown}; give (H, W, 3), RGB{turned}")
    return np.array(image, order="C")


def _pixels_of_tensor(image: Tensor, name: str) -> NDArray[np.uint8]:
    import torch

    shown = f"{name} is a tensor {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    if image.dtype != torch.uint8 and not image.dtype.is_floating_point:
        raise InputError(f"{shown}; give uint8 levels, 0 to 255, or floats in 0..1")
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        turned = "; permute(2, 0, 1) turns it so" if image.ndim == 3 and image.shape[2] == 3 else ""
        raise InputError(f"{shown}; give (3, H, W), RGB{turned}")
    levels = image.detach()
    if levels.dtype != torch.uint8:
        levels = levels.float()
        low, high = levels.min().item(), levels.max().item()
        if not (low >= 0 and high <= 1):
            raise InputError(f"{shown} with values from {low:g} to {high:g}; floats must be in 0..1: undo what normalised them")
        levels = (levels * 255).round().to(torch.uint8)
    return np.array(levels.permute(1, 2, 0).cpu().numpy(), order="C")


def _is_tensor(image: object) -> bool:
    """Whether it is one of torch's, which need not be installed: who has made a tensor has imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _kind(given: object) -> str:
    return f"of type {type(given).__name__}"
