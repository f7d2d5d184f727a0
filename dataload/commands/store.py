"""``md-data store``: the frames that training keeps decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataload.commands.command import Group, folder_path, say

if TYPE_CHECKING:
    from dataload.store.listing import StoreInfo

folder_option = click.option(
    "--frame_store_dir",
    "folder",
    type=folder_path(file_okay=False),
    help="Folder of the stores  [default: the cache folder]",
)


@click.group(cls=Group, short_help="List, verify and remove frame stores")
def store() -> None:
    """List, verify and remove the frames that training keeps decoded (md-train --frame_store)."""


@store.command("list")
@folder_option
def list_stores(folder: Path | None) -> None:
    """Show the stores: what each holds and how much disk it takes."""
    from dataload.system.disk import gigabytes

    found = _stores(folder)
    width = max((len(info.path.name) for info in found), default=0)
    for info in found:
        of = f"; {info.frames} of {len(info.key.names)} frames of {info.key.data_path}, by {info.key.made_by}" if info.key else ""
        say(f"{info.path.name:<{width}}  {gigabytes(info.taken_bytes):>9}  {info.made:<10}  {info.state}{of}")
    if found:
        say(f"{gigabytes(sum(info.taken_bytes for info in found))} in {found[0].path.parent}")


@store.command()
@click.argument("names", nargs=-1)
@folder_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], folder: Path | None) -> None:
    """Check every frame of the named stores, or of all.

    Each frame is read and compared with its checksum; each source file is checked for changes. Exit status 1 if anything is wrong.
    """
    from dataload.datasets.base import some
    from dataload.store.listing import MAKING, UNFINISHED, WHOLE
    from dataload.store.listing import verify as check

    sound = True
    for info in _stores(folder, names):
        name = info.path.name
        if info.state != WHOLE:
            say(f"{name}: {info.state}")
            sound = sound and info.state in (MAKING, UNFINISHED)
            continue
        damaged, changed = check(info)
        sound = sound and not damaged and not changed
        if damaged:
            said = f"{len(damaged)} of {info.frames} frames are damaged: {some(damaged)}; decoded again when next read"
            say(f"{name}: {said}")
        if changed:
            say(f"{name}: {len(changed)} of {info.frames} sources are gone or have changed: {some(changed)}")
        if not damaged and not changed:
            say(f"{name}: all {info.frames} frames are sound")
    ctx.exit(0 if sound else 1)


@store.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All stores of the folder.")
@folder_option
def remove(names: tuple[str, ...], everything: bool, folder: Path | None) -> None:
    """Remove stores; a run that needs one makes it again."""
    from dataload.store.listing import remove as take_away
    from dataload.system.disk import gigabytes

    if bool(names) == everything:
        raise click.UsageError("name the stores to remove (md-data store list shows them), or give --all")
    for info in _stores(folder, names):
        take_away(info)
        say(f"removed {info.path.name}: {gigabytes(info.taken_bytes)}")


def _stores(folder: Path | None, names: Sequence[str] = ()) -> list[StoreInfo]:
    """The named stores of a folder, or all; says so where it has none."""
    from dataload.store.choice import default_folder
    from dataload.store.listing import find, stores

    folder = folder or default_folder()
    if names:
        return find(folder, names)
    found = stores(folder)
    if not found:
        say(f"no frame stores in {folder}")
    return found
