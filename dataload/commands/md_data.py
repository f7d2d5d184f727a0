"""``md-data``: everything before training: fetching, converting and checking data, split lists, ground truth, frame stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dataload.commands.check import check
from dataload.commands.command import Group, NameOrFolder, folder_path, say, usage_errors
from dataload.commands.doctor import doctor
from dataload.commands.from_bag import from_bag
from dataload.commands.from_video import from_video
from dataload.commands.kitti import download, jpeg
from dataload.commands.options import TEST_SPLITS, DatasetName, GroupedCommand, option_group
from dataload.commands.split_options import split_options
from dataload.commands.store import store
from dataload.config import DataConfig
from splits.version import DISTRIBUTION

published = option_group("Published lists")
own = option_group("Lists of your own sequences")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@click.version_option(package_name=DISTRIBUTION)
def md_data() -> None:
    """Prepare data: fetch, convert, check, split."""


for command in (store, check, doctor, download, from_bag, from_video, jpeg):
    md_data.add_command(command)


@md_data.command(cls=GroupedCommand, short_help="Show, write or make split lists")
@published("--write", "folder", type=folder_path(file_okay=False), metavar="DIR", help="Write every list into this folder.")
@own("--from", "source", type=folder_path(file_okay=False), metavar="DIR", help="Make lists of the sequences in this folder.")
@own("--dataset", "dataset_name", type=DatasetName(), default="folder", help="Layout of the sequences.")
@own("--out", type=folder_path(file_okay=False), metavar="DIR", help="Where to write the lists  [default: where --split finds them]")
@split_options
@click.pass_context
def splits(ctx: click.Context, /, folder: Path | None, source: Path | None, dataset_name: str, out: Path | None, **options: Any) -> None:
    """Show the published split lists or write them as files; or make lists of your own sequences.

    \b
    md-data splits                            the published names and the lengths of their lists
    md-data splits --write lists              <DIR>/<name>/{train,val,test}_files.txt, for --split lists/<name>
    md-data splits --from my_drives           my_drives/splits/folder, which --dataset folder takes
    """
    if source is not None:
        from dataload.footage.split_lists import split_from

        if folder is not None:
            raise click.UsageError("--write is for the published lists, --from for your own; give one of them")
        say(*split_from(source, dataset_name, out, **options))
        return
    given = [f"--{name}" for name in ("out", *options) if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        raise click.UsageError(f"{given[0].removesuffix('_share')} is for lists of your own: add --from DIR")
    from dataload.system.files import whole_file
    from dataload.system.locks import hold
    from splits import ARCHIVES_FILE, NAMES, archives, read_lines, subsets, write_splits

    if folder is not None:
        with hold(folder, "wait until it has ended, or name another --write", folder=True):
            for path in write_splits(folder, whole_file):
                say(str(path))
        return
    say(f"{'split':<16} {'list':<8} {'lines':>6}")
    for name in NAMES:
        for subset in subsets(name):
            say(f"{name:<16} {subset:<8} {len(read_lines(name, subset)):>6}")
    say(f"{len(archives())} archives hold all drives; --write DIR writes their addresses to {ARCHIVES_FILE}")


@md_data.command(short_help="Make the ground truth of a split once, for md-eval")
@click.option("--data_path", type=folder_path(), help="The dataset's root folder; not needed for demo.")
@click.option(
    "--split",
    type=NameOrFolder(TEST_SPLITS),
    required=True,
    metavar="NAME|FOLDER",
    help="A named split with a test list, a folder with test_files.txt, or demo.",
)
@click.option("--dataset", "dataset_name", type=DatasetName(), default=DataConfig.dataset, show_default=True)
@click.option("--png", is_flag=True, help="The images are .png, not .jpg; accepted as in other commands, though no image is read.")
@click.option("--depth_scale", type=float, default=None, help="Units of a depth PNG per metre, for evo and folder  [default: as md-eval]")
@click.option("--out", type=folder_path(dir_okay=False), help="File to write; the default is where md-eval looks.")
@click.pass_context
def gt(
    ctx: click.Context, data_path: Path | None, split: str, dataset_name: str, png: bool, depth_scale: float | None, out: Path | None
) -> None:
    """Make the ground truth of a split's test list once, for md-eval.

    Made from laser scans, as published; from annotated depth (proj_depth) for eigen_benchmark and kitti_depth. Saved as
    <FOLDER>/gt_depths.npz, or in <data_path>/gt_depths_<NAME>.npz for a named split. All source files are
    checked first: the file is made with every frame, or not at all.
    """
    from dataload.datasets import locate, make_dataset

    if split == "demo" and ctx.get_parameter_source("dataset_name") is ParameterSource.DEFAULT:
        dataset_name = "demo"
    if data_path is None and dataset_name != "demo":
        raise click.UsageError("--data_path is missing: the folder that holds the dataset")
    with usage_errors():
        data_path, split = locate(dataset_name, data_path, split)

    from dataload.datasets.presence import require_data_path
    from dataload.ground_truth import dataset_for, default_path, read_ground_truth, scored_positions, write_ground_truth
    from dataload.system.locks import hold
    from splits import read_lines, subset_source

    dataset = make_dataset(dataset_name, data_path, ".png" if png else None, depth_scale=depth_scale)
    require_data_path(dataset)
    with usage_errors():
        lines = read_lines(split, "test")
    refs = dataset.refs(lines, source=subset_source(split, "test"))
    refs = tuple(refs[index] for index in scored_positions(dataset, refs))
    path = out or default_path(split, dataset.data_path)
    with hold(path, "wait until it has ended, or name another --out"):
        write_ground_truth(path, dataset_for(split, dataset), refs)
        depths = read_ground_truth(path, refs)
    say(f"{len(depths)} depth maps in {path}: {depths.values_m.size:,} measured pixels, {depths.values_m.size // len(depths):,} per map")


@md_data.command(short_help="Make the demo world, a small rendered street")
@click.option("--out", type=folder_path(file_okay=False), help="Folder to make it in; the default is the cache folder.")
@click.option("--remake", is_flag=True, help="Make it again even if it exists.")
def demo(out: Path | None, remake: bool) -> None:
    """Make the demo world: a small rendered street in KITTI raw layout."""
    from dataload.demo import world as demo_world

    say(str(demo_world.ensure(out, remake=remake)))
