"""The options of an evaluation, of md-eval and of ``EvalConfig.from_options``. Plain data: importing this file costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataload.config import DEFAULT_DATA_PATH, DataConfig
from dataload.given import given_options
from dataload.option import option
from engine.choices import ALIGNMENTS, AMP_MODES, ANNOTATED_SPLIT, CROP_NAMES, DEFAULT_EVAL_SPLIT, EVAL_BATCH_SIZE, SERVER_SPLIT

DATA_PATH_HELP = f"Folder of the dataset  [default: {DEFAULT_DATA_PATH}; the demo brings its own]"
EVAL_SPLIT_HELP = (
    f"{DEFAULT_EVAL_SPLIT}, {ANNOTATED_SPLIT}, {SERVER_SPLIT}, odom_9, odom_10 or odom_<sequence>, or a folder with test_files.txt  "
    f"[default: {DEFAULT_EVAL_SPLIT}; the demo brings its own]"
)
WEIGHTS_HELP = (
    "A run folder, a weights folder, a zip, hf:USER/REPO, or a released model (md-predict --help); given several times, all are compared."
)
EXT_DISP_HELP = (
    "Inverse depths (not depths) made elsewhere for the list: .npy (N,h,w) or (N,1,h,w), or numpy.savez('maps.npz', *maps) for maps of "
    "several sizes, or md-predict's folder of their <stem>_disp.npy; may be given several times."
)
EXT_POSES_HELP = (
    "Motions made elsewhere, T_next_previous (points of a frame into the next one), as Monodepth2's poses.npy (N-1,4,4) or N-1 KITTI rows; "
    "or N rows of absolute poses, T_world_camera."
)
STEREO_HELP = "Scale by the model's metres per unit (KITTI: 5.4), whatever --pred_depth_scale_factor says."
FROM_FILES_HELP = "Make the ground truth from the dataset's own files even where md-data gt has saved it."
ALIGNMENT_HELP = "How each image is brought to the truth's scale: its median ratio, or scale and shift of inverse depth by least squares."
CAP_HELP = "Truth at this distance or more is not scored; predictions are clamped to it  [default: 80]"
NUM_LAYERS_HELP = "Not needed, as the weights show it; accepted for Monodepth2's commands."

SIZE_HELP = "Input size of weights that do not record it."

DATA, SUBJECT, SCORING, OUTPUT, MACHINE = "Data", "What is evaluated", "Scoring", "Output", "Machine"
# The loading options that an evaluation has.
DATASET_OPTIONS = ("png", "depth_scale", "intrinsics")
LOADING_OPTIONS = ("num_workers", "loader")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The options that only evaluation has, by their names on the command line; others are ``DataConfig``'s."""

    data_path: Path | None = option(None, DATA_PATH_HELP, heading=DATA)
    dataset: str | None = option(None, "Layout of its files  [default: what the split needs, else kitti]", heading=DATA)
    eval_split: str | None = option(None, EVAL_SPLIT_HELP, heading=DATA, metavar="NAME|FOLDER")
    load_weights_folder: tuple[Path, ...] = option((), WEIGHTS_HELP, heading=SUBJECT, metavar="FOLDER|NAME|hf:USER/REPO")
    all_weights: bool = option(False, "Every weights_<epoch> of the run: a table, and with --report a curve.", heading=SUBJECT)
    ext_disp_to_eval: tuple[Path, ...] = option((), EXT_DISP_HELP, heading=SUBJECT, metavar="FILE")
    eval_eigen_to_benchmark: bool = option(False, f"The file holds the 697 eigen images; score it on {ANNOTATED_SPLIT}.", heading=SUBJECT)
    ext_poses_to_eval: Path | None = option(None, EXT_POSES_HELP, heading=SUBJECT, metavar="FILE")
    post_process: bool = option(False, "Blend with the prediction of the mirrored image.", heading=SUBJECT)
    min_depth: float | None = option(None, "Smallest depth, in the network's unit  [default: the run's, else 0.1]", heading=SUBJECT)
    max_depth: float | None = option(None, "Largest depth, in the network's unit  [default: the run's, else 100]", heading=SUBJECT)
    height: int | None = option(None, SIZE_HELP, heading=SUBJECT, metavar="PX")
    width: int | None = option(None, SIZE_HELP, heading=SUBJECT, metavar="PX")
    num_layers: int | None = option(None, NUM_LAYERS_HELP, heading=SUBJECT)
    eval_from_file: bool = option(False, FROM_FILES_HELP, heading=SCORING)
    eval_mono: bool = option(False, "Scale each prediction by its median ratio to the truth.", heading=SCORING)
    eval_stereo: bool = option(False, STEREO_HELP, heading=SCORING)
    disable_median_scaling: bool = option(False, "No median scaling, even with --eval_mono.", heading=SCORING)
    pred_depth_scale_factor: float = option(1.0, "Multiplies depth before it is aligned.", heading=SCORING)
    alignment: str | None = option(None, ALIGNMENT_HELP, heading=SCORING, choices=ALIGNMENTS[1:])
    crop: str | None = option(
        None,
        f"Part of the image that is scored  [default: garg; none for {ANNOTATED_SPLIT}, evo and folder]",
        heading=SCORING,
        choices=CROP_NAMES,
    )
    cap: float | None = option(None, CAP_HELP, heading=SCORING, metavar="M")
    by_distance: bool = option(False, "Also show the errors by distance of the truth.", heading=OUTPUT)
    json: Path | None = option(None, "Write all scores to this file.", heading=OUTPUT, metavar="FILE")
    csv: Path | None = option(None, "Write one row of errors per image to this file.", heading=OUTPUT, metavar="FILE")
    report: Path | None = option(None, "Write a web page with tables, figures and pictures to this folder.", heading=OUTPUT, metavar="DIR")
    save_pred_disps: bool = option(False, "Save the inverse depths as <load_weights_folder>/disps_<split>_split.npy.", heading=OUTPUT)
    eval_out_dir: Path | None = option(None, "Save predictions in this folder instead.", heading=OUTPUT, metavar="DIR")
    no_eval: bool = option(False, "Stop after saving the predictions.", heading=OUTPUT)
    batch_size: int = option(EVAL_BATCH_SIZE, "Images per pass.", heading=MACHINE)
    amp: str = option("auto", "Precision of the network; auto: fp16 on a GPU, fp32 on a CPU.", heading=MACHINE, choices=AMP_MODES)
    no_cuda: bool = option(False, "Predict on the CPU.", heading=MACHINE)


def evaluation_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of md-eval by name: as given, else its default; raises as ``given_options``."""
    return given_options(given, [EvalOptions, DataConfig], only={DataConfig: (*DATASET_OPTIONS, *LOADING_OPTIONS)})
