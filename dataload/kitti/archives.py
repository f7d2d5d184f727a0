"""The archives of KITTI raw and of its benchmarks: which are wanted, which are unpacked, and how much disk the rest needs."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dataload.frames.frame_ref import FrameRef, parse_split
from splits import archives, read_lines, split_folder, subset_source, subsets
from splits.errors import InputError
from splits.faults import name_faults
from splits.reading import read_json
from splits.rules import ARCHIVE_BASE, facts

CALIBRATION_FILES = ("calib_cam_to_cam.txt", "calib_imu_to_velo.txt", "calib_velo_to_cam.txt")
IMAGE_FOLDERS = tuple(f"image_0{camera}/data" for camera in range(4))
SCANS = "velodyne_points/data"
# The folders that are read here; a drive without its grey images or its positions serves as well.
REQUIRED_FOLDERS = ("image_02/data", "image_03/data", SCANS)
# What is fetched beyond KITTI raw: the depth benchmark's annotated depth and its selected test images, and the odometry benchmark.
PARTS = {
    "annotated": ("data_depth_annotated.zip",),
    "selection": ("data_depth_selection.zip",),
    "odometry": ("data_odometry_calib.zip", "data_odometry_poses.zip", "data_odometry_color.zip"),
}
# Written with the drive: how many files its archive had in each folder.
MARKER = ".md_download.json"
# A frame has two colour and two grey PNGs, about 2.3 MB, which zip does not shrink (measured: 0.98), and a scan of 1.9 MB, which it does
# (0.57): 4.2 MB become 3.3.
UNPACKED_PER_ZIPPED = 1.3
DRIVE_FORM = "2011_09_26_drive_0001, or 2011_09_26 for all drives of a date"


class Archive(NamedTuple):
    """One archive: a drive, the calibration of a date, or one of a benchmark's.

    Attributes:
        date: the folder that it is unpacked in; empty for a benchmark's, which are unpacked in the dataset's root.
        drive: as ``facts.json`` has it, ``2011_09_26/0001``; None for a calibration or a benchmark's.
    """

    url: str
    date: str
    drive: str | None

    @property
    def name(self) -> str:
        """``2011_09_26_drive_0001_sync.zip``."""
        return self.url.rpartition("/")[2]

    @property
    def is_benchmark(self) -> bool:
        """Whether it is none of KITTI raw's."""
        return not self.date

    @property
    def stem(self) -> str:
        """``2011_09_26_drive_0001_sync``."""
        return self.name.removesuffix(".zip")


def benchmark_archives(parts: Iterable[str], base_url: str = ARCHIVE_BASE) -> list[Archive]:
    """The archives of ``PARTS`` beyond ``raw``, which lie one level above those of KITTI raw."""
    base = base_url.rstrip("/").rpartition("/")[0]
    return [Archive(f"{base}/{name}", "", None) for part in dict.fromkeys(parts) for name in PARTS[part]]


def chosen_archives(drives: set[str] | None, base_url: str = ARCHIVE_BASE) -> list[Archive]:
    """The archives of these drives, None for all, each date's calibration before its drives; addresses below ``base_url``."""
    found = [_archive(base_url.rstrip("/") + address.removeprefix(ARCHIVE_BASE)) for address in archives()]
    dates = {archive.date for archive in found if drives is None or archive.drive in drives}

    def is_chosen(archive: Archive) -> bool:
        if archive.drive is None:
            return archive.date in dates
        return drives is None or archive.drive in drives

    return [archive for archive in found if is_chosen(archive)]


def _archive(url: str) -> Archive:
    stem = url.rpartition("/")[2].removesuffix(".zip")
    date, _, number = stem.removesuffix("_sync").partition("_drive_")
    return Archive(url, date, f"{date}/{number}") if number else Archive(url, stem.removesuffix("_calib"), None)


def find_drives(names: Iterable[str]) -> set[str]:
    """The drives that names mean: ``2011_09_26_drive_0001`` with or without ``_sync``, a split line's folder, or a date (all its drives).

    Raises:
        InputError: a name that is none; suggests the nearest.
    """
    by_name: dict[str, set[str]] = {}
    for drive in facts()["drive_frames"]:
        date, number = drive.split("/")
        by_name[f"{date}_drive_{number}"] = by_name[drive] = {drive}
        by_name.setdefault(date, set()).add(drive)
    found: set[str] = set()
    for name in names:
        short = name if name in by_name else PurePosixPath(name).name.removesuffix(".zip").removesuffix("_sync")
        if short not in by_name:
            near = difflib.get_close_matches(short, by_name, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"drive {name!r} is none of KITTI raw's that the lists use; {hint}give {DRIVE_FORM}")
        found |= by_name[short]
    return found


