"""KITTI as people have it: split lines of other systems are read, files under other names are named with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataload.datasets.kitti import KittiRaw
from dataload.datasets.presence import require_files
from dataload.frames.frame_ref import FrameRef, parse_split
from splits.errors import InputError

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.mark.parametrize("line", ["2011_09_26\\2011_09_26_drive_0001_sync 14 l", f"{DRIVE} 14 L \r\n", f"{DRIVE}\t0000000014\tl"])
def test_split_lines_of_other_systems(line: str) -> None:
    assert parse_split([line], source="list") == (FrameRef(DRIVE, 14, "l"),)


@pytest.mark.parametrize("name", ["14.jpg", "0000000014.JPG", "000014.jpeg", "14.PNG"])
def test_files_under_other_names_are_named(tmp_path: Path, name: str) -> None:
    dataset = KittiRaw(tmp_path)
    dataset.image_folder(DRIVE, "l").mkdir(parents=True)
    (dataset.image_folder(DRIVE, "l") / name).touch()
    with pytest.raises(InputError, match=f"1 of them are there under other names: 0000000014.jpg as {name}; rename"):
        require_files(dataset, [FrameRef(DRIVE, 14, "l")], frame_ids=(0,), use_stereo=False)


def test_drives_without_the_folder_of_their_date_are_told(tmp_path: Path) -> None:
    dataset = KittiRaw(tmp_path)
    folder = tmp_path / DRIVE.partition("/")[2] / "image_02" / "data"
    folder.mkdir(parents=True)
    (folder / "0000000014.jpg").touch()
    said = f"2011_09_26_drive_0001_sync lies in {tmp_path} itself, without the folder 2011_09_26 around it; make that folder and move"
    with pytest.raises(InputError, match=said):
        require_files(dataset, [FrameRef(DRIVE, 14, "l")], frame_ids=(0,), use_stereo=False)
