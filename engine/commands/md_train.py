"""``md-train``: the page of options; parse, build the config, call."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from dataload.commands.command import end_by_signal, folder_path, say, usage_errors
from dataload.commands.options import GroupedCommand, config_options, option_group
from dataload.config import DATA, OPTIMISATION
from dataload.system.console import shown_console
from dataload.system.json_text import json_text
from dataload.system.launch import launch
from engine.commands.together import one_report
from engine.interrupt import save_requests_ignored
from engine.options import LOSS, NETWORKS
from engine.released import RELEASED
from engine.training.compiling import keep_compiled
from engine.training.config import CONFIGS, RUN, TrainConfig, saved_options
from splits.errors import InputError
from splits.version import DISTRIBUTION

HEADINGS = (DATA, NETWORKS, LOSS, OPTIMISATION, RUN)
run = option_group(RUN)


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@config_options(*CONFIGS, headings=HEADINGS, changes={"load_weights_folder": {"type": folder_path(RELEASED)}})
@run("--dry_run", is_flag=True, help="Print the resolved options and stop.")
@run("--world_size", type=click.IntRange(1), metavar="N", help="With --dry_run, also print the plan of a run on this many processes.")
@click.version_option(package_name=DISTRIBUTION)
@click.pass_context
def md_train(ctx: click.Context, /, dry_run: bool, world_size: int | None, **options: Any) -> None:
    """Train a self-supervised monocular depth model.

    \b
    md-train --dataset demo --use_stereo --weights_init scratch --initial_depth 11     try it, no data needed
    md-train --model_name mono_model --data_path kitti_data                           monocular, as published
    md-train --model_name stereo_model --frame_ids 0 --use_stereo --split eigen_full  stereo
    md-train --model_name mono+stereo_model --frame_ids 0 -1 1 --use_stereo           both
    """
    ctx.with_resource(save_requests_ignored())
    ctx.with_resource(shown_console())
    given = {name: value for name, value in options.items() if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    with usage_errors():
        config = TrainConfig.from_options(**given)
        if world_size is not None:
            _require_plannable(config, dry_run=dry_run)
    if dry_run and launch().rank == 0:
        resolved = saved_options(config) | {"run_folder": str(config.run_folder)} | _plan(config, world_size)
        say(*json_text(resolved, 2).split("\n"))
    if dry_run:
        return
    keep_compiled()
    from engine.training.train import train

    with one_report():
        stopped_by = train(config).stopped_by
    if stopped_by is not None:
        end_by_signal(ctx, stopped_by)


def _require_plannable(config: TrainConfig, *, dry_run: bool) -> None:
    if not dry_run:
        raise InputError(
            "--world_size is for the plan that --dry_run prints; several processes are started by torchrun: "
            "torchrun --nproc_per_node 8 $(which md-train) ..."
        )
    if config.resume:
        raise InputError("--world_size plans a new run; leave out --resume")


def _plan(config: TrainConfig, world_size: int | None) -> dict[str, Any]:
    if world_size is None:
        return {}
    from engine.training.plan import plan

    return {"plan": plan(config, world_size)}
