"""``md-data from-video``: videos to a dataset that md-train reads."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataload.commands.command import folder_path, say, usage_errors
from dataload.commands.options import GroupedCommand, Unlisted, Values, option_group
from dataload.commands.split_options import no_split_option, split_options
from dataload.config import usual_size
from dataload.system.shell import quoted

if TYPE_CHECKING:
    from dataload.footage.video_frames import FrameOptions, VideoSequence

SPLIT = "folder"
INTRINSICS_HELP = "The camera, in pixels of the upright frames; add WIDTH HEIGHT if it is for another size. Written to calibration.yaml."

output = option_group("Output")
frames = option_group("Frames")


class VideoCommand(GroupedCommand):
    """A command whose ``--intrinsics`` takes only the numbers that follow it, not the videos after them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the numbers into one argument, then parse as usual."""
        joined = list(args)
        if "--intrinsics" in joined:
            start = joined.index("--intrinsics") + 1
            numbers = list(takewhile(_is_number, joined[start:]))
            if numbers:
                joined[start : start + len(numbers)] = [" ".join(numbers)]
        return super().parse_args(ctx, joined)


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


@click.command("from-video", short_help="Turn videos into a dataset", cls=VideoCommand)
@click.argument("videos", cls=Unlisted, nargs=-1, required=True, metavar="VIDEO...", type=folder_path())
@output("--out", required=True, type=folder_path(file_okay=False), metavar="DIR", help="Folder of the dataset; it may exist already.")
@output("--sequence", metavar="NAME", default=None, help="Name of the sequence, for one video  [default: its file's name]")
@output("--png", is_flag=True, help="Write PNG, lossless and several times as large, instead of JPEG of quality 95.")
@frames("--fps", type=float, default=10.0, metavar="RATE", help="Frames per second; KITTI has 10: neighbours about a metre apart.")
@frames("--start", "start_s", type=float, default=0.0, metavar="S", help="Start at this second of the video.")
@frames("--end", "end_s", type=float, default=None, metavar="S", help="Stop at this second  [default: the video's end]")
@frames("--intrinsics", type=Values(float), default=None, metavar="FX FY CX CY", help=INTRINSICS_HELP)
@split_options
@no_split_option
@click.pass_context
def from_video(ctx: click.Context, /, videos: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Turn videos into a dataset: <out>/<video's name>/<number>.jpg, split lists, a sheet of pictures.

    Each VIDEO becomes a sequence of upright frames, chosen by their timestamps. Existing sequences are kept: repeat the command
    to resume an interrupted one, or to add videos to the dataset (and to its lists, with --replace_split).

    \b
    md-data from-video drive.mp4 --out my_data
    md-data from-video drives/*.mp4 --out my_data --fps 5 --intrinsics 1050 1050 959.5 539.5
    md-train --dataset folder --data_path my_data --intrinsics 1050 1050 959.5 539.5
    """
    from dataload.footage.split_lists import check_shares
    from dataload.footage.video_frames import FrameOptions, sequences_of

    with usage_errors():
        config = FrameOptions(**{name: options[name] for name in ("fps", "start_s", "end_s", "png", "intrinsics")})
        check_shares(options["val_share"], options["test_share"])
        named = sequences_of(videos, options["sequence"])
    from dataload.footage.video_reader import require_av
    from dataload.system.files import require_writable_folder

    require_av()
    require_writable_folder(out, "choose another folder with --out")
    try:
        made, failures = _extract(named, out, config)
    except KeyboardInterrupt:
        say("what is done is kept; repeat the command to resume", err=True)
        raise
    if made:
        failures += _finish(out, made, config, options)
    for failure in failures:
        say(f"Error: {failure}", err=True)
    ctx.exit(1 if failures else 0)


def _extract(named: dict[str, Path], out: Path, config: FrameOptions) -> tuple[list[VideoSequence], list[str]]:
    """The sequences that are there now, and what is wrong with videos."""
    from dataload.footage.video_frames import extract
    from splits.errors import InputError

    made, failures = [], []
    for name, video in named.items():
        try:
            done = extract(name, video, out, config)
        except InputError as error:
            failures.append(str(error))
            continue
        made.append(done)
        height, width = done.size_px
        say(f"{name}: {done.frames} frames of {width}x{height} in {done.folder}{' (made before)' if done.already else ''}")
        if done.fault:
            failures.append(f"{video}: {done.fault}; what could be read is kept")
    return made, failures


def _finish(out: Path, made: list[VideoSequence], config: FrameOptions, options: dict[str, Any]) -> list[str]:
    """Make the sheet and the split lists, and say what comes next; returns why there is no split."""
    from dataload.datasets import SPLITS_FOLDER
    from dataload.footage.video_frames import write_sheet

    say(f"pictures: {write_sheet(out, [done.folder for done in made])}")
    if options["no_split"]:
        return []
    from dataload.footage.split_lists import split_from
    from splits.errors import InputError

    chosen = {name: options[name] for name in ("val_share", "test_share", "seed", "keep_static", "replace_split")}
    try:
        say(*split_from(out, "folder", out / SPLITS_FOLDER / SPLIT, **chosen))
    except InputError as error:
        return [str(error)]
    camera = "" if config.intrinsics else " --intrinsics FX FY CX CY"
    say(f"next: md-train --dataset folder --data_path {quoted(out)} {usual_size(*made[0].size_px)}{camera}")
    if camera:
        say("FX FY CX CY, the camera's focal lengths and principal point in pixels of the frames, are what a calibration gives")
    return []
