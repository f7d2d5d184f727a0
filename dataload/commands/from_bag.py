"""``md-data from-bag``: recordings of ROS 1 and ROS 2 to a dataset that md-train reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataload.bags.options import ConvertOptions
from dataload.commands.command import folder_path, say, usage_errors
from dataload.commands.options import F, GroupedCommand, Unlisted, Values, option_group
from dataload.commands.split_options import no_split_option, split_options
from dataload.config import usual_size
from dataload.system.shell import quoted

if TYPE_CHECKING:
    from dataload.bags.batch import Outcome

DATASET = SPLIT = "evo"

output = option_group("Output")
topics = option_group("Topics")
cameras = option_group("Cameras, where the recording does not have them")
# "1 0 0 0.1 ..." is one argument: what follows it may be a recording.
matrix = {"type": Values(float), "default": None, "metavar": '"12 NUMBERS"'}


def _topic(name: str, words: str) -> Callable[[F], F]:
    return topics(f"--{name}", default="", show_default=False, metavar="TOPIC", help=words)


@click.command("from-bag", short_help="Convert ROS recordings to a dataset", cls=GroupedCommand)
@click.argument("bags", cls=Unlisted, nargs=-1, required=True, metavar="BAG...", type=folder_path())
@output("--out", type=folder_path(file_okay=False), metavar="DIR", help="Folder of the dataset; needed unless --list.")
@output("--list", "only_list", is_flag=True, help="Show the topics, their rates and what each would be used as; convert nothing.")
@output("--sequence", default="", show_default=False, metavar="NAME", help="Name of the sequence, for one recording  [default: its file's]")
@output("--hz", type=float, default=ConvertOptions.hz, metavar="RATE", help="Frames per second to take; 0 takes all.")
@output("--png", is_flag=True, help="Write PNG, lossless, instead of JPEG of quality 95; images recorded as JPEG stay JPEG.")
@_topic("image_topic", "Images of the left or only camera  [default: found by name]")
@_topic("camera_info_topic", "Their camera_info  [default: the one beside them]")
@_topic("right_image_topic", "Images of the right camera  [default: the left one's name with right]")
@_topic("right_camera_info_topic", "Their camera_info  [default: the one beside them]")
@_topic("depth_topic", "Depth images  [default: found by name]")
@_topic("points_topic", "Laser scans, where there are no depth images  [default: found by type]")
@cameras("--intrinsics", nargs=4, type=float, default=None, metavar="FX FY CX CY", help="Left camera, in pixels of its image as recorded.")
@cameras("--depth_extrinsics", **matrix, help="Transform T_camera_depth, 3x4 row by row  [default: from /tf_static]")
@cameras("--points_extrinsics", **matrix, help="Transform T_camera_points, 3x4 row by row  [default: from /tf_static]")
@split_options
@no_split_option
@click.pass_context
def from_bag(ctx: click.Context, /, bags: tuple[Path, ...], out: Path | None, only_list: bool, sequence: str, **options: Any) -> None:
    """Convert ROS recordings to a dataset: rectified images, depth, calibration, split lists, a sheet of pictures.

    BAG is a .bag, .db3 or .mcap, a folder of ROS 2, or a folder that holds several of these. Each becomes a sequence <out>/<its name>;
    images keep their size. Repeat the command to resume an interrupted conversion.

    \b
    md-data from-bag drive.bag --list
    md-data from-bag drives/ --out evo_data
    md-train --dataset evo --split evo --data_path evo_data
    """
    from dataload.bags.batch import convert_all, sequences_of
    from dataload.bags.formats.reading import require_rosbags
    from dataload.footage.split_lists import check_shares

    if out is None and not only_list:
        raise click.UsageError("--out is missing: the folder to write the dataset to (or --list, to look first)")
    split = {name: options.pop(name) for name in ("val_share", "test_share", "seed", "keep_static", "replace_split", "no_split")}
    with usage_errors():
        check_shares(split["val_share"], split["test_share"])
        config = ConvertOptions(**options)
        named = sequences_of(bags, sequence)
    require_rosbags()
    if only_list or out is None:
        ctx.exit(max([_show(bag, config) for bag in named.values()]))
    try:
        outcome = convert_all(named, out, config, say=partial(say, err=True))
    except KeyboardInterrupt:
        say("what is done is kept; repeat the command to resume", err=True)
        raise
    failures = list(outcome.failures)
    if outcome.reports:
        failures += _finish(out, outcome, split)
    failures += [f"{report.bag} could not be read whole; sequence {report.folder.name} holds what could" for report in outcome.damaged]
    for failure in failures:
        say(f"Error: {failure}", err=True)
    ctx.exit(1 if failures else 0)


def _show(bag: Path, config: ConvertOptions) -> int:
    """Say what is in a recording; returns the exit status, 1 where it cannot be opened."""
    from dataload.bags.batch import failure
    from dataload.bags.listing import describe
    from splits.errors import InputError

    try:
        say(*describe(bag, config))
    except InputError as error:
        say(f"Error: {failure(bag, error)}", err=True)
        return 1
    return 0


def _finish(out: Path, outcome: Outcome, split: dict[str, Any]) -> list[str]:
    """Say what was made, make the sheet and the split lists, say what comes next; returns why there is no split."""
    from dataload.bags.summary import describe, write_sheet
    from dataload.frames.camera_formats import LEFT

    for report in outcome.reports:
        say(*describe(report))
    say(f"pictures: {write_sheet(out, outcome.reports)}")
    if split.pop("no_split"):
        return []
    from dataload.footage.split_lists import split_from
    from splits.errors import InputError

    try:
        say(*split_from(out, DATASET, None, **split))
    except InputError as error:
        return [str(error)]
    first = outcome.reports[0].calibration.cameras[LEFT]
    # One recording without a right camera, and its frames would have no pair.
    stereo = " --use_stereo" if all(report.right for report in outcome.reports) else ""
    say(f"next: md-train --dataset {DATASET} --split {SPLIT} --data_path {quoted(out)} {usual_size(*first.size_px)}{stereo}")
    return []
