"""One image file to one frame of the wanted size on the CPU, by the fastest Lanczos this machine has."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image

from dataload.frames.picture import read_picture

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

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
    """The frame of a file at ``size_px`` = (height, width); ``InputError`` as ``read_picture``."""
    return resize(torch.from_numpy(read_picture(path)), size_px)


def resize(image: UInt8[Tensor, "h w 3"], size_px: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """Lanczos (a = 3, widened when shrinking) to ``size_px`` = (height, width); at most one level from Pillow's."""
    if RESIZER == "torch":
        # Seen as channels_last, which is how the fast kernel wants it.
        return F.interpolate(image[None].permute(0, 3, 1, 2), size=size_px, mode="lanczos", antialias=True)[0].permute(1, 2, 0)
    height, width = size_px
    resized = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized))
