"""Images brought to a network's size, as training does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.runtime.model_facts import ModelFacts


def resize_image(image: Image.Image, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The image (h,w,3) as the network sees it: LANCZOS to ``size_px``, whatever its own shape."""
    return np.asarray(image.resize((size_px[1], size_px[0]), Image.Resampling.LANCZOS))


def fit_to_model(image: Image.Image, facts: ModelFacts) -> NDArray[np.uint8]:
    """The image (h,w,3) as an exported network takes it: as it is where the graph resizes, else at the network's size."""
    return np.asarray(image) if facts.preprocessing else resize_image(image, facts.size_px)
