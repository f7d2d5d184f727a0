"""The options that say what is trained on, once for all commands that are given it; importing this is cheap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dataload.command import folder_path
from dataload.datasets import DATASETS, DEFAULT_DATA_PATH, DEFAULT_SPLIT, find_entry_point
from dataload.options import DEPTH_SCALE_HELP, Values
from splits.errors import InputError

F = Callable[..., Any]

DATA_PATH_HELP = f"Folder of the dataset  [default: {DEFAULT_DATA_PATH}; the demo brings its own]"
SPLIT_HELP = f"A split's name, of <data_path>/splits too, or a folder with {{train,val}}_files.txt  [default: {DEFAULT_SPLIT}; evo, folder]"
INTRINSICS_HELP = (
    "Camera of evo and folder datasets, pixels of the images; add WIDTH HEIGHT if they are for another size  [default: calibration.yaml]"
)


class DatasetName(click.ParamType):
    """What ``--dataset`` takes: a name of ``DATASETS``, of an installed package's entry point, or ``package.module:Class``."""

    name = "dataset"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as a choice shows them."""
        return f"[{'|'.join(DATASETS)}|MODULE:CLASS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name if it is known; a class is imported when it is used."""
        if value not in DATASETS and ":" not in value:
            try:
                find_entry_point(value)
            except InputError as error:
                self.fail(str(error), param, ctx)
        return str(value)


def data_options(option: Callable[..., Callable[[F], F]], *, split_help: str = SPLIT_HELP) -> Callable[[F], F]:
    """A decorator that gives a command these options, each made by ``option`` (see ``options.option_group``)."""

    def give(command: F) -> F:
        for decorate in reversed(
            (
                option("--data_path", type=folder_path(), default=None, help=DATA_PATH_HELP),
                option("--dataset", type=DatasetName(), default="kitti", help="How its files lie: a name, or a class of your own."),
                option("--split", default=None, metavar="NAME|FOLDER", help=split_help),
                option("--png", is_flag=True, help="Read .png images instead of .jpg."),
                option("--depth_scale", type=float, default=None, metavar="VALUE", help=DEPTH_SCALE_HELP),
                option("--intrinsics", type=Values(float), many=True, default=None, metavar="FX FY CX CY", help=INTRINSICS_HELP),
                option("--height", type=int, default=192, metavar="PX", help="Input height, a multiple of 32."),
                option("--width", type=int, default=640, metavar="PX", help="Input width, a multiple of 32."),
                option("--frame_ids", type=Values(int), many=True, default="0 -1 1", metavar="0 ID...", help="Target (0) and its sources."),
                option("--use_stereo", is_flag=True, help="Add the other camera as a source."),
            )
        ):
            command = decorate(command)
        return command

    return give
