"""The options of an export, validated once. Light, so that the command's help needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from dataload.config import DataConfig, check_multiple
from dataload.option import annotations_of, check_choice, check_range, kinds_of
from dataload.system.home import expand_home
from engine.choices import DEFAULT_EVAL_SPLIT
from splits.errors import InputError


class TargetLine(NamedTuple):
    """A target before it is used: its module, which follows ``exported.Target``, and its line in the command's help."""

    module: str
    help: str


TARGETS = {
    "onnx": TargetLine("export.targets.file", "a file"),
    "web": TargetLine("export.targets.web", "a page that shows depth in a browser"),
    "hub": TargetLine("export.targets.hub", "weights, config, ONNX and model card, ready to upload"),
}
PRECISIONS = ("fp32", "fp16", "int8")
# In the user's words; ``depth`` becomes ``depth_m`` where metres are known.
OUTPUT_NAMES = ("inv_depth", "depth")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """One export. Paths may be text, in which ``~`` is expanded.

    Attributes:
        weights: run folder or weights folder. out: a file for ``onnx``, a folder for the other targets.
        target: of ``TARGETS``. precision: of ``PRECISIONS``. output: of ``OUTPUT_NAMES``.
        height_px, width_px: None is the size of the training.
        batch_size: images per run; None leaves it open. dynamic_size: so is the size. preprocessing: the graph resizes uint8 images itself.
        with_pose: the pose network too, beside the depth network.
        images: folder of images to calibrate int8 with and to compare with torch on.
        data_path, eval_split: frames with ground truth, on which the cost of the export is measured.
        dataset, image_ext, depth_scale, intrinsics: what they are, as in ``EvalConfig``.
        scores: the JSON of md-eval. licence: a note on the weights; None is what their training data asks for.
        onnxruntime_web: folder or archive of that npm package, None to ask npm for it.
    """

    weights: Path
    out: Path
    target: str = "onnx"
    precision: str = "fp32"
    output: str = "inv_depth"
    height_px: int | None = None
    width_px: int | None = None
    batch_size: int | None = None
    dynamic_size: bool = False
    preprocessing: bool = False
    with_pose: bool = False
    images: Path | None = None
    data_path: Path | None = None
    eval_split: str = DEFAULT_EVAL_SPLIT
    dataset: str = DataConfig.dataset
    image_ext: str | None = None
    depth_scale: float | None = None
    intrinsics: tuple[float, ...] | None = None
    scores: Path | None = None
    licence: str | None = None
    onnxruntime_web: Path | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str) and Path in kinds_of(annotations_of(ExportConfig)[each.name]):
                object.__setattr__(self, each.name, Path(expand_home(value)))
        check_choice("target", self.target, tuple(TARGETS))
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("output", self.output, OUTPUT_NAMES)
        for name, value in (("height", self.height_px), ("width", self.width_px)):
            if value is not None:
                check_multiple(name, value)
        if self.batch_size is not None:
            check_range("batch_size", self.batch_size, above=0)
        if self.precision == "int8" and self.images is None:
            raise InputError(
                "precision=int8 is calibrated on images like those that the model will see: add --images FOLDER, with about a hundred"
            )
        if self.dynamic_size and self.preprocessing:
            raise InputError(
                "--with_preprocessing takes images of any size already and resizes them to the network's; leave out --dynamic_size"
            )
        if self.target == "web" and (self.dynamic_size or self.with_pose):
            raise InputError("target=web resizes in the graph and shows depth alone; leave out --dynamic_size and --with_pose")
        if self.target == "hub" and (self.height_px is not None or self.width_px is not None):
            raise InputError("target=hub holds weights too, whose size is that of their training: leave out --height and --width")
        if self.onnxruntime_web is not None and self.target != "web":
            raise InputError("--onnxruntime_web is for --target web; leave it out")
