"""``md-data store``: the frames that training keeps decoded."""

from __future__ import annotations

from pathlib import Path

import click

from dataload.command import Group

folder_option = click.option(
    "--frame_store_dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _, __, folder: folder and folder.expanduser(),
    help="Folder of the stores  [default: the cache folder]",
)


@click.group(cls=Group)
def store() -> None:
    """Frames that training keeps decoded (md-train --frame_store)."""


@store.command("list")
@folder_option
def list_stores(folder: Path | None) -> None:
    """Show what there is, of what, and what it takes."""
    from dataload.store_build import gigabytes
    from dataload.stores import stores

    folder = folder or _default_folder()
    found = stores(folder)
    if not found:
        click.echo(f"no frame stores in {folder}")
        return
    width = max(len(info.name) for info in found)
    for info in found:
        of = f"{info.frames} of {len(info.key.names)} frames of {info.key.data_path}, by {info.key.made_by}" if info.key else "no frames"
        click.echo(f"{info.name:<{width}}  {gigabytes(info.taken_bytes):>9}  {info.state:<13}  {of}")
    click.echo(f"{gigabytes(sum(info.taken_bytes for info in found))} in {folder}")


@store.command()
@click.argument("names", nargs=-1)
@folder_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], folder: Path | None) -> None:
    """Check every frame of the named stores, or of all.

    Each is read and compared with its checksum; each source file is looked at for changes.
    """
    from dataload.datasets.base import some
    from dataload.stores import find, stores
    from dataload.stores import verify as check

    folder = folder or _default_folder()
    sound = True
    for info in find(folder, names) if names else stores(folder):
        if not names and info.state != "whole":
            click.echo(f"{info.name}: passed over, it {info.state}")
            continue
        damaged, changed = check(info)
        sound = sound and not damaged and not changed
        if damaged:
            click.echo(f"{info.name}: {len(damaged)} of {info.frames} frames damaged: {some(damaged)}; decoded anew when next read")
        if changed:
            click.echo(f"{info.name}: {len(changed)} of {info.frames} sources changed or gone: {some(changed)}; the next run takes them in")
        if not damaged and not changed:
            click.echo(f"{info.name}: all {info.frames} frames are sound")
    ctx.exit(0 if sound else 1)


@store.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All stores of the folder.")
@folder_option
def remove(names: tuple[str, ...], everything: bool, folder: Path | None) -> None:
    """Take stores away; a run that needs one makes it."""
    from dataload.store_build import gigabytes
    from dataload.stores import find, stores
    from dataload.stores import remove as take_away

    if bool(names) == everything:
        raise click.UsageError("name the stores to remove (md-data store list shows them), or give --all")
    folder = folder or _default_folder()
    for info in stores(folder) if everything else find(folder, names):
        take_away(info)
        click.echo(f"removed {info.name}: {gigabytes(info.taken_bytes)}")


def _default_folder() -> Path:
    from dataload.store_choice import default_folder

    return default_folder()
