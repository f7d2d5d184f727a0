"""Loading as the published implementation does it, one Pillow call after another: slow, and the measure of both graphs."""

from pathlib import Path

import numpy as np
import torchvision.transforms.functional as TF
from numpy.typing import NDArray
from PIL import Image

from dataload.pipeline.jitter import BRIGHTNESS, CONTRAST, HUE, SATURATION, Factors


def pyramid(path: Path, *, size_px: tuple[int, int], levels: int, flip: bool) -> list[NDArray[np.uint8]]:
    """The frame mirrored at native size, then resized level by level, each from the one before."""
    height, width = size_px
    with Image.open(path) as file:
        image = file.convert("RGB")
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    result = []
    for level in range(levels):
        image = image.resize((width >> level, height >> level), Image.Resampling.LANCZOS)
        result.append(np.asarray(image))
    return result


def jitter(image: NDArray[np.uint8], factors: Factors) -> NDArray[np.uint8]:
    """torchvision's four operations on the Pillow image, each rounding to uint8, in the drawn order."""
    operations = {
        BRIGHTNESS: lambda x: TF.adjust_brightness(x, factors.brightness),
        CONTRAST: lambda x: TF.adjust_contrast(x, factors.contrast),
        SATURATION: lambda x: TF.adjust_saturation(x, factors.saturation),
        HUE: lambda x: TF.adjust_hue(x, factors.hue_turns),
    }
    result = Image.fromarray(image)
    for op in factors.order:
        result = operations[op](result)
    return np.asarray(result)
