"""``md-train``: the page of options; parse, build the config, call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dataload.commands.command import EXIT_INTERRUPTED, folder_path, usage_errors
from dataload.commands.options import GroupedCommand, config_options, option_group
from dataload.config import DATA, DEFAULT_DATA_PATH, OPTIMISATION, DataConfig
from dataload.datasets import locate
from dataload.option import config_from, default_of, options_of, read_value
from dataload.system.home import expand_home
from engine.options import LOSS, NETWORKS, LossConfig, ModelConfig
from engine.released import RELEASED
from engine.training.compiling import keep_compiled
from engine.training.config import RUN, TrainConfig, saved_options
from splits.errors import InputError

CONFIGS = (DataConfig, ModelConfig, LossConfig, TrainConfig)
HEADINGS = (DATA, NETWORKS, LOSS, OPTIMISATION, RUN)
run = option_group(RUN)


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@config_options(*CONFIGS, headings=HEADINGS, changes={"load_weights_folder": {"type": folder_path(RELEASED)}})
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
    from engine.training.train import train

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
    model, loss = config_from(ModelConfig, o), config_from(LossConfig, o)
    levels = max(model.scales) + 1
    store_dir = o["frame_store_dir"]
    data = config_from(
        DataConfig, o, data_path=data_path, split=split, num_levels=levels, source_levels=levels if loss.v1_multiscale else 1,
        frame_store_dir=None if store_dir is None else store_dir.absolute(),
    )  # fmt: skip
    return config_from(TrainConfig, o, data=data, model=model, loss=loss)


def resumed_options(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The run's own options, with those given on the command line that a resumed run may change.

    Raises:
        InputError: no such run, or an option given that differs from the run's and would change its numbers.
    """
    run_folder = Path(expand_home(str(options["log_dir"]))) / options["model_name"]
    path = run_folder / "models" / "opt.json"
    if not path.is_file():
        raise InputError(f"nothing to resume: no file {path}; check --log_dir and --model_name")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore it to resume the run") from error
    saved["frame_ids"] = [i for i in saved.get("frame_ids", []) if i != "s"]
    split = options["split"]
    if split is not None:
        data_path = options["data_path"] or Path(saved.get("data_path", DEFAULT_DATA_PATH))
        _, split = locate(saved.get("dataset", DataConfig.dataset), data_path, split)
    result, given = dict(options), options | {"split": split}
    for cls in CONFIGS:
        for field, option in options_of(cls):
            name = option.name
            is_given = ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
            if not option.saved or (name not in saved and not is_given):
                continue
            # An option that did not exist yet when the run began has its default there.
            kept = read_value(cls, field, saved[name] if name in saved else default_of(field, option))
            if not is_given:
                result[name] = kept
            elif not option.resumable and given[name] != kept:
                raise InputError(
                    f"--{name} differs from the run's ({_text(given[name])} given, {_text(kept)} in {path}); --resume continues a run "
                    "exactly: leave the option out, or start a new run with --load_weights_folder"
                )
    # The weights that the run started from are in its checkpoints by now.
    return result | {"load_weights_folder": None, "initial_depth": saved.get("initial_depth")}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
