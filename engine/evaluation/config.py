"""The options of an evaluation of depth, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataload.config import LOADERS, DataConfig, check_multiple, size_given
from dataload.datasets import locate
from dataload.option import check_choice, check_range
from dataload.system.console import console
from engine.choices import (
    ALIGNMENTS,
    AMP_MODES,
    ANNOTATED_SPLIT,
    CROP_NAMES,
    DEFAULT_EVAL_SPLIT,
    EVAL_BATCH_SIZE,
    SERVER_SPLIT,
    is_pose_split,
)
from engine.eval_options import evaluation_options
from splits.errors import InputError

# Splits that belong to one dataset.
DATASET_OF_SPLIT = {SERVER_SPLIT: "kitti_test", "evo": "evo"}


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

    @classmethod
    def from_options(cls, **options: Any) -> EvalConfig:
        """The config of md-eval's options by name, with its defaults: ``load_weights_folder=["run"], eval_mono=True, dataset="demo"``.

        ``json``, ``csv`` and ``report`` name files and folders to write, as at the command line. A sequence of odometry (``odom_9``) is for
        ``PoseEvalConfig.from_options``.

        Args:
            options: md-eval's options, without their dashes.

        Raises:
            InputError: an unknown name, with the nearest one; a value of another type or out of its range; values that do not fit together.
        """
        return _eval_config(evaluation_options(options))

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
            raise InputError("--no_eval without --save_pred_disps would write nothing; add --save_pred_disps or leave out --no_eval")
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


def _eval_config(options: Mapping[str, Any]) -> EvalConfig:
    """The config of md-eval's options, every one of them by name.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    if o["ext_poses_to_eval"] is not None:
        raise InputError("--ext_poses_to_eval needs an odometry sequence: --eval_split odom_9 or odom_10")
    if o["eval_split"] is not None and is_pose_split(o["eval_split"]):
        raise InputError(
            f"eval_split={o['eval_split']} is a sequence of odometry: evaluate_pose(PoseEvalConfig.from_options(...)) scores it"
        )
    dataset = o["dataset"] or DATASET_OF_SPLIT.get(o["eval_split"], EvalConfig.dataset)
    data_path, eval_split = locate(dataset, o["data_path"], o["eval_split"], published=DEFAULT_EVAL_SPLIT)
    stereo, factor = o["eval_stereo"], o["pred_depth_scale_factor"]
    # The server expects metres; as published, the metric factor is used there whatever the model was trained on.
    metric = stereo or (eval_split == SERVER_SPLIT and factor == 1.0)
    return EvalConfig(
        data_path=data_path, dataset=dataset, eval_split=eval_split, image_ext=".png" if o["png"] else None,
        depth_scale=o["depth_scale"], intrinsics=o["intrinsics"], size_px=size_given(o["height"], o["width"]),
        from_files=o["eval_from_file"],
        weights_folders=o["load_weights_folder"], all_weights=o["all_weights"], ext_disps=o["ext_disp_to_eval"],
        eigen_to_benchmark=o["eval_eigen_to_benchmark"], post_process=o["post_process"], min_depth=o["min_depth"], max_depth=o["max_depth"],
        alignment=_alignment(o), scale_factor=None if metric else factor, crop=o["crop"], cap_m=o["cap"],
        by_distance=o["by_distance"], json_path=o["json"], csv_path=o["csv"], report=o["report"],
        save_pred_disps=o["save_pred_disps"], no_eval=o["no_eval"], out_dir=o["eval_out_dir"],
        batch_size=o["batch_size"], num_workers=o["num_workers"], loader=o["loader"], amp=o["amp"], no_cuda=o["no_cuda"],
    )  # fmt: skip


def _alignment(options: Mapping[str, Any]) -> str:
    """Which of ``ALIGNMENTS`` the options mean; with neither --eval_mono nor --eval_stereo, the median where nothing else decides.

    Raises:
        InputError: both of them, or neither where a network's predictions are scored.
    """
    o = options
    if o["eval_mono"] and o["eval_stereo"]:
        raise InputError("give either --eval_mono (scale by the median) or --eval_stereo (scale by the dataset's metric factor), not both")
    if o["alignment"] is not None:
        if o["disable_median_scaling"]:
            raise InputError(f"--alignment {o['alignment']} and --disable_median_scaling exclude each other; leave one out")
        return str(o["alignment"])
    if o["eval_stereo"] or o["disable_median_scaling"]:
        return "none"
    scored = not o["no_eval"] and o["eval_split"] != SERVER_SPLIT
    if scored and not o["eval_mono"]:
        if o["load_weights_folder"]:
            raise InputError("give either --eval_mono (scale by the median) or --eval_stereo (scale by the dataset's metric factor)")
        if o["ext_disp_to_eval"]:
            console.warning("neither --eval_mono nor --eval_stereo: each image is scaled by its median ratio, as with --eval_mono")
    return "median"
