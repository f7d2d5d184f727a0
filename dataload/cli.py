"""``md-data``: the published split lists, ground truth for evaluation, frame stores, the demo world."""

from __future__ import annotations

from pathlib import Path

import click

from dataload.command import Group, usage_errors
from dataload.datasets import DatasetName
from dataload.store_cli import store


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def md_data() -> None:
    """Prepare data: split lists, ground truth, frame stores, the demo world."""


md_data.add_command(store)


@md_data.command()
@click.option("--write", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write every list into this folder.")
def splits(folder: Path | None) -> None:
    """Show the published split lists, or write them as files.

    Without --write: a table of names, lists and numbers of lines. With it: <DIR>/<name>/{train,val,test}_files.txt, usable
    as --split <DIR>/<name>, and the list of archives to download.
    """
    from splits import ARCHIVES_FILE, NAMES, archives, read_lines, subsets, write_splits

    if folder is not None:
        for path in write_splits(folder):
            click.echo(str(path))
        return
    click.echo(f"{'split':<16} {'list':<8} {'lines':>6}")
    for name in NAMES:
        for subset in subsets(name):
            click.echo(f"{name:<16} {subset:<8} {len(read_lines(name, subset)):>6}")
    click.echo(f"{len(archives())} archives hold all drives; --write DIR writes their addresses to {ARCHIVES_FILE}")


@md_data.command()
@click.option("--data_path", type=click.Path(path_type=Path), help="The dataset's root folder; not needed for demo.")
@click.option(
    "--split", required=True, metavar="NAME|FOLDER", help="A named split with a test list, a folder with test_files.txt, or demo."
)
@click.option("--dataset", "dataset_name", type=DatasetName(), default="kitti", show_default=True)
@click.option("--png", is_flag=True, help="The images are .png, not .jpg; accepted as elsewhere, though no image is read here.")
@click.option("--depth_scale", type=float, default=None, help="Value in a depth PNG a metre, for evo and folder  [default: as md-eval]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; the default is where md-eval looks.")
def gt(data_path: Path | None, split: str, dataset_name: str, png: bool, depth_scale: float | None, out: Path | None) -> None:
    """Make the ground truth of a split's test list once, for md-eval.

    From laser scans as published; from annotated depth (proj_depth) for eigen_benchmark and kitti_depth. Kept in
    <FOLDER>/gt_depths.npz, or in <data_path>/gt_depths_<NAME>.npz for a named split. Every source file is looked for first;
    then all is made or nothing.
    """
    from dataload.datasets import locate, make_dataset

    if data_path is None and dataset_name != "demo":
        raise click.UsageError("--data_path is missing: the folder that holds the dataset")
    with usage_errors():
        data_path, split = locate(dataset_name, data_path, split)

    from dataload.check import require_data_path
    from dataload.ground_truth import dataset_for, default_path, judged_refs, read_ground_truth, write_ground_truth
    from splits import read_lines, subset_source

    dataset = make_dataset(dataset_name, data_path, ".png" if png else None, depth_scale=depth_scale)
    require_data_path(dataset)
    with usage_errors():
        lines = read_lines(split, "test")
    refs = dataset.refs(lines, source=subset_source(split, "test"))
    refs = tuple(refs[index] for index in judged_refs(dataset, refs))
    path = write_ground_truth(out or default_path(split, dataset.data_path), dataset_for(split, dataset), refs)
    depths = read_ground_truth(path, refs)
    click.echo(
        f"{len(depths)} depth maps in {path}: {depths.values_m.size:,} measured pixels, {depths.values_m.size // len(depths):,} a map"
    )


@md_data.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to make it; the default is the cache folder.")
@click.option("--remake", is_flag=True, help="Make it anew even if it is there.")
def demo(out: Path | None, remake: bool) -> None:
    """Make the demo world: a small rendered street in KITTI raw layout."""
    from dataload import demo_world

    click.echo(str(demo_world.ensure(out, remake=remake)))
