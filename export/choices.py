"""The names on md-predict's command line and what a prediction is to write. Light, so that the command's help needs no numpy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from dataload.option import check_choice
from engine.choices import COLORMAPS
from splits.errors import InputError

# What an ONNX file can run on; auto is the best of this machine's.
PROVIDER_NAMES = ("auto", "cpu", "cuda", "tensorrt")
# What the output of an ONNX file without md-export's metadata can be said to be.
ASSUMED_OUTPUTS = ("disp", "inv_depth", "depth")
ONNX_SUFFIX = ".onnx"
# Its name in the folder that --target hub writes.
HUB_ONNX_FILE = "model.onnx"
# What each format adds to the image's stem; the functions that write them stand in ``writers.WRITERS``.
ENDINGS = {"npy": "_disp.npy", "png16": "_depth.png", "jpeg": "_disp.jpeg", "png": "_disp.png", "ply": ".ply"}
FORMATS = tuple(ENDINGS)
DEFAULT_FORMATS = ("npy", "jpeg")
METRIC_NPY_ENDING = "_depth.npy"
VIDEO_ENDING = "_depth.mp4"


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is written of each image.

    Attributes:
        formats: of ``FORMATS``. folder: where to; None is beside each image. colormap: of ``COLORMAPS``.
        metric: the array is depth in metres instead of inverse depth.
        intrinsics: fx, fy, cx, cy of the point cloud, in pixels of the upright image, whose first pixel's centre is at 0, 0.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    folder: Path | None = None
    colormap: str = COLORMAPS[0]
    metric: bool = False
    intrinsics: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"--format {name} is unknown; {suggest(name, FORMATS)}")
        if not self.formats:
            raise InputError(f"--format names no format; choose from {', '.join(FORMATS)}")
        check_choice("colormap", self.colormap, COLORMAPS)
        if "ply" in self.formats and self.intrinsics is None:
            raise InputError("--format ply needs --intrinsics FX FY CX CY: the camera's focal lengths and centre, in pixels of the image")
        if self.intrinsics is not None and "ply" not in self.formats:
            raise InputError("--intrinsics is for point clouds; add --format ply, or leave it out")
        if self.intrinsics is not None and not (all(map(isfinite, self.intrinsics)) and min(self.intrinsics[:2]) > 0):
            given = " ".join(f"{value:g}" for value in self.intrinsics)
            raise InputError(f"--intrinsics {given}: all must be finite, and the focal lengths FX and FY above 0 pixels")

    def path(self, image: Path, name: str) -> Path:
        """The file of format ``name`` for ``image``."""
        ending = METRIC_NPY_ENDING if name == "npy" and self.metric else ENDINGS[name]
        return (self.folder or image.parent) / f"{image.stem}{ending}"

    def video_path(self, video: Path) -> Path:
        """The mp4 of a video."""
        return (self.folder or video.parent) / f"{video.stem}{VIDEO_ENDING}"

    def needs_metres(self) -> str | None:
        """The option that only a model with metric depth can serve, None without one."""
        if self.metric:
            return "--pred_metric_depth"
        return "--format png16" if "png16" in self.formats else None


def is_onnx(model: Path) -> bool:
    """Whether a model's path names an ONNX file, or a folder of ``--target hub`` of which only that file is there or can be run."""
    if model.suffix.lower() == ONNX_SUFFIX:
        return True
    if not (model / HUB_ONNX_FILE).is_file():
        return False
    if (model / "model.safetensors").is_file():
        return find_spec("torch") is None
    # People export into their runs' folders too.
    return not any(any(model.glob(pattern)) for pattern in ("encoder.*", "models", "weights_*", "step_*"))


def suggest(name: str, choices: Sequence[str]) -> str:
    """The end of a message on a mistyped ``name``: the nearest of ``choices``, and all of them."""
    near = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean {near[0]}? The choices are {', '.join(choices)}" if near else f"choose from {', '.join(choices)}"
