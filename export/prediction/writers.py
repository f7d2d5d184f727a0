"""The file formats of a prediction, one function each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.system.files import whole_file
from export.choices import OutputConfig
from export.prediction.depth import Depth

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


def write_prediction(depth: Depth, image: Path, config: OutputConfig) -> None:
    """Write every format of ``config``; raises OSError where one cannot be written, and leaves no half file."""
    for name in config.formats:
        with whole_file(config.path(image, name), flush=False) as temporary, temporary.open("wb") as file:
            WRITERS[name](depth, config, file)


def _write_npy(depth: Depth, config: OutputConfig, file: BinaryIO) -> None:
    """(1,1,h,w) float32 at the network's size: inverse depth, or with ``metric`` depth in metres."""
    np.save(file, (depth.depth_m if config.metric else depth.inv_depth)[None, None])


def _write_png16(depth: Depth, config: OutputConfig, file: BinaryIO) -> None:
    """Metres times 256 at the image's size; 0 would mean unknown, so that the least is 1, and from 256 m on all is 65535."""
    values = np.rint(depth.full_size_depth * PNG_PER_M).clip(1, np.iinfo(np.uint16).max)
    Image.fromarray(values.astype(np.uint16)).save(file, format="PNG")


def _write_picture(image_format: str) -> Callable[[Depth, OutputConfig, BinaryIO], None]:
    def write(depth: Depth, config: OutputConfig, file: BinaryIO) -> None:
        """Inverse depth at the image's size, in colours."""
        depth.colorize(config.colormap).save(file, format=image_format)

    return write


def _write_ply(depth: Depth, config: OutputConfig, file: BinaryIO) -> None:
    """Every pixel as a coloured point, binary little-endian; in metres, or in the network's unit where metres are unknown."""
    assert config.intrinsics is not None
    found = depth.point_cloud(config.intrinsics)
    cloud = np.empty(len(found.points), POINT)
    for axis, name in enumerate("xyz"):
        cloud[name] = found.points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        cloud[name] = found.colours[:, channel]
    unit = "metres" if found.in_metres else "the network's own (mono: the scale is unknown)"
    types = {"<f4": "float", "|u1": "uchar"}
    properties = [f"property {types[POINT[name].str]} {name}" for name in POINT.names or ()]
    header = [
        "ply", "format binary_little_endian 1.0", "comment camera axes: x right, y down, z ahead", f"comment unit: {unit}",
        f"element vertex {cloud.size}", *properties, "end_header",
    ]  # fmt: skip
    file.write(("\n".join(header) + "\n").encode("ascii"))
    file.write(cloud.tobytes())


WRITERS: dict[str, Callable[[Depth, OutputConfig, BinaryIO], None]] = {
    "npy": _write_npy,
    "png16": _write_png16,
    "jpeg": _write_picture("JPEG"),
    "png": _write_picture("PNG"),
    "ply": _write_ply,
}
