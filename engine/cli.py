"""``md-train`` and ``md-eval``: pages of options; parse, build the config, call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dataload.command import EXIT_INTERRUPTED, folder_path, usage_errors
from dataload.config import FRAME_STORES, LOADERS, DataConfig
from dataload.data_options import data_options
from dataload.datasets import DEFAULT_DATA_PATH, locate
from dataload.options import GroupedCommand, Values, option_group
from engine.choices import MODULES, POSE_MODEL_INPUTS, POSE_MODEL_TYPES
from engine.compiling import keep_compiled
from engine.config import (
    AMP_MODES,
    NUM_LAYERS,
    WEIGHTS_INIT,
    LossConfig,
    ModelConfig,
    TrainConfig,
    saved_options,
)
from engine.eval_cli import md_eval
from splits.errors import InputError

__all__ = ["md_eval", "md_train"]

# What a resumed run may change: nothing that its numbers depend on.
RESUMABLE_CHANGES = {
    "data_path", "log_dir", "model_name", "num_epochs", "max_steps", "num_workers", "log_frequency", "save_frequency", "save_minutes",
    "no_cuda", "compile", "cuda_graph", "checkpoint_activations", "loader", "frame_store", "frame_store_dir",
}  # fmt: skip

PATH_OPTIONS = {"data_path", "log_dir", "load_weights_folder", "frame_store_dir"}

data = option_group("Data")
model = option_group("Networks")
loss = option_group("Loss")
optimisation = option_group("Optimisation")
run = option_group("Run")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@data_options(data)
@data("--batch_size", type=int, default=12, help="Samples a step.")
@data("--num_workers", type=int, default=12, help="Loader threads, at most one a core is used.")
@data("--loader", type=click.Choice(LOADERS), default="auto", help="auto picks the fastest for this machine.")
@data(
    "--frame_store",
    type=click.Choice(FRAME_STORES),
    default="auto",
    help="Where frames are kept, decoded once for all epochs and runs; auto decides from what is free, and says what.",
)
@data(
    "--frame_store_dir",
    type=folder_path(),
    default=None,
    help="Where stores are kept; md-data store lists them  [default: the cache folder]",
)
@model("--num_layers", type=click.Choice([str(n) for n in NUM_LAYERS]), default="18", help="Depth of the ResNet encoders.")
@model("--weights_init", type=click.Choice(WEIGHTS_INIT), default="pretrained", help="ImageNet weights, or random ones.")
@model("--pose_model_type", type=click.Choice(POSE_MODEL_TYPES), default="separate_resnet", help="What predicts the camera's motion.")
@model("--pose_model_input", type=click.Choice(POSE_MODEL_INPUTS), default="pairs", help="Frames the pose network sees at once.")
@model("--batch_pose_pairs", is_flag=True, help="Run all pose pairs as one batch: faster, but other BatchNorm statistics than published.")
@model("--scales", type=Values(int), many=True, default="0 1 2 3", metavar="S...", help="Scales of the disparity the loss is taken at.")
@model("--min_depth", type=float, default=0.1, help="Least depth, in the networks' unit (5.4 m on KITTI).")
@model("--max_depth", type=float, default=100.0, help="Largest depth, in the networks' unit.")
@model(
    "--initial_depth",
    type=float,
    default=None,
    metavar="METRES",
    help="Depth an untrained network starts from; helps when training from scratch.",
)
@loss("--disparity_smoothness", type=float, default=1e-3, help="Weight of the smoothness term.")
@loss("--v1_multiscale", is_flag=True, help="Warp and compare at each scale's own size.")
@loss("--avg_reprojection", is_flag=True, help="Average over the sources instead of taking the least.")
@loss("--disable_automasking", is_flag=True, help="Keep pixels that an unmoved camera explains better.")
@loss("--predictive_mask", is_flag=True, help="Learn a mask a source; needs --disable_automasking.")
@loss("--no_ssim", is_flag=True, help="Compare by L1 alone.")
@optimisation("--learning_rate", type=float, default=1e-4, help="Adam's learning rate.")
@optimisation("--num_epochs", type=int, default=20, help="Passes over the training samples.")
@optimisation("--scheduler_step_size", type=int, default=15, metavar="EPOCHS", help="The learning rate drops tenfold after so many epochs.")
@optimisation("--max_steps", type=int, default=None, metavar="STEPS", help="Stop after so many steps, whatever --num_epochs says.")
@optimisation("--seed", type=int, default=0, help="Of weights, order and augmentation: the same seed gives the same run.")
@optimisation("--amp", type=click.Choice(AMP_MODES), default="auto", help="Precision of the networks; the loss stays in fp32.")
@optimisation("--compile/--no_compile", default=None, help="torch.compile the step  [default: on a GPU]")
@optimisation("--cuda_graph/--no_cuda_graph", default=None, help="Replay the whole step as one CUDA graph  [default: on a GPU]")
@optimisation(
    "--grad_accumulation",
    type=int,
    default=1,
    metavar="PARTS",
    help="Work through each batch in so many equal parts before its one update: less memory; BatchNorm then sees the parts.",
)
@optimisation(
    "--checkpoint_activations", is_flag=True, help="Compute activations again in the backward pass instead of keeping them: less memory."
)
@optimisation("--no_cuda", is_flag=True, help="Train on the CPU.")
@run("--log_dir", type=folder_path(), default=Path("~/tmp"), help="Where run folders lie.")
@run("--model_name", default="mdp", help="Name of the run folder.")
@run("--load_weights_folder", type=folder_path(), default=None, help="Start a new run from these weights.")
@run(
    "--models_to_load",
    type=Values(str),
    many=True,
    default="encoder depth pose_encoder pose",
    metavar="NAME...",
    help=f"Of {' '.join(MODULES)}.",
)
@run("--resume", is_flag=True, help="Continue the run exactly where its last checkpoint left it, with its own options.")
@run("--log_frequency", type=int, default=250, metavar="BATCHES", help="Log every so many batches (after step 2000: every 2000 steps).")
@run("--save_frequency", type=int, default=1, metavar="EPOCHS", help="Save weights every so many epochs.")
@run("--save_minutes", type=float, default=10.0, metavar="MINUTES", help="Save a resumable checkpoint this often within an epoch.")
@run("--dry_run", is_flag=True, help="Print the resolved options and stop.")
@click.version_option(package_name="md-engine")
@click.pass_context
def md_train(ctx: click.Context, dry_run: bool, **options: Any) -> None:
    """Train a self-supervised monocular depth model.

    \b
    md-train --dataset demo --use_stereo --weights_init scratch --initial_depth 11     try it, no data needed
    md-train --model_name mono_model --data_path kitti_data                           monocular, as published
    md-train --model_name stereo_model --frame_ids 0 --use_stereo --split eigen_full  stereo
    md-train --model_name mono+stereo_model --frame_ids 0 -1 1 --use_stereo           both
    """
    with usage_errors():
        if options["resume"]:
            options = resumed_options(ctx, options)
        config = train_config(options)
    if dry_run:
        click.echo(json.dumps(saved_options(config) | {"run_folder": str(config.run_folder)}, indent=2))
        return
    keep_compiled()
    from engine.train import train

    if not train(config):
        ctx.exit(EXIT_INTERRUPTED)


def train_config(options: dict[str, Any]) -> TrainConfig:
    """The config of the options as parsed.

    Raises:
        InputError: values that do not fit together.
    """
    o = options
    data_path, split = locate(o["dataset"], o["data_path"], o["split"])
    if o["load_weights_folder"] is not None and (o["initial_depth"] is not None or o["resume"]):
        raise InputError("--load_weights_folder starts from trained weights; leave out --initial_depth and --resume")
    v1 = o["v1_multiscale"]
    levels = max(o["scales"], default=0) + 1
    data_config = DataConfig(
        data_path=data_path, dataset=o["dataset"], split=split, height_px=o["height"], width_px=o["width"], frame_ids=o["frame_ids"],
        use_stereo=o["use_stereo"], image_ext=".png" if o["png"] else ".jpg", batch_size=o["batch_size"], num_levels=levels,
        source_levels=levels if v1 else 1, seed=o["seed"], num_workers=o["num_workers"], loader=o["loader"],
        frame_store=o["frame_store"], frame_store_dir=o["frame_store_dir"] and o["frame_store_dir"].expanduser().absolute(),
        depth_scale=o["depth_scale"], intrinsics=o["intrinsics"],
    )  # fmt: skip
    model_config = ModelConfig(
        num_layers=int(o["num_layers"]), weights_init=o["weights_init"], pose_model_type=o["pose_model_type"],
        pose_model_input=o["pose_model_input"], scales=o["scales"], min_depth=o["min_depth"], max_depth=o["max_depth"],
        batch_pose_pairs=o["batch_pose_pairs"], initial_depth_m=o["initial_depth"],
    )  # fmt: skip
    loss_config = LossConfig(
        disparity_smoothness=o["disparity_smoothness"], ssim=not o["no_ssim"], automask=not o["disable_automasking"],
        avg_reprojection=o["avg_reprojection"], v1_multiscale=v1, predictive_mask=o["predictive_mask"],
    )  # fmt: skip
    return TrainConfig(
        data=data_config, model=model_config, loss=loss_config, model_name=o["model_name"], log_dir=o["log_dir"],
        learning_rate=o["learning_rate"], num_epochs=o["num_epochs"], scheduler_step_size=o["scheduler_step_size"],
        load_weights_folder=o["load_weights_folder"], models_to_load=o["models_to_load"], log_frequency=o["log_frequency"],
        save_frequency=o["save_frequency"], save_minutes=o["save_minutes"], max_steps=o["max_steps"], resume=o["resume"],
        amp=o["amp"], compile=o["compile"], cuda_graph=o["cuda_graph"], grad_accumulation=o["grad_accumulation"],
        checkpoint_activations=o["checkpoint_activations"], no_cuda=o["no_cuda"],
    )  # fmt: skip


def resumed_options(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The run's own options, with those given on the command line that a resumed run may change.

    Raises:
        InputError: no such run, or an option given that differs from the run's and would change its numbers.
    """
    run_folder = Path(options["log_dir"]).expanduser() / options["model_name"]
    path = run_folder / "models" / "opt.json"
    if not path.is_file():
        raise InputError(f"nothing to resume: no file {path}; check --log_dir and --model_name")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore it to resume the run") from error
    saved["frame_ids"] = [i for i in saved.get("frame_ids", []) if i != "s"]
    saved["num_layers"] = str(saved.get("num_layers"))
    split = options["split"]
    if split is not None:
        data_path = options["data_path"] or Path(saved.get("data_path", DEFAULT_DATA_PATH))
        _, split = locate(saved.get("dataset", "kitti"), data_path, split)
    result = dict(options)
    for name, value in (options | {"split": split}).items():
        given = ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        if name == "resume" or (name not in saved and not given):
            continue
        # An option that the run's version did not have yet is at its default there.
        kept = _typed(name, saved[name]) if name in saved else _default(ctx, name)
        if not given:
            result[name] = kept
        elif name not in RESUMABLE_CHANGES and value != kept:
            raise InputError(
                f"--{name} differs from the run's ({_shown(value)} given, {_shown(kept)} in {path}); --resume continues a run exactly: "
                "leave the option out, or start a new run with --load_weights_folder"
            )
    # The weights it once started from are in its checkpoints by now.
    return result | {"load_weights_folder": None, "initial_depth": saved.get("initial_depth")}


def _default(ctx: click.Context, name: str) -> Any:
    option = next(param for param in ctx.command.params if param.name == name)
    return option.type_cast_value(ctx, option.get_default(ctx))


def _typed(name: str, value: Any) -> Any:
    if name in PATH_OPTIONS and value is not None:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
