"""The datasets by the name that ``--dataset`` takes; importing this imports none of them."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from splits import check_name
from splits.errors import InputError

if TYPE_CHECKING:
    from dataload.config import DataConfig
    from dataload.datasets.base import Dataset

DEFAULT_DATA_PATH = Path("kitti_data")
DEFAULT_SPLIT = "eigen_zhou"

DATASETS: dict[str, str] = {
    "kitti": "dataload.datasets.kitti:KittiRaw",
    "kitti_odom": "dataload.datasets.kitti_odom:KittiOdom",
    "kitti_depth": "dataload.datasets.kitti_depth:KittiDepth",
    "kitti_test": "dataload.datasets.kitti_test:KittiTest",
    "demo": "dataload.datasets.demo:Demo",
}


def dataset_class(name: str) -> type[Dataset]:
    """The class of a dataset's name; ``InputError`` names the choices."""
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"dataset {name!r} is unknown; {hint}choose from {', '.join(DATASETS)}")
    module, _, attribute = DATASETS[name].partition(":")
    return getattr(import_module(module), attribute)


def open_dataset(config: DataConfig) -> Dataset:
    """The dataset that a config names, at its ``data_path`` with its ``image_ext``."""
    return dataset_class(config.dataset)(config.data_path, config.image_ext)


def locate(dataset: str, data_path: Path | None, split: str | None) -> tuple[Path, str]:
    """Where a dataset lies and which split it is read by, with the defaults filled in: the demo brings both, KITTI its published ones.

    Raises:
        InputError: the split is neither a folder nor a known name.
    """
    if dataset != "demo":
        check_name(split or DEFAULT_SPLIT)
        return data_path or DEFAULT_DATA_PATH, split or DEFAULT_SPLIT
    from dataload.demo_world import default_folder, split_folder

    folder = data_path or default_folder()
    return folder, str(split_folder(folder)) if split in (None, "demo") else split
