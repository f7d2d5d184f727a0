"""Targets whose neighbours would lie beyond the ends of their drive are left out and counted; what is missing within a drive is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataload.datasets.base import Dataset
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_odom import KittiOdom
from dataload.datasets.presence import require_files
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

FOLDERS = {KittiRaw: "2011_09_26/2011_09_26_drive_0001_sync", KittiOdom: "9"}
WIDE = (0, -2, -1, 1, 2)


@pytest.fixture(params=FOLDERS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """A drive of frames 3 to 12, empty files, from which the dataset's class takes no more than their names."""
    dataset: Dataset = request.param(tmp_path)
    folder = FOLDERS[request.param]
    for side in "lr":
        dataset.image_folder(folder, side).mkdir(parents=True)
        for frame in range(3, 13):
            (dataset.image_folder(folder, side) / dataset.image_name(folder, side, frame)).touch()
    return dataset


def refs(dataset: Dataset, frames: range) -> list[FrameRef]:
    return [FrameRef(FOLDERS[type(dataset)], frame, side) for frame in frames for side in "lr"]


def kept(dataset: Dataset, frames: range, frame_ids: tuple[int, ...]) -> list[int]:
    found = dataset.with_sources(refs(dataset, frames), source="train", frame_ids=frame_ids, use_stereo=True)
    require_files(dataset, found, frame_ids=frame_ids, use_stereo=True)
    return sorted({ref.frame_index for ref in found})


def test_ends_of_a_drive(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="md"):
        assert kept(dataset, range(3, 13), (0,)) == list(range(3, 13))
        assert kept(dataset, range(4, 12), (0, -1, 1)) == list(range(4, 12))
    assert "left out" not in caplog.text
    with caplog.at_level("INFO", logger="md"):
        assert kept(dataset, range(3, 13), WIDE) == list(range(5, 11))
    assert "train: 8 of 20 targets left out: 8 at an end of their sequence" in caplog.text
    with pytest.raises(InputError, match="train: none of 2 targets can be trained on: 2 at an end"):
        kept(dataset, range(3, 4), WIDE)


def test_a_gap_within_a_drive_is_an_end_too(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    folder = FOLDERS[type(dataset)]
    for side in "lr":
        for frame in (13, 14, 17, 18, 19, 20):
            (dataset.image_folder(folder, side) / dataset.image_name(folder, side, frame)).touch()
    with caplog.at_level("INFO", logger="md"):
        assert kept(dataset, range(3, 15), (0, -1, 1)) == list(range(4, 14))
        assert kept(dataset, range(17, 21), (0, -1, 1)) == [18, 19]
    assert "4 of 24 targets left out: 2 at an end of their sequence, 2 beside a gap of over 2.5 times the usual interval" in caplog.text


@pytest.mark.parametrize("lost", [7, 20])
def test_missing_files_are_an_error_still(dataset: Dataset, lost: int) -> None:
    folder = FOLDERS[type(dataset)]
    (dataset.image_folder(folder, "l") / dataset.image_name(folder, "l", lost)).unlink(missing_ok=True)
    with pytest.raises(InputError, match="of the split missing from"):
        kept(dataset, range(5, lost + 1), WIDE)


def test_png_files_beside_the_jpeg_ones_are_no_gap(dataset: Dataset) -> None:
    for side in "lr":
        folder = dataset.image_folder(FOLDERS[type(dataset)], side)
        for image in list(folder.iterdir()):
            image.with_suffix(".png").touch()
    assert kept(dataset, range(4, 12), (0, -1, 1)) == list(range(4, 12))
