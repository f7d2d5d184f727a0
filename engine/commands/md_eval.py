"""``md-eval``: the page of options; parse, build the config, call."""

from __future__ import annotations

from typing import Any

import click

from dataload.commands.command import NameOrFolder, folder_path, usage_errors
from dataload.commands.options import TEST_SPLITS, DatasetName, GroupedCommand, config_options, option_group, size_given
from dataload.config import DEFAULT_DATA_PATH, DEPTH_SCALE_HELP, INTRINSICS_HELP, DataConfig
from dataload.datasets import locate
from engine.choices import AMP_MODES
from engine.evaluation.config import ALIGNMENTS, ANNOTATED_SPLIT, CROP_NAMES, DEFAULT_EVAL_SPLIT, SERVER_SPLIT, EvalConfig
from engine.odometry.config import PoseEvalConfig, pose_config, pose_sequence
from engine.released import RELEASED
from splits.errors import InputError

DATA_PATH_HELP = f"Folder of the dataset  [default: {DEFAULT_DATA_PATH}; the demo brings its own]"
EVAL_SPLIT_HELP = (
    f"{DEFAULT_EVAL_SPLIT}, {ANNOTATED_SPLIT}, {SERVER_SPLIT}, odom_9, odom_10 or odom_<sequence>, or a folder with test_files.txt  "
    f"[default: {DEFAULT_EVAL_SPLIT}; the demo brings its own]"
)
WEIGHTS_HELP = (
    "A run folder, a weights folder, a zip, hf:USER/REPO, or a released model (md-predict --help); given several times, all are compared."
)
EXT_DISP_HELP = (
    "Inverse depths (not depths) of the list made elsewhere: .npy (N,h,w) or (N,1,h,w), or numpy.savez('maps.npz', *maps) for maps of "
    "several sizes, or md-predict's folder of their <stem>_disp.npy; may be given several times."
)
EXT_POSES_HELP = (
    "Motions made elsewhere, T_next_previous (points of a frame into the next one), as Monodepth2's poses.npy (N-1,4,4) or N-1 KITTI rows; "
    "or N rows of absolute poses, T_world_camera."
)
STEREO_HELP = "Scale by the metres in the model's unit (KITTI: 5.4), whatever --pred_depth_scale_factor says."
FROM_FILES_HELP = "Make the ground truth from the dataset's own files even where md-data gt has kept it."
ALIGNMENT_HELP = "How each image is brought to the truth's scale: its median ratio, or scale and shift of inverse depth by least squares."
CAP_HELP = "Truth from here on is not scored, predictions are clamped to it  [default: 80]"
NUM_LAYERS_HELP = "Not needed: read off the weights. Taken for the sake of Monodepth2's commands."

SIZE_HELP = "Input size of weights that do not record it."
# What a run recorded of its dataset holds where an option does not say otherwise.
RUN_FACTS = {
    "depth_scale": {"help": f"{DEPTH_SCALE_HELP}  [default: the run's, calibration.yaml's, else 256]"},
    "intrinsics": {"help": f"{INTRINSICS_HELP}  [default: the run's, else calibration.yaml]"},
}

# Splits that are of one dataset.
DATASET_OF_SPLIT = {SERVER_SPLIT: "kitti_test", "evo": "evo"}

