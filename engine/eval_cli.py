"""``md-eval``: the page of options; parse, build the config, call."""

from __future__ import annotations

from typing import Any

import click

from dataload.command import usage_errors
from dataload.config import LOADERS
from dataload.datasets import DATASETS, DEFAULT_DATA_PATH, dataset_class, locate
from engine.config import AMP_MODES
from engine.eval_config import DEFAULT_EVAL_SPLIT, EVAL_BATCH_SIZE, PROTOCOL_NAMES, PROTOCOL_OF_SPLIT, EvalConfig
from engine.options import GroupedCommand, folder_path, option_group
from splits.errors import InputError

PROTOCOL_HELP = "eigen: 1e-3 < truth < 80 m in the Garg crop; all_gt: every truth  [default: all_gt for eigen_benchmark, else eigen]"

DATA_PATH_HELP = f"Folder of the dataset  [default: {DEFAULT_DATA_PATH}; the demo brings its own]"
EVAL_SPLIT_HELP = (
    f"{DEFAULT_EVAL_SPLIT}, eigen_benchmark, or a folder with test_files.txt  [default: {DEFAULT_EVAL_SPLIT}; the demo brings its own]"
)

data = option_group("Data")
subject = option_group("What is evaluated")
scoring = option_group("Scoring")
output = option_group("Output")
machine = option_group("Machine")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@data("--data_path", type=folder_path(), default=None, help=DATA_PATH_HELP)
@data("--dataset", type=click.Choice(list(DATASETS)), default="kitti", help="How its files lie.")
@data("--eval_split", default=None, metavar="NAME|FOLDER", help=EVAL_SPLIT_HELP)
@data("--png", is_flag=True, help="Read .png images instead of .jpg.")
@subject("--load_weights_folder", type=folder_path(), default=None, metavar="FOLDER", help="A run folder or one of its weights folders.")
@subject("--ext_disp_to_eval", type=folder_path(), default=None, metavar="FILE.npy", help="Inverse depths of the list made elsewhere.")
@subject("--post_process", is_flag=True, help="Blend with the prediction of the mirrored image.")
@subject("--min_depth", type=float, default=None, help="Least depth, in the network's unit  [default: the run's, else 0.1]")
@subject("--max_depth", type=float, default=None, help="Largest depth, in the network's unit  [default: the run's, else 100]")
@scoring("--eval_mono", is_flag=True, help="Scale each prediction by its median ratio to the truth.")
@scoring("--eval_stereo", is_flag=True, help="Scale by the dataset's metric factor (KITTI: 5.4), whatever --pred_depth_scale_factor says.")
@scoring("--disable_median_scaling", is_flag=True, help="No median scaling with --eval_mono either.")
@scoring("--pred_depth_scale_factor", type=float, default=1.0, help="Multiplies depth before median scaling.")
@scoring("--protocol", type=click.Choice(PROTOCOL_NAMES), default=None, help=PROTOCOL_HELP)
@output("--json", "json_path", type=folder_path(dir_okay=False), default=None, metavar="FILE", help="Write the scores here too.")
@output("--save_pred_disps", is_flag=True, help="Keep the inverse depths as <load_weights_folder>/disps_<split>_split.npy.")
@output("--no_eval", is_flag=True, help="Stop after saving them.")
@machine("--batch_size", type=int, default=EVAL_BATCH_SIZE, help="Images a pass.")
@machine("--num_workers", type=int, default=12, help="Loader threads, at most one a core is used.")
@machine("--loader", type=click.Choice(LOADERS), default="auto", help="auto picks the fastest for this machine.")
@machine("--amp", type=click.Choice(AMP_MODES), default="auto", help="Precision of the network; auto: fp16 on a GPU, fp32 on a CPU.")
@machine("--no_cuda", is_flag=True, help="Predict on the CPU.")
@click.version_option(package_name="md-engine")
def md_eval(**options: Any) -> None:
    """Score a depth model, or disparities made elsewhere, against ground truth as Monodepth2 publishes it.

    \b
    md-eval --load_weights_folder ~/tmp/mono_model --eval_mono --data_path kitti_data
    md-eval --load_weights_folder ~/tmp/stereo_model/models/weights_19 --eval_stereo --data_path kitti_data
    md-eval --ext_disp_to_eval mono_640x192_eigen.npy --eval_mono --data_path kitti_data
    """
    with usage_errors():
        config = eval_config(options)
    given = options["pred_depth_scale_factor"]
    if options["eval_stereo"] and given not in (1.0, config.scale_factor):
        click.echo(f"--pred_depth_scale_factor {given:g} is not used: --eval_stereo sets {config.scale_factor:g}, as published", err=True)
    from engine.eval_run import evaluate, write_scores

    scores = evaluate(config)
    if scores is None:
        return
    click.echo(scores.table())
    if config.json_path is not None:
        write_scores(config.json_path, config, scores)


def eval_config(options: dict[str, Any]) -> EvalConfig:
    """The config of the options as parsed.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    if o["eval_mono"] == o["eval_stereo"] and not o["no_eval"]:
        raise InputError("give either --eval_mono (scale by the median) or --eval_stereo (scale by the dataset's metric factor)")
    stereo = o["eval_stereo"]
    published = None if o["dataset"] == "demo" else DEFAULT_EVAL_SPLIT
    data_path, eval_split = locate(o["dataset"], o["data_path"], o["eval_split"] or published)
    return EvalConfig(
        data_path=data_path, dataset=o["dataset"], eval_split=eval_split, image_ext=".png" if o["png"] else ".jpg",
        weights_folder=o["load_weights_folder"], ext_disp=o["ext_disp_to_eval"],
        median_scaling=not (stereo or o["disable_median_scaling"]),
        scale_factor=dataset_class(o["dataset"]).metric_factor if stereo else o["pred_depth_scale_factor"],
        post_process=o["post_process"], save_pred_disps=o["save_pred_disps"], no_eval=o["no_eval"], min_depth=o["min_depth"],
        max_depth=o["max_depth"], protocol=o["protocol"] or PROTOCOL_OF_SPLIT.get(eval_split, "eigen"), json_path=o["json_path"],
        batch_size=o["batch_size"], num_workers=o["num_workers"], no_cuda=o["no_cuda"], amp=o["amp"], loader=o["loader"],
    )  # fmt: skip
