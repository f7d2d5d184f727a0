"""The file formats of a prediction, one function each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.system.files import whole_file
from engine.pictures import colour_disp
from engine.resample import resize
from export.choices import OutputConfig

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


class Prediction(NamedTuple):
    """One image's prediction.

    Attributes:
        inv_depth: (h,w), 1 over the network's own unit.
        size_px: (height, width) of the image. image: (H,W,3), which only the point cloud needs.
        unit_m: metres in the network's unit; None where unknown, as for a mono model.
    """

    inv_depth: NDArray[np.float32]
    size_px: tuple[int, int]
    image: NDArray[np.uint8] | None
    unit_m: float | None


def write_prediction(prediction: Prediction, image: Path, config: OutputConfig) -> None:
    """Write every format of ``config``; raises OSError where one cannot be written, and leaves no half file."""
    for name in config.formats:
        with whole_file(config.path(image, name)) as temporary, temporary.open("wb") as file:
            WRITERS[name](prediction, config, file)


def _write_npy(prediction: Prediction, config: OutputConfig, file: BinaryIO) -> None:
    """(1,1,h,w) float32 at the network's size: inverse depth, or with ``metric`` depth in metres."""
    inv_depth = prediction.inv_depth[None, None]
    np.save(file, prediction.unit_m / inv_depth if config.metric and prediction.unit_m else inv_depth)


def _write_png16(prediction: Prediction, config: OutputConfig, file: BinaryIO) -> None:
    """Metres times 256 at the image's size; 0 would mean unknown, so that the least is 1, and from 256 m on all is 65535."""
    values = np.rint(_depth(prediction) * PNG_PER_M).clip(1, np.iinfo(np.uint16).max)
    Image.fromarray(values.astype(np.uint16)).save(file, format="PNG")


def _write_picture(image_format: str) -> Callable[[Prediction, OutputConfig, BinaryIO], None]:
    def write(prediction: Prediction, config: OutputConfig, file: BinaryIO) -> None:
        """Inverse depth at the image's size, in colours."""
        picture = colour_disp(resize(prediction.inv_depth, prediction.size_px), config.colormap)
        Image.fromarray(picture).save(file, format=image_format)

    return write


def _write_ply(prediction: Prediction, config: OutputConfig, file: BinaryIO) -> None:
    """Every pixel as a coloured point, binary little-endian; in metres, or in the network's unit where metres are unknown."""
    assert config.intrinsics is not None
    assert prediction.image is not None
    points = backproject(_depth(prediction), config.intrinsics)
    cloud = np.empty(points.shape[:2], POINT)
    for axis, name in enumerate("xyz"):
        cloud[name] = points[..., axis]
    for channel, name in enumerate(("red", "green", "blue")):
        cloud[name] = prediction.image[..., channel]
    unit = "metres" if prediction.unit_m else "the network's own (mono: the scale is unknown)"
    types = {"<f4": "float", "|u1": "uchar"}
    properties = [f"property {types[POINT[name].str]} {name}" for name in POINT.names or ()]
    header = [
        "ply", "format binary_little_endian 1.0", "comment camera axes: x right, y down, z ahead", f"comment unit: {unit}",
        f"element vertex {cloud.size}", *properties, "end_header",
    ]  # fmt: skip
    file.write(("\n".join(header) + "\n").encode("ascii"))
    file.write(cloud.tobytes())


def _depth(prediction: Prediction) -> NDArray[np.float32]:
    """Depth at the image's size, metres where they are known: the inverse depth is what is resized, as evaluation does."""
    depth: NDArray[np.float32] = (prediction.unit_m or 1.0) / resize(prediction.inv_depth, prediction.size_px)
    return depth


def backproject(depth: NDArray[np.float32], intrinsics: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Points (H,W,3) of depth (H,W): K^-1 (u, v, 1) z, pixel centres at whole numbers; x right, y down, z ahead."""
    fx, fy, cx, cy = intrinsics
    v, u = np.indices(depth.shape, dtype=np.float32)
    return np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)


WRITERS: dict[str, Callable[[Prediction, OutputConfig, BinaryIO], None]] = {
    "npy": _write_npy,
    "png16": _write_png16,
    "jpeg": _write_picture("JPEG"),
    "png": _write_picture("PNG"),
    "ply": _write_ply,
}
