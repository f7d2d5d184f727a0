"""The check that all files of a split are there, by one scan per folder before training starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dataload.datasets.base import Dataset, some
from dataload.datasets.frame_table import wanted_frames
from dataload.frames.frame_ref import NOT_ON_DISK, FrameRef
from dataload.frames.picture import IMAGE_SUFFIXES
from splits.errors import InputError

OTHER_EXT = {".jpg": ".png", ".png": ".jpg"}
NUMBER = re.compile(r"[0-9]+")
EXT_REMEDY = {".jpg": "leave out --png", ".png": "add --png"}


def missing_files(dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int], use_stereo: bool) -> list[Path]:
    """Images that training on ``refs`` would open and that are not there, in order of folder and frame.

    Args:
        frame_ids: offsets of the frames used with each target, 0 included if the target itself is to be looked for.
        use_stereo: the target's other camera is used too.

    Raises:
        InputError: a reference that names no camera, a folder that is none of the dataset's, or neighbours that it cannot have.
    """
    unplaced = [dataset.image_path(ref) for ref in refs if ref.frame_index == NOT_ON_DISK]
    if unplaced:
        return unplaced
    wanted = wanted_frames(dataset, refs, frame_ids=frame_ids, use_stereo=use_stereo)
    missing = []
    for path, frames in sorted(wanted.items()):
        present = _names(path)
        missing += [path / frames[number] for number in sorted(frames) if frames[number] not in present]
    return missing


def require_data_path(dataset: Dataset) -> None:
    """``InputError`` where the dataset's root folder does not exist."""
    if not dataset.data_path.is_dir():
        raise InputError(f"data_path {dataset.data_path} does not exist or is no folder; give the dataset's root folder")


def require_files(dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int], use_stereo: bool) -> None:
    """Raise ``InputError`` that counts the missing images, names the first few and the likely remedy; arguments as ``missing_files``."""
    require_data_path(dataset)
    missing = missing_files(dataset, refs, frame_ids=frame_ids, use_stereo=use_stereo)
    if not missing:
        return
    named = some([dataset.relative(path) for path in missing])
    num_folders = len({path.parent for path in missing})
    raise InputError(
        f"{_count(len(missing), 'image')} of the split missing from {dataset.data_path}, in {_count(num_folders, 'folder')}: "
        f"{named}; {_remedy(dataset, refs, missing, use_stereo=use_stereo)}"
    )


def require_ground_truth(dataset: Dataset, refs: Sequence[FrameRef]) -> None:
    """Raise ``InputError`` that counts the frames without a file of ground truth, names the first few and where to get them."""
    missing = [ref for ref in refs if dataset.depth_source(ref) is None]
    if not missing:
        return
    remedy = dataset.depth_remedy(missing)
    places = dataset.depth_places(missing[0])
    if not places:
        raise InputError(remedy)
    roots = (_better_root(dataset.data_path, Path(dataset.relative(place))) for place in places)
    root = next((root for root in roots if root is not None), None)
    if root is not None:
        remedy = f"they lie under {root}: give that as data_path"
    named = some([dataset.relative(dataset.depth_places(ref)[0]) for ref in missing])
    raise InputError(f"{_count(len(missing), dataset.depth_kind)} of {len(refs)} missing from {dataset.data_path}: {named}; {remedy}")


def _remedy(dataset: Dataset, refs: Sequence[FrameRef], missing: list[Path], *, use_stereo: bool) -> str:
    """The likely remedy, the surest cause first."""
    other = OTHER_EXT.get(dataset.image_ext, "")
    num_other = _num_present(missing, other) if other else 0
    if num_other:
        return f"{num_other} of them are there as {other}: {EXT_REMEDY[other]}"
    root = _better_root(dataset.data_path, Path(dataset.relative(missing[0])))
    if root is not None:
        return f"they lie under {root}: give that as data_path"
    absent = sorted({path.parent for path in missing if not path.parent.is_dir()})
    moved = _without_first_folder(dataset.data_path, absent)
    if moved is not None:
        first, rest = moved
        return f"{rest} lies in {dataset.data_path} itself, without the folder {first} around it; make that folder and move them into it"
    if absent:
        named = some([dataset.relative(path) for path in absent])
        if dataset.image_remedy:
            return f"absent folders: {named}; {dataset.image_remedy}"
        return f"absent folders: {named}; unpack their archives there (`md-data splits --write DIR` lists all), or use a split without them"
    renamed = _other_names(missing)
    if renamed:
        named = some([f"{path.name} as {name}" for path, name in renamed.items()])
        return f"{len(renamed)} of them are there under other names: {named}; rename the files to those looked for"
    if not missing_files(dataset, refs, frame_ids=[0], use_stereo=use_stereo):
        return "all are neighbours of targets, beyond a drive's ends or not fetched; use a split clear of the ends, or fewer frame_ids"
    return "fetch these drives again, or remove the lines of these frames from the split"


def _without_first_folder(data_path: Path, absent: list[Path]) -> tuple[str, str] | None:
    """The first folder on the way to an absent one, and the next, where that lies in ``data_path`` itself: KITTI's date and its drive."""
    for folder in absent:
        if not folder.is_relative_to(data_path):  # a line may name any folder
            continue
        first, *rest = folder.relative_to(data_path).parts
        if rest and (data_path / Path(*rest)).is_dir():
            return first, rest[0]
    return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _num_present(missing: list[Path], ext: str) -> int:
    """How many of the missing files are there with another extension."""
    by_folder: dict[Path, list[str]] = {}
    for path in missing:
        by_folder.setdefault(path.parent, []).append(path.stem + ext)
    return sum(len(_names(folder).intersection(names)) for folder, names in by_folder.items())


def _other_names(missing: list[Path]) -> dict[Path, str]:
    """The names of missing files that exist with another number of digits or another ending: 14.jpg, 0000000014.JPG."""
    by_folder: dict[Path, dict[int, str]] = {}
    for folder in {path.parent for path in missing}:
        images = [name for name in sorted(_names(folder)) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        by_folder[folder] = {int(Path(name).stem): name for name in images if NUMBER.fullmatch(Path(name).stem)}
    numbered = [path for path in missing if NUMBER.fullmatch(path.stem)]
    return {path: by_folder[path.parent][int(path.stem)] for path in numbered if int(path.stem) in by_folder[path.parent]}


def _better_root(data_path: Path, relative: Path) -> Path | None:
    """A folder one level up or down from ``data_path`` that has the missing file's folder; None if there is none, or it is named whole."""
    if relative.is_absolute():
        return None
    near = [data_path.resolve().parent, *(data_path / name for name in sorted(_names(data_path)))]
    return next((root for root in near if (root / relative.parent).is_dir() and root.resolve() != data_path.resolve()), None)


def _names(folder: Path) -> set[str]:
    """Names in a folder; none where it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()
