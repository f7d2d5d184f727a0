"""The datasets by the name that ``--dataset`` takes; importing this imports none of them."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataload.config import DEFAULT_DATA_PATH, DataConfig
from dataload.system.shell import quoted
from splits import NAMES, check_name
from splits.deprecation import warn_deprecated
from splits.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from dataload.datasets.base import Dataset

SPLITS_FOLDER = "splits"
# Where installed packages name datasets of their own: a line "name = package.module:Class"; and where they did so before version 0.2.
ENTRY_POINTS, OLD_ENTRY_POINTS = "monodepth_engine.datasets", "md_engine.datasets"

DATASETS: dict[str, str] = {
    "kitti": "dataload.datasets.kitti:KittiRaw",
    "kitti_odom": "dataload.datasets.kitti_odom:KittiOdom",
    "kitti_depth": "dataload.datasets.kitti_depth:KittiDepth",
    "kitti_test": "dataload.datasets.kitti_test:KittiTest",
    "evo": "dataload.datasets.evo:Evo",
    "folder": "dataload.datasets.folder:Folder",
    "demo": "dataload.datasets.demo:Demo",
}
# Those whose splits are published by name; all others bring their own.
PUBLISHED = ("kitti", "kitti_odom", "kitti_depth", "kitti_test")


def dataset_class(name: str) -> type[Dataset]:
    """The class of a dataset's name: built in, of an entry point, or ``package.module:Class``, also of a file in the current folder.

    Raises:
        InputError: unknown, with the choices; or no such module or class, or one that is no dataset.
    """
    target = DATASETS.get(name)
    if target is None:
        target = name if ":" in name else find_entry_point(name).value
        # A console script does not search the folder that it is called from, where your own file may be.
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # one that the module itself asks for
        raise InputError(f"dataset {name!r}: no module {error.name}; install it, or run where {module.split('.')[0]}.py lies") from error
    from dataload.datasets.base import Dataset

    if not (isinstance(found, type) and issubclass(found, Dataset)):
        raise InputError(f"dataset {name!r}: {module} has no class {attribute!r} that is a dataload.datasets.base.Dataset")
    return found


def known_names() -> list[str]:
    """The names of all datasets, built in and of installed packages."""
    return [*DATASETS, *_entry_points()]


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    old, new = ({entry.name: entry for entry in entry_points(group=group)} for group in (OLD_ENTRY_POINTS, ENTRY_POINTS))
    return old | new


def find_entry_point(name: str) -> EntryPoint:
    """Where an installed package has the dataset of a name; ``InputError`` with the choices where none has."""
    found = _entry_points()
    if name in found:
        if found[name].group == OLD_ENTRY_POINTS:
            whose = f"the entry point group {OLD_ENTRY_POINTS} (of dataset {name!r}, {found[name].value})"
            warn_deprecated(whose, ENTRY_POINTS, removed_in="0.4")
        return found[name]
    known = known_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"dataset {name!r} is unknown; {hint}choose from {', '.join(known)}, or name a class of yours as package.module:Class")


def make_dataset(name: str, data_path: Path, image_ext: str | None = None, **options: Any) -> Dataset:
    """The dataset of a name at its folder; of ``options`` (see ``base.DATASET_OPTIONS``) those count that are not None.

    Raises:
        InputError: an unknown name, or an option that the dataset cannot be given.
    """
    cls = dataset_class(name)
    given = {option: value for option, value in options.items() if value is not None}
    return cls(data_path, image_ext or cls.default_image_ext, **given)


def open_dataset(config: DataConfig) -> Dataset:
    """The dataset that a config names, at its ``data_path`` with its ``image_ext``."""
    return make_dataset(config.dataset, config.data_path, config.image_ext, depth_scale=config.depth_scale, intrinsics=config.intrinsics)


def locate(dataset: str, data_path: Path | None, split: str | None, *, published: str = DataConfig.split) -> tuple[Path, str]:
    """Where a dataset lies and which split it is read by, with the defaults filled in: the demo brings both, KITTI its published ones.

    A split is a published name, where the dataset has such; else a folder, or ``<data_path>/splits/<split>``.

    Args:
        published: KITTI's split where none is given.

    Raises:
        InputError: no data_path where there is no default, or no such split.
    """
    if dataset == "demo":
        from dataload.demo.world import default_folder, split_folder

        folder = data_path or default_folder()
        return folder, str(split_folder(folder)) if split in (None, "demo") else split
    if dataset in PUBLISHED:
        data_path, split = data_path or DEFAULT_DATA_PATH, split or published
    elif data_path is None:
        raise InputError(f"--data_path is missing: the folder that holds the sequences of dataset {dataset}")
    else:
        split = split or dataset_class(dataset).default_split
        if split is None:
            raise InputError(f"--split is missing: a folder with train_files.txt and val_files.txt for dataset {dataset}")
    if dataset in PUBLISHED and split in NAMES:
        return data_path, split
    own = data_path / SPLITS_FOLDER / split
    if Path(split).is_dir():
        # For your own dataset a name is always a folder; later readers must take it for a path too.
        return data_path, os.path.join(os.curdir, split) if split in NAMES else split
    if own.is_dir():
        return data_path, str(own)
    if dataset not in PUBLISHED and not Path(split).exists():
        if not data_path.is_dir():
            raise InputError(f"data_path {data_path} does not exist or is no folder; give the folder that holds the sequences")
        makes = f"md-data splits --from {quoted(data_path)} --dataset {quoted(dataset)} makes one there"
        raise InputError(f"no split {split!r} and no folder {own}; {makes}")
    check_name(split)
    return data_path, split
