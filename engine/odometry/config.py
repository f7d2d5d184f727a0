"""The options of an evaluation of ego-motion, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataload.config import DEFAULT_DATA_PATH, LOADERS, DataConfig
from dataload.option import check_choice, check_range
from engine.choices import AMP_MODES, EVAL_BATCH_SIZE, POSE_SPLIT
from engine.eval_options import evaluation_options
from splits.errors import InputError

# Sequences of the odometry benchmark whose poses are kept back.
HIDDEN_SEQUENCES = range(11, 22)
# Options of md-eval that only make sense for depth.
DEPTH_ONLY = ("ext_disp_to_eval", "all_weights", "post_process", "by_distance", "csv", "save_pred_disps", "no_eval")
SPLIT_FORM = "odom_9, odom_10, or odom_<number> of another sequence with poses"


@dataclass(frozen=True, kw_only=True)
class PoseEvalConfig:
    """An evaluation of ego-motion on one sequence: the pose network of ``weights_folder``, or the motions in ``ext_poses``.

    ``height_px`` and ``width_px`` are None where the weights' own hold. Trajectories go to ``out_dir``, else beside the weights; those of
    ``ext_poses`` are written only where a folder is given. ``report`` is a folder for a page with the plot.
    """

    data_path: Path
    sequence: int
    weights_folder: Path | None = None
    ext_poses: Path | None = None
    out_dir: Path | None = None
    json_path: Path | None = None
    report: Path | None = None
    image_ext: str = DataConfig.image_ext
    height_px: int | None = None
    width_px: int | None = None
    batch_size: int = EVAL_BATCH_SIZE
    num_workers: int = DataConfig.num_workers
    loader: str = DataConfig.loader
    amp: str = "auto"
    no_cuda: bool = False

    @classmethod
    def from_options(cls, **options: Any) -> PoseEvalConfig:
        """The config of md-eval's options by name, with its defaults: ``eval_split="odom_9", load_weights_folder=["run"]``.

        Args:
            options: md-eval's options, without their dashes.

        Raises:
            InputError: an unknown name, with the nearest one; a value of another type or out of its range; values that do not fit together.
        """
        return pose_config(evaluation_options(options))

    def __post_init__(self) -> None:
        if (self.weights_folder is None) == (self.ext_poses is None):
            raise InputError("give either --load_weights_folder FOLDER or --ext_poses_to_eval FILE: whose motions are to be evaluated")
        if self.ext_poses is not None and not (self.height_px is None and self.width_px is None):
            raise InputError("--height and --width are a network's input size; leave them out with --ext_poses_to_eval")
        check_range("sequence", self.sequence, least=0)
        check_range("batch_size", self.batch_size, above=0)
        check_range("num_workers", self.num_workers, least=0)
        check_choice("amp", self.amp, AMP_MODES)
        check_choice("loader", self.loader, LOADERS)


def pose_sequence(eval_split: str) -> int | None:
    """The sequence number of ``odom_9``; None where the split is none of odometry.

    Raises:
        InputError: an odometry split without a number, or of a sequence without public poses.
    """
    match = POSE_SPLIT.fullmatch(eval_split)
    if match is None:
        return None
    number = match[1] or ""
    if not (number.isascii() and number.isdigit()):
        raise InputError(f"eval_split={eval_split} names no sequence of KITTI odometry; give {SPLIT_FORM}")
    if int(number) in HIDDEN_SEQUENCES:
        raise InputError(f"eval_split={eval_split}: sequences 11 to 21 have no public poses; give {SPLIT_FORM}")
    return int(number)


def pose_config(options: Mapping[str, Any]) -> PoseEvalConfig:
    """The config of md-eval's options as parsed.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    sequence = pose_sequence(o["eval_split"] or "")
    if sequence is None:
        raise InputError(f"eval_split={o['eval_split']} is no sequence of odometry; give {SPLIT_FORM}")
    given = [f"--{name}" for name in DEPTH_ONLY if o.get(name)]
    if given:
        raise InputError(f"{', '.join(given)} is for depth; leave it out with --eval_split {o['eval_split']}, or give a split of depth")
    folders: tuple[Path, ...] = o["load_weights_folder"] or ()
    if len(folders) > 1:
        raise InputError(f"--load_weights_folder is given {len(folders)} times; ego-motion is evaluated for one model at a time")
    return PoseEvalConfig(
        data_path=o["data_path"] or DEFAULT_DATA_PATH, sequence=sequence, image_ext=".png" if o["png"] else ".jpg",
        weights_folder=folders[0] if folders else None, ext_poses=o["ext_poses_to_eval"],
        out_dir=o["eval_out_dir"], json_path=o["json"], report=o["report"], height_px=o["height"], width_px=o["width"],
        batch_size=o["batch_size"], num_workers=o["num_workers"], loader=o["loader"], amp=o["amp"], no_cuda=o["no_cuda"],
    )  # fmt: skip
