"""The published split lists, derived from ``facts.json``: drive lengths, frames at rest, and what was picked at random.

Lists that were shuffled when published come in the order of (drive, frame, side); their order carries no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

ARCHIVE_BASE = "https://s3.eu-central-1.amazonaws.com/avg-kitti/raw_data"
NUM_BENCHMARK_IMAGES = 500
# Frames kept clear of each end of a drive: the depth benchmark accumulates 11 scans, the odometry lists allow five-frame inputs.
BENCHMARK_MARGIN = 5
ODOMETRY_MARGIN = 2
NUM_TRAIN_SEQUENCES = 9

Pick = tuple[str, int, str]  # drive or sequence, frame, side
ListMaker = Callable[[], list[str]]


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    """The content of ``facts.json``; README.md describes its fields."""
    return json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))


def eigen_zhou_train() -> list[str]:
    """Moving frames of the training drives that have both neighbours, without the validation picks."""
    val = set(_val_picks("eigen_zhou_val_steps"))
    return _kitti_lines(pick for pick in _moving_frames(_train_drives(), margin=1) if pick not in val)


def eigen_zhou_val() -> list[str]:
    """A tenth of ``eigen_zhou``, picked at random by its authors for each side separately."""
    return _kitti_lines(sorted(_val_picks("eigen_zhou_val_steps")))


def eigen_full_train() -> list[str]:
    """Every frame of the training drives, both sides, without the validation frames."""
    val = _eigen_full_val_frames()
    frames = ((drive, frame) for drive in _train_drives() for frame in range(facts()["drive_frames"][drive]))
    return _kitti_lines((*pair, side) for pair in frames if pair not in val for side in "lr")


def eigen_full_val() -> list[str]:
    """888 frames of the training drives, both sides."""
    return _kitti_lines((*pair, side) for pair in sorted(_eigen_full_val_frames()) for side in "lr")


def eigen_test() -> list[str]:
    """697 left images of the test drives, in the published order."""
    return [f"{_folder(drive)} {frame:010d} l" for drive, frame in _eigen_test_frames()]


def eigen_benchmark_test() -> list[str]:
    """The Eigen test images for which the depth benchmark has ground truth."""
    pairs = list(_eigen_test_frames())
    return [f"{_folder(drive)} {frame} l" for drive, frame in (pairs[i] for i in eigen_to_benchmark_ids())]


def eigen_to_benchmark_ids() -> list[int]:
    """Positions of the ``eigen_benchmark`` images in the Eigen test list."""
    return [i for i, (drive, frame) in enumerate(_eigen_test_frames()) if frame in _within(drive, BENCHMARK_MARGIN)]


def benchmark_train() -> list[str]:
    """Moving frames with accumulated ground truth, of the drives that the depth benchmark does not keep for validation."""
    val = set(facts()["benchmark_val_drives"])
    return _kitti_lines(_benchmark_frames([drive for drive in facts()["drive_frames"] if drive not in val]))


def benchmark_val() -> list[str]:
    """The same for the benchmark's validation drives."""
    return _kitti_lines(_benchmark_frames(facts()["benchmark_val_drives"]))


def benchmark_test() -> list[str]:
    """The benchmark's anonymous test images: lines without a camera."""
    return [f"image {i}" for i in range(NUM_BENCHMARK_IMAGES)]


def odom_train() -> list[str]:
    """Sequences 0 to 8 away from their ends, both sides, without the validation picks."""
    val = set(_val_picks("odom_val_steps"))
    lengths = facts()["odometry_frames"][:NUM_TRAIN_SEQUENCES]
    frames = ((str(s), frame) for s, n in enumerate(lengths) for frame in range(ODOMETRY_MARGIN, n - ODOMETRY_MARGIN))
    return [f"{s} {frame} {side}" for s, frame in frames for side in "lr" if (s, frame, side) not in val]


def odom_val() -> list[str]:
    """A tenth of the odometry frames, picked at random by its authors for each side separately."""
    return [f"{s} {frame} {side}" for s, frame, side in sorted(_val_picks("odom_val_steps"))]


