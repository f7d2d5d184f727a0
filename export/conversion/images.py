"""The images that an export is calibrated on and compared with torch on: the user's, or rendered streets where none are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from export.config import ExportConfig
from export.prediction.inputs import find_inputs, read_image
from splits.errors import InputError

# Enough to show a difference, and enough for stable ranges of activations.
PARITY_IMAGES, CALIBRATION_IMAGES = 4, 128
RENDERED_SIZE_PX = (376, 1248)

Reader = Callable[[], Image.Image]


class ExportImages(NamedTuple):
    """Readers of images, each called when its image is needed; ``origin`` names their source.

    None of ``for_parity`` is among ``for_calibration``, unless there are too few to divide.
    """

    for_parity: Sequence[Reader]
    for_calibration: Sequence[Reader]
    origin: str


def find_images(config: ExportConfig) -> ExportImages:
    """The images of ``config.images``, spread over the folder; without one, rendered streets.

    Raises:
        InputError: no such folder, no image in it, or a video.
    """
    if config.images is None:
        return ExportImages([partial(_render_street, drive) for drive in range(1, 1 + PARITY_IMAGES)], [], "rendered images")
    files = find_inputs([config.images]).images
    if not files:
        raise InputError(f"--images {config.images} holds no images; give a folder of images like those that the model will see")
    for_parity = spread(files, max(1, min(PARITY_IMAGES, len(files) // 3)))
    rest = [path for path in files if path not in for_parity] or files
    return ExportImages(_readers(for_parity), _readers(spread(rest, CALIBRATION_IMAGES)), f"images of {config.images}")


def _readers(files: Sequence[Path]) -> list[Reader]:
    return [partial(read_image, path) for path in files]


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most that many of ``files``, evenly spread over them."""
    count = min(most, len(files))
    return [files[(2 * i + 1) * len(files) // (2 * count)] for i in range(count)]


def _render_street(drive: int) -> Image.Image:
    from dataload.demo.render import render
    from dataload.demo.textures import make_atlas
    from dataload.demo.world import CAMERAS, WorldConfig, camera_pose, scene_of

    scene = scene_of(WorldConfig(), drive)
    return Image.fromarray(render(scene, make_atlas(), camera_pose(scene, 0, CAMERAS[0]), *RENDERED_SIZE_PX)[0])
