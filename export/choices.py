"""The names on md-predict's command line and what a prediction is to write. Light, so that the command's help needs no numpy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from dataload.config import check_multiple, size_given
from dataload.option import check_choice, check_range
from engine.choices import AMP_MODES, COLORMAPS
from splits.errors import InputError

# What an ONNX file can run on; auto is the best that this machine has.
PROVIDER_NAMES = ("auto", "cpu", "cuda", "tensorrt")
# What the user may say that the output of an ONNX file without md-export's metadata is.
ASSUMED_OUTPUTS = ("disp", "inv_depth", "depth")
ONNX_SUFFIX = ".onnx"
# Its name in the folder that --target hub writes.
HUB_ONNX_FILE = "model.onnx"
# What each format adds to the image's stem; the functions that write them are in ``writers.WRITERS``.
ENDINGS = {"npy": "_disp.npy", "png16": "_depth.png", "jpeg": "_disp.jpeg", "png": "_disp.png", "ply": ".ply"}
FORMATS = tuple(ENDINGS)
DEFAULT_FORMATS = ("npy", "jpeg")
METRIC_NPY_ENDING = "_depth.npy"
VIDEO_ENDING = "_depth.mp4"


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is written for each image.

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
        if self.intrinsics is not None:
            check_intrinsics("--intrinsics", self.intrinsics)

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


@dataclass(frozen=True, kw_only=True)
class AssumedFacts:
    """What a user gives for a file that md-export did not write; what its graph records may stay None.

    Attributes:
        output: of ``ASSUMED_OUTPUTS``. min_depth, max_depth: the range that ``disp`` spans, in the network's unit.
        size_px: (height, width) of the images to feed, where the graph leaves it open.
    """

    output: str | None = None
    min_depth: float | None = None
    max_depth: float | None = None
    size_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.output is not None:
            check_choice("onnx_output", self.output, ASSUMED_OUTPUTS)
        bounds = {"min_depth": self.min_depth, "max_depth": self.max_depth}
        depths = {name: value for name, value in bounds.items() if value is not None}
        if depths and self.output not in (None, "disp"):
            raise InputError(f"--onnx_output {self.output} has no range; leave out --{' and --'.join(depths)}")
        for name, value in (*depths.items(), *zip(("height", "width"), self.size_px or (), strict=False)):
            check_range(name, value, above=0)
        if len(depths) == 2 and depths["min_depth"] >= depths["max_depth"]:
            raise InputError(f"min_depth={self.min_depth:g} must be below max_depth={self.max_depth:g}")

    def options(self) -> list[str]:
        """The options that were given."""
        names = {
            "output": ["--onnx_output"],
            "min_depth": ["--min_depth"],
            "max_depth": ["--max_depth"],
            "size_px": ["--height", "--width"],
        }
        return [option for name, options in names.items() if getattr(self, name) is not None for option in options]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model predicts, and how it is run; raises ``InputError`` where an option is for the other kind of model.

    Attributes:
        model: what ``find_model`` takes. no_cuda: run it on the CPU.
        amp: precision of weights, of ``AMP_MODES``. provider: what an ONNX file runs on, of ``PROVIDER_NAMES``.
        height_px, width_px: input size of weights that record none, or of an ONNX file that leaves it open.
        onnx_output, min_depth, max_depth: as in ``AssumedFacts``.
    """

    model: Path
    no_cuda: bool = False
    amp: str = "auto"
    provider: str = "auto"
    height_px: int | None = None
    width_px: int | None = None
    onnx_output: str | None = None
    min_depth: float | None = None
    max_depth: float | None = None

    def __post_init__(self) -> None:
        check_choice("amp", self.amp, AMP_MODES)
        check_choice("provider", self.provider, PROVIDER_NAMES)
        size_px = self.size_px
        if is_onnx(self.model):
            if self.amp != "auto":
                raise InputError(
                    f"--amp {self.amp}: an ONNX file computes in the precision it was exported with; see md-export --precision"
                )
            if self.no_cuda and self.provider not in ("auto", "cpu"):
                raise InputError(f"--no_cuda and --provider {self.provider} contradict each other; leave one out")
            _ = self.assumed  # checked
            return
        for name, px in zip(("height", "width"), size_px or (), strict=False):
            check_multiple(name, px)
        for name in ("provider", "onnx_output", "min_depth", "max_depth"):
            if getattr(self, name) not in (None, "auto"):
                raise InputError(f"--{name} is for ONNX files, and --model {self.model} is a checkpoint; leave it out")

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width) where they are given; ``InputError`` where only one is."""
        return size_given(self.height_px, self.width_px)

    @property
    def assumed(self) -> AssumedFacts | None:
        """What the options give for an ONNX file that does not describe itself; None where they give nothing."""
        said = AssumedFacts(output=self.onnx_output, min_depth=self.min_depth, max_depth=self.max_depth, size_px=self.size_px)
        return said if said.options() else None


def check_intrinsics(name: str, intrinsics: tuple[float, float, float, float]) -> None:
    """Raise InputError, which calls them ``name``, unless fx, fy, cx, cy are a camera's."""
    if not (all(map(isfinite, intrinsics)) and min(intrinsics[:2]) > 0):
        given = " ".join(f"{value:g}" for value in intrinsics)
        raise InputError(f"{name} {given}: all must be finite, and the focal lengths FX and FY above 0 pixels")


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
