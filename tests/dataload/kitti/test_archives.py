"""Which archives of KITTI raw are meant, and the room that they take."""

from pathlib import Path

import pytest

from dataload.kitti.archives import _published_counts, chosen_archives, drives_of_split, find_drives, peak_bytes
from splits import archives
from splits.errors import InputError
from splits.rules import facts

DATE = "2011_09_26"
DRIVE, OTHER = f"{DATE}_drive_0048", f"{DATE}_drive_0052"


def test_scans_that_were_never_published_are_not_missed() -> None:
    assert _published_counts(f"{DATE}/0009")["velodyne_points/data"] == 443
    assert _published_counts(f"{DATE}/0009")["image_02/data"] == 447


def test_the_forecast_counts_what_is_unpacked_and_the_largest_in_flight() -> None:
    assert peak_bytes([100, 300, 200], [0, 0, 0], jobs=1) == int(1.3 * 600) + 300
    assert peak_bytes([100, 300, 200], [0, 0, 0], jobs=2) == int(1.3 * 600) + 500
    assert peak_bytes([100, 300, 200], [0, 250, 0], jobs=1) == int(1.3 * 600) + 200
    assert peak_bytes([], [], jobs=3) == 0


def test_the_published_archives_are_the_default() -> None:
    assert [archive.url for archive in chosen_archives(None)] == archives()
    assert chosen_archives(None)[0].drive is None
    assert {archive.drive for archive in chosen_archives(None)} == {None, *facts()["drive_frames"]}


@pytest.mark.parametrize(
    "name",
    ["2011_09_28_drive_0001", "2011_09_28_drive_0001_sync", "2011_09_28_drive_0001_sync.zip", "2011_09_28/0001",
     "2011_09_28/2011_09_28_drive_0001_sync"],
)  # fmt: skip
def test_a_drive_goes_by_any_of_its_names(name: str) -> None:
    assert find_drives([name]) == {"2011_09_28/0001"}


def test_a_date_means_all_its_drives_and_brings_one_calibration() -> None:
    assert find_drives(["2011_09_28"]) == {"2011_09_28/0001", "2011_09_28/0002"}
    names = [archive.stem for archive in chosen_archives(find_drives(["2011_09_28", DRIVE]))]
    later = ["2011_09_28_calib", "2011_09_28_drive_0001_sync", "2011_09_28_drive_0002_sync"]
    assert names == ["2011_09_26_calib", f"{DRIVE}_sync", *later]


def test_a_split_brings_its_drives() -> None:
    train, test = drives_of_split("eigen_zhou"), drives_of_split("eigen")
    assert (len(train), len(test), train & test) == (32, 28, set())  # in one of the 33 the car never moves
    assert len(drives_of_split("benchmark")) == 60  # whose test images are of no drive


def test_a_split_of_other_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"split odom is not of KITTI raw's drives alone: drive '0' is none .* with --drives instead"):
        drives_of_split("odom")
    (tmp_path / "train_files.txt").write_text(f"{DATE}/{DRIVE}_sync 3 l\n")
    (tmp_path / "test_files_09.txt").write_text(f"{DATE}/{OTHER}_sync 3 l\n")
    assert drives_of_split(str(tmp_path)) == {f"{DATE}/0048", f"{DATE}/0052"}
    (tmp_path / "test_files_09.txt").write_text("street/1 3 l\n")
    with pytest.raises(InputError, match=r"drive 'street/1' is none"):
        drives_of_split(str(tmp_path))