def odom_test(sequence: int) -> list[str]:
    """Every left frame of a sequence that has a successor: the pairs (t, t + 1)."""
    return [f"{sequence} {frame} l" for frame in range(facts()["odometry_frames"][sequence] - 1)]


def archives() -> list[str]:
    """Addresses of the KITTI raw archives that hold every drive of these lists: per date its calibration, then its drives."""
    dates: dict[str, list[str]] = {}
    for drive in facts()["drive_frames"]:
        dates.setdefault(drive.split("/")[0], []).append(_drive_name(drive))
    lines = []
    for date, names in dates.items():
        lines.append(f"{ARCHIVE_BASE}/{date}_calib.zip")
        lines += [f"{ARCHIVE_BASE}/{name}/{name}_sync.zip" for name in names]
    return lines


LISTS: dict[str, dict[str, ListMaker]] = {
    "eigen_zhou": {"train": eigen_zhou_train, "val": eigen_zhou_val},
    "eigen_full": {"train": eigen_full_train, "val": eigen_full_val},
    "eigen": {"test": eigen_test},
    "eigen_benchmark": {"test": eigen_benchmark_test},
    "benchmark": {"train": benchmark_train, "val": benchmark_val, "test": benchmark_test},
    "odom": {"train": odom_train, "val": odom_val, "test_09": lambda: odom_test(9), "test_10": lambda: odom_test(10)},
}


def _drive_name(drive: str) -> str:
    date, number = drive.split("/")
    return f"{date}_drive_{number}"


def _folder(drive: str) -> str:
    """``2011_09_26/0001`` -> the folder field of a split line."""
    return f"{drive.split('/')[0]}/{_drive_name(drive)}_sync"


def _kitti_lines(picks: Iterable[Pick]) -> list[str]:
    folders = {drive: _folder(drive) for drive in facts()["drive_frames"]}
    return [f"{folders[drive]} {frame} {side}" for drive, frame, side in picks]


def _train_drives() -> list[str]:
    return [drive for drive in facts()["drive_frames"] if drive not in facts()["eigen_test"]]


def _within(drive: str, margin: int) -> range:
    return range(margin, facts()["drive_frames"][drive] - margin)


def _moving_frames(drives: Iterable[str], *, margin: int) -> Iterator[Pick]:
    """Frames of both sides, ``margin`` away from the drive's ends, where the car moves."""
    for drive in drives:
        static = _frames_of_runs(facts()["static"].get(drive, ""))
        for frame in _within(drive, margin):
            if frame not in static:
                yield drive, frame, "l"
                yield drive, frame, "r"


def _benchmark_frames(drives: Iterable[str]) -> Iterator[Pick]:
    missing = {drive: _frames_of_runs(runs) for drive, runs in facts()["missing_velodyne"].items()}
    for pick in _moving_frames(drives, margin=BENCHMARK_MARGIN):
        if pick[1] not in missing.get(pick[0], ()):
            yield pick


def _eigen_test_frames() -> Iterator[tuple[str, int]]:
    for drive, frames in facts()["eigen_test"].items():
        for frame in frames.split():
            yield drive, int(frame)


def _eigen_full_val_frames() -> set[tuple[str, int]]:
    return {(drive, frame) for drive, steps in facts()["eigen_full_val_steps"].items() for frame in _frames_of_steps(steps)}


def _val_picks(field: str) -> list[Pick]:
    """Picks of a field whose keys are ``<drive or sequence> <side>``."""
    entries = ((*key.split(), steps) for key, steps in facts()[field].items())
    return [(drive, frame, side) for drive, side, steps in entries for frame in _frames_of_steps(steps)]


def _frames_of_runs(text: str) -> set[int]:
    """``"3-5 8"`` -> {3, 4, 5, 8}."""
    ends = (run.partition("-") for run in text.split())
    return {frame for first, _, last in ends for frame in range(int(first), int(last or first) + 1)}


def _frames_of_steps(text: str) -> Iterator[int]:
    """``"3 2 10"`` -> 3, 5, 15: each number is the distance from the frame before."""
    return accumulate(map(int, text.split()))
