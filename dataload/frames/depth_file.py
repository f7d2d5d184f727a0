"""Files of measured depth: 16-bit PNG or TIFF, float TIFF, and numpy's .npy; their values as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splits.errors import InputError

# In the order in which they are looked for.
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
FORMATS = "16-bit PNG or TIFF, float TIFF, or .npy"
# No camera has more; a header may say anything.
MAX_PIXELS = 1 << 28


def read_depth_values(path: Path) -> NDArray[Any]:
    """Values (h, w) of a file of depth, integers or floats as they are stored.

    Raises:
        InputError: damaged, or not one number per pixel.
    """
    return _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path)


def read_depth_levels(path: Path) -> NDArray[np.integer]:
    """Values (h, w) of a 16-bit PNG; ``InputError`` as ``read_depth_values``, and where they are no integers."""
    values = read_depth_values(path)
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"{path} is no 16-bit depth image but of {values.dtype}; fetch it again, unconverted")
    return values


def clean_metres(depth_m: NDArray[np.floating]) -> NDArray[np.float32]:
    """Depth (h, w) float32 where what is no distance (NaN, infinite, below 0) is 0, no measurement."""
    values_m = depth_m.astype(np.float32)
    return np.where(np.isfinite(values_m) & (values_m > 0), values_m, np.float32(0))


def _read_image(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow has several names for damage
        raise InputError(f"{path} cannot be read as an image ({error}); it is damaged: fetch it again") from error
    if not mode.startswith(("I", "F")):
        raise InputError(f"{path} is no 16-bit depth image but of mode {mode}; fetch it again, unconverted, or write {FORMATS}")
    return values


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}); it is damaged: write it again with numpy.save") from error
    shape = tuple(length for length in stored.shape if length != 1) if stored.ndim == 3 else stored.shape
    is_number = np.issubdtype(stored.dtype, np.integer) or np.issubdtype(stored.dtype, np.floating)
    if len(shape) != 2 or not is_number or not 0 < stored.size <= MAX_PIXELS:
        raise InputError(f"{path} is {stored.dtype} of shape {stored.shape}, no depth map; write numbers of shape (height, width)")
    return np.array(stored).reshape(shape)
