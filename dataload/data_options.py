"""The options that say what is trained on, once for all commands that are given it; importing this is cheap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataload.command import folder_path
from dataload.datasets import DEFAULT_DATA_PATH, DEFAULT_SPLIT, DatasetName
from dataload.options import DEPTH_SCALE_HELP, Values

F = Callable[..., Any]

DATA_PATH_HELP = f"Folder of the dataset  [default: {DEFAULT_DATA_PATH}; the demo brings its own]"
SPLIT_HELP = f"A split's name, of <data_path>/splits too, or a folder with {{train,val}}_files.txt  [default: {DEFAULT_SPLIT}; evo, folder]"
INTRINSICS_HELP = (
    "Camera of evo and folder datasets, pixels of the images; add WIDTH HEIGHT if they are for another size  [default: calibration.yaml]"
)


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