data = option_group("Data")
subject = option_group("What is evaluated")
scoring = option_group("Scoring")
output = option_group("Output")
machine = option_group("Machine")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@data("--data_path", type=folder_path(), default=None, help=DATA_PATH_HELP)
@data("--dataset", type=DatasetName(), default=None, help="How its files lie  [default: what the split needs, else kitti]")
@data("--eval_split", type=NameOrFolder([*TEST_SPLITS, "odom_9", "odom_10"]), default=None, metavar="NAME|FOLDER", help=EVAL_SPLIT_HELP)
@config_options(DataConfig, only=("png", "depth_scale", "intrinsics"), changes=RUN_FACTS)
@subject("--load_weights_folder", type=folder_path(RELEASED), multiple=True, metavar="FOLDER|NAME|hf:USER/REPO", help=WEIGHTS_HELP)
@subject("--all_weights", is_flag=True, help="Every weights_<epoch> of the run: a table, and with --report a curve.")
@subject("--ext_disp_to_eval", type=folder_path(), multiple=True, metavar="FILE", help=EXT_DISP_HELP)
@subject("--eval_eigen_to_benchmark", is_flag=True, help=f"The file holds the 697 eigen images; score it on {ANNOTATED_SPLIT}.")
@subject(
    "--ext_poses_to_eval",
    type=folder_path(),
    default=None,
    metavar="FILE",
    help=EXT_POSES_HELP,
)
@subject("--post_process", is_flag=True, help="Blend with the prediction of the mirrored image.")
@subject("--min_depth", type=float, default=None, help="Least depth, in the network's unit  [default: the run's, else 0.1]")
@subject("--max_depth", type=float, default=None, help="Largest depth, in the network's unit  [default: the run's, else 100]")
@subject("--height", type=int, default=None, metavar="PX", help=SIZE_HELP)
@subject("--width", type=int, default=None, metavar="PX", help=SIZE_HELP)
@subject("--num_layers", type=int, default=None, help=NUM_LAYERS_HELP)
@scoring("--eval_from_file", "from_files", is_flag=True, help=FROM_FILES_HELP)
@scoring("--eval_mono", is_flag=True, help="Scale each prediction by its median ratio to the truth.")
@scoring("--eval_stereo", is_flag=True, help=STEREO_HELP)
@scoring("--disable_median_scaling", is_flag=True, help="No median scaling with --eval_mono either.")
@scoring("--pred_depth_scale_factor", type=float, default=EvalConfig.scale_factor, help="Multiplies depth before it is aligned.")
@scoring("--alignment", type=click.Choice(ALIGNMENTS[1:]), default=None, help=ALIGNMENT_HELP)
@scoring("--crop", type=click.Choice(CROP_NAMES), default=None, help=f"Part of the image  [default: garg; none for {ANNOTATED_SPLIT}]")
@scoring("--cap", type=float, default=None, metavar="M", help=CAP_HELP)
@output("--by_distance", is_flag=True, help="Show the errors by distance of the truth too.")
@output("--json", "json_path", type=folder_path(dir_okay=False), default=None, metavar="FILE", help="Write all scores here.")
@output("--csv", "csv_path", type=folder_path(dir_okay=False), default=None, metavar="FILE", help="Write a row of errors for each image.")
@output("--report", type=folder_path(file_okay=False), default=None, metavar="DIR", help="Write a page with tables, figures and pictures.")
@output("--save_pred_disps", is_flag=True, help="Keep the inverse depths as <load_weights_folder>/disps_<split>_split.npy.")
@output("--eval_out_dir", type=folder_path(file_okay=False), default=None, metavar="DIR", help="Keep what is predicted here instead.")
@output("--no_eval", is_flag=True, help="Stop after saving them.")
@machine("--batch_size", type=int, default=EvalConfig.batch_size, help="Images per pass.")
@config_options(DataConfig, only=("num_workers", "loader"), heading="Machine")
@machine(
    "--amp", type=click.Choice(AMP_MODES), default=EvalConfig.amp, help="Precision of the network; auto: fp16 on a GPU, fp32 on a CPU."
)
@machine("--no_cuda", is_flag=True, help="Predict on the CPU.")
@click.version_option(package_name="md-engine")
def md_eval(**options: Any) -> None:
    """Score models of depth or ego-motion, ours or made elsewhere, against ground truth as Monodepth2 publishes it.

    \b
    md-eval --load_weights_folder ~/tmp/mono_model --eval_mono --data_path kitti_data
    md-eval --load_weights_folder ~/tmp/stereo_model/models/weights_19 --eval_stereo --data_path kitti_data
    md-eval --load_weights_folder run_a --load_weights_folder run_b --eval_mono --report report
    md-eval --ext_disp_to_eval mono_640x192_eigen.npy --data_path kitti_data
    md-eval --eval_split odom_9 --load_weights_folder ~/tmp/odom_model/models/weights_19 --data_path kitti_odom
    """
    with usage_errors():
        motion = options["eval_split"] is not None and pose_sequence(options["eval_split"]) is not None
        config = pose_config(options) if motion else eval_config(options)
    if isinstance(config, PoseEvalConfig):
        from engine.odometry.run import evaluate_pose

        click.echo(evaluate_pose(config).table())
        return
    evaluate_depth(config, given_factor=options["pred_depth_scale_factor"])


