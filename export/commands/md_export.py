"""``md-export``: the page of options; parse, build the config, call."""

from __future__ import annotations

from typing import Any

import click

from dataload.commands.command import NameOrFolder, folder_path, say, usage_errors
from dataload.commands.options import TEST_SPLITS, DatasetName, GroupedCommand, config_options, option_group
from dataload.config import DataConfig
from dataload.datasets import PUBLISHED, locate
from dataload.system.console import shown_console
from engine.choices import DEFAULT_EVAL_SPLIT
from engine.commands.md_eval import RUN_FACTS
from engine.released import RELEASED
from export.config import OUTPUT_NAMES, PRECISIONS, TARGETS, ExportConfig
from splits.errors import InputError
from splits.version import DISTRIBUTION

WEIGHTS_HELP = "A run folder, a weights folder, a zip, hf:USER/REPO, or a released model: see md-predict --help."
OUT_HELP = "The .onnx file to write; with other targets a new folder."
TARGET_HELP = "; ".join(f"{name}: {line.help}" for name, line in TARGETS.items()) + "."
PRECISION_HELP = "Precision of weights and arithmetic; inputs and outputs stay the same."
OUTPUT_NAME_HELP = "inv_depth: 1 / the network's unit, as md-predict writes; depth: metres of models trained with stereo, else up to scale."
IMAGES_HELP = "Images like those the model will see: they calibrate int8, and each export is compared on some  [default: rendered ones]"
DATA_PATH_HELP = "A dataset with ground truth: the errors before and after the export are compared on --eval_split."
SCORES_HELP = "md-eval's --json file of these weights: its median ratio goes into the ONNX file, its scores on the model card."
WEB_HELP = "The npm package onnxruntime-web, unpacked or as .tgz  [default: npm fetches it]"

what = option_group("What is exported")
graph = option_group("The graph")
check = option_group("Checks")
output = option_group("Output")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@what("--load_weights_folder", type=folder_path(RELEASED), required=True, metavar="FOLDER|NAME|hf:USER/REPO", help=WEIGHTS_HELP)
@what("--with_pose", is_flag=True, help="Export the pose network too: FILE_pose.onnx, from two or more frames to motions.")
@graph(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=ExportConfig.precision,
    help=PRECISION_HELP,
)
@graph("--output", type=click.Choice(OUTPUT_NAMES), default=ExportConfig.output, help=OUTPUT_NAME_HELP)
@graph("--with_preprocessing", "preprocessing", is_flag=True, help="Take uint8 images (B,H,W,3) of any size, resized inside.")
@graph(
    "--height",
    type=int,
    default=None,
    metavar="PX",
    help="Input height; also the training's, where the weights record none  [default: as trained]",
)
@graph(
    "--width",
    type=int,
    default=None,
    metavar="PX",
    help="Input width; also the training's, where the weights record none  [default: as trained]",
)
@graph("--dynamic_size", is_flag=True, help="Leave height and width open: any multiple of 32.")
@graph("--batch_size", type=int, default=None, metavar="N", help="Images per run  [default: open]")
@check("--images", type=folder_path(), default=None, metavar="FOLDER|'PATTERN'", help=IMAGES_HELP)
@check("--data_path", type=folder_path(), default=None, metavar="FOLDER", help=DATA_PATH_HELP)
@check("--dataset", type=DatasetName(), default=ExportConfig.dataset, help="Layout of its files: a name, or a class of your own.")
@check(
    "--eval_split",
    type=NameOrFolder(TEST_SPLITS),
    default=ExportConfig.eval_split,
    metavar="NAME|FOLDER",
    help="A published list, or a folder with test_files.txt.",
)
@config_options(DataConfig, only=("depth_scale", "intrinsics"), heading="Checks", changes=RUN_FACTS)
@check("--png", is_flag=True, help="Read .png images instead of .jpg.")
@output("--out", type=folder_path(), required=True, metavar="FILE|DIR", help=OUT_HELP)
@output("--target", type=click.Choice(list(TARGETS)), default=ExportConfig.target, help=TARGET_HELP)
@output("--scores", type=folder_path(dir_okay=False), default=None, metavar="FILE.json", help=SCORES_HELP)
@output(
    "--license", "licence", default=None, metavar="TEXT", help="Licence note for the weights  [default: what their training data asks for]"
)
@output("--onnxruntime_web", type=folder_path(), default=None, metavar="FOLDER|FILE", help=WEB_HELP)
@click.version_option(package_name=DISTRIBUTION)
def md_export(**options: Any) -> None:
    """Export a trained model as ONNX, compared with torch before it is written; or as a web page, or ready to upload.

    \b
    md-export --load_weights_folder ~/tmp/mono_model --out depth.onnx
    md-export --load_weights_folder ~/tmp/stereo_model --output depth --with_preprocessing --out camera.onnx
    md-export --load_weights_folder ~/tmp/mono_model --precision int8 --images photos/ --data_path kitti_data --out small.onnx
    md-export --load_weights_folder mono+stereo_640x192 --target web --out page && python -m http.server -d page
    """
    with usage_errors():
        config = export_config(options)
    from export.conversion.run import export_model

    with shown_console():
        export_model(config, show=lambda text: say(*text.split("\n")))


def export_config(options: dict[str, Any]) -> ExportConfig:
    """The config of the options as parsed; a released model is downloaded only when it is exported.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    data_path, eval_split = o["data_path"], o["eval_split"]
    if o["dataset"] not in PUBLISHED:
        data_path, eval_split = locate(o["dataset"], data_path, None if eval_split == DEFAULT_EVAL_SPLIT else eval_split)
    elif data_path is None and eval_split != DEFAULT_EVAL_SPLIT:
        raise InputError(f"--eval_split {eval_split} without --data_path: add the folder of the dataset")
    return ExportConfig(
        weights=o["load_weights_folder"], out=o["out"], target=o["target"], precision=o["precision"], output=o["output"],
        height_px=o["height"], width_px=o["width"], batch_size=o["batch_size"], dynamic_size=o["dynamic_size"],
        preprocessing=o["preprocessing"] or o["target"] == "web", with_pose=o["with_pose"], images=o["images"],
        data_path=data_path, eval_split=eval_split, dataset=o["dataset"],
        image_ext=".png" if o["png"] else None, depth_scale=o["depth_scale"], intrinsics=o["intrinsics"],
        scores=o["scores"], licence=o["licence"], onnxruntime_web=o["onnxruntime_web"],
    )  # fmt: skip