def drives_of_split(split: str) -> set[str]:
    """The drives of every list of a split, named or a folder.

    Raises:
        InputError: no such split, or one with lines of other folders than KITTI raw's.
    """
    refs: list[FrameRef] = []
    for subset in _subsets(split):
        refs += parse_split(read_lines(split, subset), source=subset_source(split, subset))
    folders = sorted({ref.folder for ref in refs if ref.side is not None})  # the benchmark's anonymous images have no drive
    try:
        return find_drives(folders)
    except InputError as error:
        raise InputError(f"split {split} is not of KITTI raw's drives alone: {error}; name those to fetch with --drives instead") from error


def _subsets(split: str) -> Sequence[str]:
    folder = split_folder(split)
    if folder is None:
        return subsets(split)
    found = sorted(path.stem.replace("_files", "") for path in folder.glob("*_files*.txt"))
    return found or ["train"]  # whose absence is then explained


def is_complete(data_path: Path, archive: Archive) -> bool:
    """Whether an archive is completely unpacked: every camera's frames and the scans are counted, PNG or JPEG, without empty files.

    The counts must be those recorded when it was unpacked here, else the published number of frames. Grey images and positions may be gone.
    """
    if archive.is_benchmark:
        counts = _read_counts(data_path / benchmark_marker(archive))
        return bool(counts) and all(len(_whole_names(data_path / part)) >= number for part, number in counts.items())
    if archive.drive is None:
        return set(CALIBRATION_FILES) <= _whole_names(data_path / archive.date)
    folder = data_path / archive.date / archive.stem
    wanted = _read_marker(folder) or _published_counts(archive.drive)
    return all(
        len({name.partition(".")[0] for name in _whole_names(folder / part)}) >= number
        for part, number in wanted.items()
        if part in REQUIRED_FOLDERS or (folder / part).is_dir()
    )


def write_marker(folder: Path, names: Iterable[str]) -> None:
    """Record how many files each folder of a drive has, of the names (relative to it) that its archive lists."""
    counts = {part: number for part, number in _count_files(names).items() if part.endswith("/data")}
    with name_faults(folder / MARKER):
        (folder / MARKER).write_text(json.dumps(counts), encoding="utf-8")


def write_benchmark_marker(folder: Path, archive: Archive, names: Iterable[str]) -> None:
    """Record how many files each folder of a benchmark's archive has, of their names below the dataset's root."""
    marker = folder / benchmark_marker(archive)
    with name_faults(marker):
        marker.write_text(json.dumps(_count_files(names)), encoding="utf-8")


def benchmark_marker(archive: Archive) -> str:
    """The file of the dataset's root that says what a benchmark's archive held."""
    return f".{archive.stem}{MARKER}"


def _count_files(names: Iterable[str]) -> dict[str, int]:
    """How many of the names lie in each folder."""
    return dict(Counter(str(PurePosixPath(name).parent) for name in names))


def _read_marker(folder: Path) -> dict[str, int]:
    counts = _read_counts(folder / MARKER)
    return counts if set(REQUIRED_FOLDERS) <= set(counts) else {}


def _read_counts(path: Path) -> dict[str, int]:
    """Files by folder, as a marker has them; none where it is missing or damaged."""
    try:
        counts = read_json(path, "what md-data kitti writes", "remove it")
    except InputError:
        return {}
    return counts if isinstance(counts, dict) and all(type(number) is int for number in counts.values()) else {}


def _published_counts(drive: str) -> dict[str, int]:
    frames = facts()["drive_frames"][drive]
    runs = (run.partition("-") for run in facts()["missing_velodyne"].get(drive, "").split())
    missing = sum(int(last or first) - int(first) + 1 for first, _, last in runs)
    return dict.fromkeys((*IMAGE_FOLDERS, "oxts/data"), frames) | {SCANS: frames - missing}


def _whole_names(folder: Path) -> set[str]:
    """The files of a folder that are neither empty nor temporary; none where it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".") and entry.stat().st_size}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def peak_bytes(sizes: Sequence[int], there: Sequence[int], jobs: int) -> int:
    """The most that archives will take of the disk beyond what they take now: all unpacked, and the largest still zipped beside.

    Args:
        sizes: of the archives to fetch.
        there: how much of each is on disk already.
        jobs: how many are fetched at a time.
    """
    in_flight = sorted((size - have for size, have in zip(sizes, there, strict=True)), reverse=True)[:jobs]
    return int(UNPACKED_PER_ZIPPED * sum(sizes)) + max(0, sum(in_flight))
