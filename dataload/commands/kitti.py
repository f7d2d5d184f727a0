"""``md-data download`` and ``md-data jpeg``: KITTI raw from its server, and its images as the published numbers were made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from dataload.commands.command import Command, Group, NameOrFolder, folder_path, say, usage_errors
from dataload.commands.options import Unlisted
from dataload.system.shell import quoted
from splits import NAMES
from splits.errors import InputError
from splits.rules import ARCHIVE_BASE

if TYPE_CHECKING:
    from dataload.kitti.download import Plan
    from dataload.kitti.jpeg import Outcome

# One connection seldom uses the whole bandwidth, and others continue while an archive is unpacked. Each archive in flight needs its zip's
# size on disk, up to about 20 GB.
DOWNLOAD_JOBS = 3
LOCK = ".md_download.lock"
CONTINUE = "what has been fetched is kept; repeat the command to resume"


def _address(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"base_url: {value!r} is no address; give one like {ARCHIVE_BASE}")
    return value


data_path_option = click.option(
    "--data_path",
    type=folder_path(),
    required=True,
    metavar="DIR",
    help="The dataset's root folder, which holds the dates (2011_09_26, ...).",
)


@click.group(cls=Group, short_help="Fetch a dataset")
def download() -> None:
    """Fetch a dataset."""


@download.command("kitti")
@data_path_option
@click.option("--drives", multiple=True, metavar="DRIVE...", help="Only these: 2011_09_26_drive_0001, or a date for all of its drives.")
@click.option(
    "--split",
    "splits",
    type=NameOrFolder(NAMES),
    multiple=True,
    metavar="NAME|FOLDER",
    help="Only the drives of this split's lists; may be repeated.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["annotated", "selection", "odometry"]),
    help="Instead of KITTI raw: annotated depth (eigen_benchmark), the test images of split benchmark, or odometry; may be repeated.",
)
@click.option("--jobs", type=click.IntRange(1, 16), metavar="N", default=DOWNLOAD_JOBS, show_default=True, help="Archives fetched at once.")
@click.option("--base_url", default=ARCHIVE_BASE, callback=_address, metavar="URL", help="A mirror's address  [default: KITTI's own]")
@click.option("--dry_run", is_flag=True, help="Show what would be fetched and how much disk it takes.")
# The drives that follow the first of --drives.
@click.argument("more_drives", cls=Unlisted, nargs=-1, metavar="")
@click.pass_context
def download_kitti(
    ctx: click.Context,
    data_path: Path,
    drives: tuple[str, ...],
    more_drives: tuple[str, ...],
    splits: tuple[str, ...],
    parts: tuple[str, ...],
    jobs: int,
    base_url: str,
    dry_run: bool,
) -> None:
    """Fetch KITTI raw and unpack it: all 61 drives of the published splits, or some, and the calibration of their dates.

    Complete drives are left alone. Zips found in DIR are used, completed if need be, and deleted once they are unpacked.
    Repeat the command to resume an interrupted download.

    \b
    md-data download kitti --data_path kitti --split eigen_zhou --split eigen
    md-data download kitti --data_path kitti --drives 2011_09_26_drive_0001 2011_09_28
    md-data download kitti --data_path kitti --part annotated --part selection
    md-data download kitti --data_path kitti_odom --part odometry
    """
    from dataload.kitti.archives import benchmark_archives, chosen_archives
    from dataload.kitti.download import fetch_all, plan, require_room

    chosen = _chosen_drives((*drives, *more_drives), splits)
    raw = chosen_archives(chosen, base_url) if chosen is not None or not parts else []
    archives = [*raw, *benchmark_archives(parts, base_url)]
    with nullcontext() if dry_run else _alone_in(data_path):
        todo = plan(data_path, archives)
        _show_plan(todo, jobs, in_full=dry_run)
        require_room(todo, jobs)
        if dry_run:
            ctx.exit(1 if todo.faults else 0)
        faults = fetch_all(todo, jobs, say)
    if faults:
        for archive, fault in faults.items():
            say(f"{archive.url}: {fault}", err=True)
        raise InputError(f"{len(faults)} of {len(archives)} archives are not there, for the reasons above; {CONTINUE}")
    say(f"all {len(archives)} archives are in {data_path}")
    if raw:
        say("its images are PNG: make JPEGs of them, or give --png to each command")
        say(f"next: md-data jpeg --data_path {quoted(data_path)}")


def _chosen_drives(names: Sequence[str], splits: Sequence[str]) -> set[str] | None:
    """The drives that the options name; None for all where neither was given."""
    from dataload.kitti.archives import drives_of_split, find_drives

    if not names and not splits:
        return None
    with usage_errors():
        chosen = find_drives(value for text in names for value in text.replace(",", " ").split()).union(*map(drives_of_split, splits))
        if not chosen:  # as from a shell variable that is not set
            raise InputError("no drives are named; leave out --drives and --split for all")
    return chosen


@contextmanager
def _alone_in(data_path: Path) -> Iterator[None]:
    """Make a folder and keep other downloads out of it; says how to resume after Ctrl-C."""
    from dataload.system.files import require_writable_folder
    from dataload.system.lock_files import one_process

    require_writable_folder(data_path, "give another --data_path")
    lock = one_process(data_path / LOCK, lambda: say(f"waiting for another download into {data_path}", err=True))
    with ExitStack() as stack:
        with suppress(NotImplementedError):  # a disk without locks: there the user has to avoid two runs at a time
            stack.enter_context(lock)
        try:
            yield
        except KeyboardInterrupt:
            say("", f"Stopped; {CONTINUE}", err=True)
            raise


def _show_plan(todo: Plan, jobs: int, *, in_full: bool) -> None:
    from dataload.system.disk import free_bytes, gigabytes

    if in_full:
        for archive, size in todo.sizes.items():
            have = todo.there_bytes(archive)
            so_far = f", {gigabytes(have)} of it there" if have else ""
            say(f"{archive.name:<32} {'size unknown' if size is None else gigabytes(size):>12}{so_far}")
        for archive, fault in todo.faults.items():
            say(f"{archive.url}: {fault}", err=True)
    there = sum(map(todo.there_bytes, todo.sizes))
    so_far = f", {gigabytes(there)} of it there" if there else ""
    say(f"{len(todo.there)} archives are there already, {len(todo.sizes)} to fetch: {gigabytes(todo.total_bytes)}{so_far}")
    if todo.sizes:
        say(
            f"they take up to {gigabytes(todo.peak_bytes(jobs))} of the disk of {todo.data_path}, which has "
            f"{gigabytes(free_bytes(todo.data_path))} free"
        )


@click.command(cls=Command, short_help="Make JPEGs of KITTI raw's PNG images")
@data_path_option
@click.option("--delete", is_flag=True, help="Delete each PNG whose JPEG has been written, decoded and compared with it.")
@click.option(
    "--quality", type=click.IntRange(1, 100), metavar="N", default=92, show_default=True, help="JPEG quality; 92 is the published one."
)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes  [default: one per core]")
@click.pass_context
def jpeg(ctx: click.Context, data_path: Path, delete: bool, quality: int, jobs: int | None) -> None:
    """Make JPEGs of KITTI raw's PNG images: a fifth of the bytes, and what the published numbers were trained on.

    Quality 92, chroma at half size (4:2:0), beside each PNG of image_00 to image_03. Complete JPEGs are kept.
    """
    from dataload.system.locks import hold

    with hold(data_path / "md_jpeg", f"wait until it has ended: both would make the JPEGs of {data_path}"):
        ctx.exit(_make_jpegs(data_path, delete=delete, quality=quality, jobs=jobs))


def _make_jpegs(data_path: Path, *, delete: bool, quality: int, jobs: int | None) -> int:
    """Convert with a progress bar and say what was done; returns the exit status."""
    from dataload.kitti.jpeg import convert_all, find_images
    from dataload.system.machine import usable_cores
    from dataload.system.progress import progress_bar

    pngs, num_jpegs = find_images(data_path)
    if not pngs:
        say(f"no PNG images in {data_path}; {num_jpegs} JPEGs are there")
        return 0
    outcomes: list[Outcome] = []
    bar = progress_bar(len(pngs), "JPEG", "images")
    try:
        with bar, closing(convert_all(pngs, quality=quality, delete=delete, jobs=min(jobs or usable_cores(), len(pngs)))) as done:
            for outcome in done:
                outcomes.append(outcome)
                bar.update()
    except KeyboardInterrupt:
        say("", "Stopped; the JPEGs made so far are kept; repeat the command to resume", err=True)
        raise
    _show_outcomes(outcomes, delete=delete)
    return 1 if any(outcome.fault for outcome in outcomes) else 0


def _show_outcomes(outcomes: Sequence[Outcome], *, delete: bool) -> None:
    from dataload.system.disk import gigabytes

    good = [outcome for outcome in outcomes if not outcome.fault]
    made = sum(outcome.made for outcome in good)
    before, after = (gigabytes(sum(getattr(outcome, size) for outcome in good)) for size in ("png_bytes", "jpeg_bytes"))
    say(f"{made} JPEGs made, {len(good) - made} there already: {before} of PNG are {after} of JPEG")
    if good:
        say(f"{before} freed" if delete else f"--delete would free {before}, once each JPEG is compared with its PNG")
    bad = sorted((outcome for outcome in outcomes if outcome.fault), key=lambda outcome: outcome.png)
    for outcome in bad:
        say(f"{outcome.png} {outcome.fault}", err=True)
    if bad:
        say(f"Error: {len(bad)} of {len(outcomes)} PNGs have no sound JPEG, for the reasons above; they are kept", err=True)
