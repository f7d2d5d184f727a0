"""``md-eval``: the page of options; parse, build the config, call."""

from __future__ import annotations

from typing import Any

import click

from dataload.commands.command import folder_path, say, usage_errors
from dataload.commands.options import GroupedCommand, config_options
from dataload.config import DEPTH_SCALE_HELP, INTRINSICS_HELP, DataConfig
from dataload.system.console import said_by_first, shown_console
from dataload.system.launch import launch
from engine.choices import is_pose_split
from engine.commands.together import one_report
from engine.eval_options import DATASET_OPTIONS, LOADING_OPTIONS, MACHINE, EvalOptions
from engine.evaluation.config import EvalConfig
from engine.odometry.config import PoseEvalConfig
from engine.released import RELEASED
from splits.version import DISTRIBUTION

# Defaults that a run's record of its dataset replaces.
RUN_FACTS = {
    "depth_scale": {"help": f"{DEPTH_SCALE_HELP}  [default: the run's, calibration.yaml's, else 256]"},
    "intrinsics": {"help": f"{INTRINSICS_HELP}  [default: the run's, else calibration.yaml]"},
}
# Click settings that an option's type does not give.
SEVERAL: dict[str, Any] = {"type": folder_path(), "multiple": True, "many": False, "default": ()}
FILE, FOLDER = {"type": folder_path(dir_okay=False)}, {"type": folder_path(file_okay=False)}
SETTINGS: dict[str, dict[str, Any]] = dict.fromkeys(("load_weights_folder", "ext_disp_to_eval"), SEVERAL)
SETTINGS["load_weights_folder"] = SEVERAL | {"type": folder_path(RELEASED)}
SETTINGS |= {"json": FILE, "csv": FILE, "report": FOLDER, "eval_out_dir": FOLDER}


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@config_options(EvalOptions, changes=SETTINGS)
@config_options(DataConfig, only=DATASET_OPTIONS, changes=RUN_FACTS)
@config_options(DataConfig, only=LOADING_OPTIONS, heading=MACHINE)
@click.version_option(package_name=DISTRIBUTION)
def md_eval(**options: Any) -> None:
    """Score models of depth or ego-motion, ours or made elsewhere, against ground truth as Monodepth2 publishes it.

    \b
    md-eval --load_weights_folder ~/tmp/mono_model --eval_mono --data_path kitti_data
    md-eval --load_weights_folder ~/tmp/stereo_model/models/weights_19 --eval_stereo --data_path kitti_data
    md-eval --load_weights_folder run_a --load_weights_folder run_b --eval_mono --report report
    md-eval --ext_disp_to_eval mono_640x192_eigen.npy --data_path kitti_data
    md-eval --eval_split odom_9 --load_weights_folder ~/tmp/odom_model/models/weights_19 --data_path kitti_odom
    """
    click.get_current_context().with_resource(shown_console())
    with usage_errors(), said_by_first():
        motion = options["eval_split"] is not None and is_pose_split(options["eval_split"])
        config = PoseEvalConfig.from_options(**options) if motion else EvalConfig.from_options(**options)
    with one_report():
        if isinstance(config, PoseEvalConfig):
            show_motion(config)
        else:
            evaluate_depth(config, given_factor=options["pred_depth_scale_factor"])


def show_motion(config: PoseEvalConfig) -> None:
    """Evaluate ego-motion, and show the scores; of several processes the first shows them."""
    from engine.odometry.run import evaluate_pose

    scores = evaluate_pose(config)
    if launch().rank == 0:
        say(*scores.table().split("\n"))


def evaluate_depth(config: EvalConfig, *, given_factor: float = 1.0) -> None:
    """Evaluate depth; the scores are shown before they are written, so that they are not lost where a file cannot be written.

    ``given_factor`` is the user's factor on depth.
    """
    from engine.evaluation import output as eval_output
    from engine.evaluation.evaluate import prepared
    from engine.evaluation.keeping import keep
    from engine.evaluation.run import score_subjects

    with prepared(config) as evaluation:
        factor = evaluation.config.scale_factor
        if given_factor not in (1.0, factor) and evaluation.ranks.is_first:
            say(f"--pred_depth_scale_factor {given_factor:g} is not used: --eval_stereo sets {factor:g}, as published", err=True)
        candidates = score_subjects(evaluation)
        if not evaluation.ranks.is_first:  # which shows and keeps what all have found
            return
        if len(candidates) == 1:
            say(*eval_output.published_table(candidates[0].scores).split("\n"))
        elif candidates:
            say(*eval_output.comparison_table(candidates).split("\n"))
        for candidate in candidates if config.by_distance else ():
            say("", candidate.name, *eval_output.distance_table(candidate.scores).split("\n"))
        keep(evaluation, candidates)
