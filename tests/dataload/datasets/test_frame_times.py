"""The order of frames by their names: the reading by which time runs evenly forward, and gaps by the times so read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from dataload.datasets.folder import Folder
from dataload.datasets.frame_times import order_names
from dataload.datasets.timeline import gaps_before
from splits.errors import InputError

START_NS = 1_403_715_273_012_345_678
STAMPS_NS = [START_NS + 50_000_000 * number + 31_415 * (number * 7 % 13) for number in range(60)]


def shuffled(names: list[str]) -> list[str]:
    return random.Random(0).sample(names, len(names))


def seconds_and(stamp_ns: int, unit_ns: int, mark: str = ".") -> str:
    return f"{stamp_ns // 10**9}{mark}{stamp_ns % 10**9 // unit_ns}"


@pytest.mark.parametrize(
    ("names", "reading"),
    [
        ([f"{stamp / 1e9!r}" for stamp in STAMPS_NS], "decimal seconds"),
        ([f"{1403715273 + 0.05 * number:.2f}".rstrip("0").rstrip(".") for number in range(60)], "decimal seconds"),
        ([f"{0.05 * number:.3f}".rstrip("0") for number in range(240)], "decimal seconds"),
        ([seconds_and(stamp, 1) for stamp in STAMPS_NS], "nanoseconds"),
        ([seconds_and(stamp - START_NS // 10**9 * 10**9 + 12 * 10**9, 1) for stamp in STAMPS_NS], "nanoseconds"),
        ([seconds_and(stamp, 1, "_") for stamp in STAMPS_NS], "nanoseconds"),
        ([seconds_and(stamp, 1, "-") for stamp in STAMPS_NS], "nanoseconds"),
        ([f"left_{seconds_and(stamp, 1000)}" for stamp in STAMPS_NS], "microseconds"),
        ([seconds_and(stamp, 1, "") for stamp in STAMPS_NS], "nanoseconds"),
        ([f"{stamp / 1e9:.6f}" for stamp in STAMPS_NS], ""),
        ([str(stamp) for stamp in STAMPS_NS], ""),
        ([f"frame_{number}" for number in (*range(30), *range(90, 120))], ""),
        ([f"{clip}_{number}" for clip in (1, 2, 10) for number in range(1, 15)], ""),
        ([f"{clip}.{number}" for clip in (1, 2, 10) for number in range(1, 15)], ""),
        (["intro", "x1", "x2", "x10"], ""),
    ],
)
def test_names_in_order(names: list[str], reading: str) -> None:
    order = order_names(shuffled(names))
    assert order.names == names
    assert (reading in order.reading) if reading else order.reading == ""
    assert order.fault == ""


@pytest.mark.parametrize(
    "names",
    [["9", "09", "10"], ["frame_1", "frame_01"], [f"{1403715273 + number * number * 7 % 50}.{number**5 % 9973}" for number in range(60)]],
)
def test_no_order(names: list[str]) -> None:
    assert order_names(names).fault


def test_gaps_by_the_times_that_are_read() -> None:
    stamps = [*STAMPS_NS[:20], *[stamp + 10**9 for stamp in STAMPS_NS[20:]]]
    for names in (
        [f"{stamp / 1e9!r}" for stamp in stamps],
        [seconds_and(stamp, 1) for stamp in stamps],
        [f"{s / 1e9:.6f}" for s in stamps],
    ):
        order = order_names(names)
        assert order.times is not None
        assert gaps_before(order.times).tolist() == [0] * 20 + [1] * 40


def make_sequence(folder: Path, names: list[str]) -> Folder:
    (folder / "s").mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / "s" / f"{name}.png")
    return Folder(folder, intrinsics=(8.0, 8.0, 3.5, 3.5))


def test_targets_of_a_sequence_without_order_are_refused(tmp_path: Path) -> None:
    dataset = make_sequence(tmp_path, ["8", "9", "09", "10"])
    with pytest.raises(InputError, match=r"the order of the frames in s is not known: 0?9 and 0?9 have the same number; rename"):
        dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0, -1, 1), use_stereo=False)
    # Single images have no order to be wrong about.
    assert len(dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0,), use_stereo=False)) == 4


def test_a_reading_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make_sequence(tmp_path, [f"{0.05 * number:.3f}".rstrip("0") for number in range(60)])
    with caplog.at_level("INFO", logger="md"):
        dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0, -1, 1), use_stereo=False)
    assert "names are read as decimal seconds" in caplog.text
