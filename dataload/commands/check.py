"""``md-data check``: whether a dataset is fit to be trained on."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from dataload.commands.command import folder_path, say, usage_errors
from dataload.commands.options import GroupedCommand, config_options, option_group
from dataload.config import DataConfig
from dataload.datasets import PUBLISHED, SPLITS_FOLDER, locate
from dataload.option import config_from
from dataload.system.json_text import json_text
from splits.errors import InputError

SHEET_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_HELP = f"As for md-train; for evo and folder data without a split, all frames are checked  [default: {DataConfig.split}; evo, folder]"
SHEET_HELP = "Picture of some frames and their depth  [default: <data_path>/splits/contact_sheet_<split>.jpg]"

# Options of how data is read while training, which do not change the data.
LOADING = ("batch_size", "num_workers", "loader", "frame_store", "frame_store_dir", "seed")
output = option_group("Output")


@click.command("check", short_help="Check a dataset before training on it", cls=GroupedCommand, context_settings={"max_content_width": 140})
@config_options(DataConfig, heading="Data, with the options of md-train", without=LOADING, changes={"split": {"help": SPLIT_HELP}})
@output("--sheet", type=folder_path(dir_okay=False), default=None, metavar="FILE.jpg", help=SHEET_HELP)
@output("--json", "json_path", type=folder_path(dir_okay=False), default=None, metavar="FILE", help="Write the report as JSON too.")
@click.pass_context
def check(ctx: click.Context, /, sheet: Path | None, json_path: Path | None, **options: Any) -> None:
    """Check a dataset before training on it: files, sizes, cameras, neighbours, movement, depth, stereo pairs, overlap of lists.

    Every frame is decoded once. Problems come with their remedy; a warning may be about something intended. The last line is the
    verdict; the exit status is 0 if it is "ready", 1 if there are problems.

    \b
    md-data check --dataset folder --data_path my_drives
    md-data check --data_path kitti_data --split eigen_full --frame_ids 0 --use_stereo
    """
    from dataload.datasets import dataset_class
    from dataload.system.files import require_writable_file, whole_file
    from dataload.system.locks import hold

    o = options
    with usage_errors():
        data_path, split = locate_split(o["dataset"], o["data_path"], o["split"])
        image_ext = ".png" if o["png"] else dataset_class(o["dataset"]).default_image_ext
        config = config_from(DataConfig, options, data_path=data_path, split=split or DataConfig.split, image_ext=image_ext)
        for path, option in ((sheet, "--sheet"), (json_path, "--json")):
            if path is not None:
                require_writable_file(path, option)
        if sheet is not None and sheet.suffix.lower() not in SHEET_SUFFIXES:
            raise InputError(f"--sheet: {sheet.name} is no picture's name; give it one of the endings {', '.join(SHEET_SUFFIXES)}")
    from dataload.check.inspection import default_sheet, inspect

    with nullcontext() if json_path is None else hold(json_path, "wait until it has ended, or give another --json"):
        report = inspect(config, split, sheet=sheet or default_sheet(data_path, split), progress=True)
        say(*report.told())
        if json_path is not None:
            with whole_file(json_path) as temporary:
                temporary.write_text(json_text(report.values(), 2) + "\n", encoding="utf-8")
    ctx.exit(1 if report.problems else 0)


def locate_split(dataset: str, data_path: Path | None, split: str | None) -> tuple[Path, str | None]:
    """Fill in the defaults as ``datasets.locate`` does; no split where none is given and the dataset's own does not exist yet.

    Raises:
        InputError: no data_path where there is no default, or no such split.
    """
    if split is None and data_path is not None and dataset not in (*PUBLISHED, "demo"):
        from dataload.datasets import dataset_class

        own = dataset_class(dataset).default_split
        if own is None or not (data_path / SPLITS_FOLDER / own).is_dir():
            return data_path, None
    return locate(dataset, data_path, split)
