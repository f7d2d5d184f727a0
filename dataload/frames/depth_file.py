"""Files of measured depth: 16-bit PNG or TIFF, float TIFF, and numpy's .npy; their values as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.frames.picture import read_bytes
from dataload.frames.picture_bounds import named_picture, open_picture
from dataload.frames.sparse_depth import MOST_SIDE_PX
from dataload.system.arrays import read_array
from splits.errors import InputError
from splits.limits import IMAGE_PIXELS

# In the order in which they are looked for.
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
FORMATS = "16-bit PNG or TIFF, float TIFF, or .npy"
REMEDY = "fetch it again"
IMAGE_FORMATS = ("PNG", "TIFF", "PPM")


def read_depth_values(path: Path) -> NDArray[Any]:
    """Values (h, w) of a file of depth, integers or floats as they are stored.

    Raises:
        InputError: damaged, or not one number per pixel.
    """
    values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_image(path)
    height, width = values.shape
    IMAGE_PIXELS.require(height * width, path)
    if not 1 <= min(values.shape) <= max(values.shape) <= MOST_SIDE_PX:
        raise InputError(f"{path} is {width} x {height} pixels, no depth map; {REMEDY}")
    return values


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
    data = read_bytes(path)
    with named_picture(path, REMEDY), open_picture(data, IMAGE_FORMATS) as image:
        mode = image.mode
        image.load()
        values = np.asarray(image)
    if not mode.startswith(("I", "F")):
        raise InputError(f"{path} is no 16-bit depth image but of mode {mode}; fetch it again, unconverted, or write {FORMATS}")
    return values


def _read_npy(path: Path) -> NDArray[Any]:
    stored = read_array(path, "an array", "it is damaged: write it again with numpy.save")
    shape = tuple(length for length in stored.shape if length != 1) if stored.ndim == 3 else stored.shape
    if len(shape) != 2 or stored.dtype.kind not in "iuf":
        raise InputError(f"{path} is {stored.dtype} of shape {stored.shape}, no depth map; write numbers of shape (height, width)")
    return stored.reshape(shape)
