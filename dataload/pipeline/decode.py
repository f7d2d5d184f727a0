"""Decoding: one image file to one frame of the wanted size on the CPU, by the fastest decoder and the fastest Lanczos this machine has."""

from __future__ import annotations

import importlib.metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from splits.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

JPEG_START = b"\xff\xd8"
# torch has had a uint8 Lanczos on the CPU since 2.13; it makes pillow-simd's pixels, which differ from Pillow's by one level at most.
TORCH_HAS_LANCZOS = hasattr(torch.ops.aten, "_upsample_lanczos2d_aa")


def pillow_is_simd() -> bool:
    """Whether pillow-simd has taken Pillow's place."""
    try:
        return importlib.metadata.version("pillow-simd") == PIL.__version__
    except importlib.metadata.PackageNotFoundError:
        return False


def resizer() -> str:
    """What resizes here, the fastest first: "torch", "pillow-simd" where it is installed, or the much slower "pillow"."""
    if TORCH_HAS_LANCZOS:
        return "torch"
    return "pillow-simd" if pillow_is_simd() else "pillow"


RESIZER = resizer()


def load_frame(path: Path, size_px: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """The frame of a file at ``size_px`` = (height, width); ``InputError`` as ``decode``."""
    return resize(torch.from_numpy(decode(path)), size_px)


def decode(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a JPEG or PNG file.

    Raises:
        InputError: the file cannot be read, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; restore the file, or take its line out of the split") from error
    if data.startswith(JPEG_START):
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass  # Pillow reads a few kinds that simplejpeg refuses (CMYK, harmless garbage), and says best what is wrong with the rest.
    try:
        with Image.open(BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:  # whose words name the bytes, not the file
        raise InputError(f"{path} is a damaged image (or no image at all); restore the file, or take its line out of the split") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is a damaged image ({error}); restore the file, or take its line out of the split") from error


def resize(image: UInt8[Tensor, "h w 3"], size_px: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """Lanczos (a = 3, widened when shrinking) to ``size_px`` = (height, width); at most one level from Pillow's."""
    if RESIZER == "torch":
        # Seen as channels_last, which is how the fast kernel wants it.
        return F.interpolate(image[None].permute(0, 3, 1, 2), size=size_px, mode="lanczos", antialias=True)[0].permute(1, 2, 0)
    height, width = size_px
    resized = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized))
