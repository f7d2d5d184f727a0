"""The options of an evaluation, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataload.config import LOADERS
from engine.choices import check_choice, check_positive
from engine.config import AMP_MODES
from splits.errors import InputError

PROTOCOL_NAMES = ("eigen", "all_gt")
# Published: every ground-truth pixel counts on the annotated depth, the Eigen protocol's on laser scans.
PROTOCOL_OF_SPLIT = {"eigen_benchmark": "all_gt"}
DEFAULT_EVAL_SPLIT = "eigen"
EVAL_BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """An evaluation: predictions of ``weights_folder`` or the disparities in ``ext_disp``, scored on the test list of ``eval_split``.

    ``scale_factor`` multiplies depth before ``median_scaling``; ``min_depth`` and ``max_depth`` are None where the run's own hold.
    """

    data_path: Path
    dataset: str = "kitti"
    eval_split: str = DEFAULT_EVAL_SPLIT
    image_ext: str = ".jpg"
    weights_folder: Path | None = None
    ext_disp: Path | None = None
    median_scaling: bool = True
    scale_factor: float = 1.0
    post_process: bool = False
    save_pred_disps: bool = False
    no_eval: bool = False
    min_depth: float | None = None
    max_depth: float | None = None
    protocol: str = "eigen"
    json_path: Path | None = None
    batch_size: int = EVAL_BATCH_SIZE
    num_workers: int = 12
    no_cuda: bool = False
    amp: str = "auto"
    loader: str = "auto"

    def __post_init__(self) -> None:
        if (self.weights_folder is None) == (self.ext_disp is None):
            raise InputError("give either --load_weights_folder FOLDER or --ext_disp_to_eval FILE: what is to be evaluated")
        if self.ext_disp is not None and (self.post_process or self.save_pred_disps or self.no_eval):
            raise InputError("--post_process, --save_pred_disps and --no_eval need a network; leave them out with --ext_disp_to_eval")
        if self.no_eval and not self.save_pred_disps:
            raise InputError("--no_eval without --save_pred_disps would leave nothing; add --save_pred_disps or leave --no_eval out")
        if self.eval_split == "benchmark":
            raise InputError("eval_split=benchmark has no public ground truth; choose eigen, eigen_benchmark or a folder")
        for name in ("scale_factor", "batch_size"):
            check_positive(name, getattr(self, name))
        for name in ("min_depth", "max_depth"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_positive("num_workers", self.num_workers, zero=True)
        check_choice("protocol", self.protocol, PROTOCOL_NAMES)
        check_choice("amp", self.amp, AMP_MODES)
        check_choice("loader", self.loader, LOADERS)