def evaluate_depth(config: EvalConfig, *, given_factor: float = 1.0) -> None:
    """Evaluate depth; the scores are shown before they are written, so that a file that cannot be written loses nothing.

    ``given_factor`` is what the user wanted depth to be multiplied by.
    """
    from engine.evaluation import output as eval_output
    from engine.evaluation.keeping import keep
    from engine.evaluation.places import hold_outputs
    from engine.evaluation.run import evaluate, prepare
    from engine.evaluation.subjects import find_subjects

    with hold_outputs(config, find_subjects(config)):
        evaluation = prepare(config)
        factor = evaluation.config.scale_factor
        if given_factor not in (1.0, factor):
            click.echo(f"--pred_depth_scale_factor {given_factor:g} is not used: --eval_stereo sets {factor:g}, as published", err=True)
        candidates = evaluate(evaluation)
        if len(candidates) == 1:
            click.echo(eval_output.published_table(candidates[0].scores))
        elif candidates:
            click.echo(eval_output.comparison_table(candidates))
        for candidate in candidates if config.by_distance else ():
            click.echo(f"\n{candidate.name}\n{eval_output.distance_table(candidate.scores)}")
        if candidates:
            keep(evaluation, candidates)


def eval_config(options: dict[str, Any]) -> EvalConfig:
    """The config of the options as parsed.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    if o["ext_poses_to_eval"] is not None:
        raise InputError("--ext_poses_to_eval needs an odometry sequence: --eval_split odom_9 or odom_10")
    dataset = o["dataset"] or DATASET_OF_SPLIT.get(o["eval_split"], EvalConfig.dataset)
    data_path, eval_split = locate(dataset, o["data_path"], o["eval_split"], published=DEFAULT_EVAL_SPLIT)
    stereo, factor = o["eval_stereo"], o["pred_depth_scale_factor"]
    # The server wants metres; as published, the metric factor holds there whatever the model was trained on.
    metric = stereo or (eval_split == SERVER_SPLIT and factor == 1.0)
    return EvalConfig(
        data_path=data_path, dataset=dataset, eval_split=eval_split, image_ext=".png" if o["png"] else None,
        depth_scale=o["depth_scale"], intrinsics=o["intrinsics"], size_px=size_given(o["height"], o["width"]), from_files=o["from_files"],
        weights_folders=o["load_weights_folder"], all_weights=o["all_weights"], ext_disps=o["ext_disp_to_eval"],
        eigen_to_benchmark=o["eval_eigen_to_benchmark"], post_process=o["post_process"], min_depth=o["min_depth"], max_depth=o["max_depth"],
        alignment=alignment(o), scale_factor=None if metric else factor, crop=o["crop"], cap_m=o["cap"],
        by_distance=o["by_distance"], json_path=o["json_path"], csv_path=o["csv_path"], report=o["report"],
        save_pred_disps=o["save_pred_disps"], no_eval=o["no_eval"], out_dir=o["eval_out_dir"],
        batch_size=o["batch_size"], num_workers=o["num_workers"], loader=o["loader"], amp=o["amp"], no_cuda=o["no_cuda"],
    )  # fmt: skip


def alignment(options: dict[str, Any]) -> str:
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
            click.echo("neither --eval_mono nor --eval_stereo: each image is scaled by its median ratio, as with --eval_mono", err=True)
    return "median"
