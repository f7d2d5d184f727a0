"""The options of an evaluation of depth, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataload.config import LOADERS, DataConfig, check_multiple
from dataload.option import check_choice, check_range
from engine.choices import AMP_MODES, EVAL_BATCH_SIZE
from splits.errors import InputError

CROP_NAMES = ("garg", "eigen", "none")
ALIGNMENTS = ("none", "median", "lstsq")
DEFAULT_EVAL_SPLIT = "eigen"
# Annotated depth, of which every pixel counts, as published.
ANNOTATED_SPLIT = "eigen_benchmark"
# The depth benchmark's own test images: only its server has their truth, and takes 16-bit PNG files.
SERVER_SPLIT = "benchmark"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """An evaluation: what ``weights_folders`` predict and ``ext_disps`` hold, scored on the test list of ``eval_split``.

    ``scale_factor`` multiplies depth before ``alignment``; None stands for the metres in the model's unit. ``all_depth``: every measured
    pixel is scored, as on annotated depth. ``from_files``: the ground truth is made even where it is kept. ``min_depth`` and ``max_depth``
    are None where the run's own hold, ``image_ext`` where the dataset's does, ``crop`` and ``cap_m`` (metres) where the published protocol
    of the split holds. ``all_weights`` means every epoch of each run folder. ``depth_scale`` and ``intrinsics`` are as in ``DataConfig``;
    ``run_image_ext`` is that of the runs, used where the list's images have it. ``size_px`` (height, width) is the input size of weights
    that record none.
    """

    data_path: Path
    dataset: str = DataConfig.dataset
    eval_split: str = DEFAULT_EVAL_SPLIT
    image_ext: str | None = None
    depth_scale: float | None = None
    intrinsics: tuple[float, ...] | None = None
    run_image_ext: str | None = None
    size_px: tuple[int, int] | None = None
    weights_folders: tuple[Path, ...] = ()
    all_weights: bool = False
    ext_disps: tuple[Path, ...] = ()
    eigen_to_benchmark: bool = False
    alignment: str = "median"
    scale_factor: float | None = 1.0
    all_depth: bool = False
    from_files: bool = False
    crop: str | None = None
    cap_m: float | None = None
    post_process: bool = False
    save_pred_disps: bool = False
    no_eval: bool = False
    min_depth: float | None = None
    max_depth: float | None = None
    out_dir: Path | None = None
    json_path: Path | None = None
    csv_path: Path | None = None
    by_distance: bool = False
    report: Path | None = None
    batch_size: int = EVAL_BATCH_SIZE
    num_workers: int = DataConfig.num_workers
    no_cuda: bool = False
    amp: str = "auto"
    loader: str = DataConfig.loader

    @property
    def for_server(self) -> bool:
        """Depth images for the KITTI server are made; nothing is scored."""
        return self.eval_split == SERVER_SPLIT

    @property
    def details(self) -> bool:
        """Errors by distance are wanted, not the published means alone."""
        return self.by_distance or self.report is not None or self.json_path is not None

    def __post_init__(self) -> None:
        self._check_subjects()
        if self.scale_factor is not None:
            check_range("pred_depth_scale_factor", self.scale_factor, above=0)
        check_range("batch_size", self.batch_size, above=0)
        for name, value in (("min_depth", self.min_depth), ("max_depth", self.max_depth), ("cap", self.cap_m)):
            if value is not None:
                check_range(name, value, above=0)
        for name, size in zip(("height", "width"), self.size_px or (), strict=False):
            check_multiple(name, size)
        check_range("num_workers", self.num_workers, least=0)
        check_choice("alignment", self.alignment, ALIGNMENTS)
        if self.crop is not None:
            check_choice("crop", self.crop, CROP_NAMES)
        check_choice("amp", self.amp, AMP_MODES)
        check_choice("loader", self.loader, LOADERS)

    def _check_subjects(self) -> None:
        if not self.weights_folders and not self.ext_disps:
            raise InputError("give --load_weights_folder FOLDER or --ext_disp_to_eval FILE: what is to be evaluated")
        if not self.weights_folders and (self.post_process or self.save_pred_disps or self.no_eval or self.all_weights):
            raise InputError(
                "--post_process, --save_pred_disps, --no_eval and --all_weights need a network: add --load_weights_folder FOLDER"
            )
        if self.no_eval and not self.save_pred_disps and not self.for_server:
            raise InputError("--no_eval without --save_pred_disps would leave nothing; add --save_pred_disps or leave --no_eval out")
        if self.for_server and (self.all_weights or len(self.weights_folders) + len(self.ext_disps) > 1):
            raise InputError("eval_split=benchmark makes one submission: give one --load_weights_folder or one --ext_disp_to_eval")
        scored = [name for name in ("report", "json_path", "csv_path") if getattr(self, name) is not None]
        if scored and (self.for_server or self.no_eval):
            why = "eval_split=benchmark has no public ground truth" if self.for_server else "--no_eval scores nothing"
            raise InputError(f"{why}: leave out --{scored[0].removesuffix('_path')}")
        if self.eigen_to_benchmark and (self.weights_folders or self.eval_split != ANNOTATED_SPLIT):
            raise InputError(
                "--eval_eigen_to_benchmark picks the 652 benchmark images out of an --ext_disp_to_eval file of the 697 eigen ones: "
                f"give such a file and --eval_split {ANNOTATED_SPLIT}"
            )
