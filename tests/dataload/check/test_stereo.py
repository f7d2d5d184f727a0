"""Pairs that are not rectified, swapped or no pairs at all are told; real ones are measured."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from inspected_trees import inspected, wall, write_lists
from PIL import Image

from dataload.check.report import Report
from dataload.check.stereo import shifts

DRIVE = "2011_09_26/2011_09_26_drive_{}_sync"


@pytest.fixture
def pairs(shared: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of real pairs to spoil, and a split of them."""
    lines = []
    for drive, frames in (("0001", (1, 3)), ("9001", (2, 12))):
        for camera in ("image_02", "image_03"):
            folder = Path(DRIVE.format(drive)) / camera / "data"
            (tmp_path / folder).mkdir(parents=True)
            for frame in frames:
                shutil.copy(shared / "kitti" / "raw_jpg" / folder / f"{frame:010d}.jpg", tmp_path / folder)
        lines += [f"{DRIVE.format(drive)} {frame} {side}" for frame in frames for side in "lr"]
    return tmp_path, write_lists(tmp_path / "split", train=lines)


def stereo(pairs: tuple[Path, Path]) -> Report:
    return inspected(*pairs, dataset="kitti", frame_ids=(0,), use_stereo=True, height_px=192, width_px=640)


def test_real_stereo_pairs_are_level_and_in_order(pairs: tuple[Path, Path]) -> None:
    report = stereo(pairs)
    assert report.problems == []
    assert report.facts["stereo"]["pairs_read"] == 4
    assert max(map(abs, report.facts["stereo"]["row_offset_px"].values())) < 0.7
    assert 5 < report.facts["stereo"]["median_disparity_px"] < 40


def test_a_camera_that_is_off_by_rows_is_told(pairs: tuple[Path, Path]) -> None:
    for path in (pairs[0] / DRIVE.format("9001") / "image_03" / "data").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(np.roll(pixels, 3, axis=0)).save(path, quality=92)
    (problem,) = stereo(pairs).problems
    assert "off in 1 sequence: 2011_09_26/2011_09_26_drive_9001_sync by +3." in problem


def test_swapped_cameras_are_told(pairs: tuple[Path, Path]) -> None:
    drive = pairs[0] / DRIVE.format("0001")
    (drive / "image_02").rename(drive / "x")
    (drive / "image_03").rename(drive / "image_02")
    (drive / "x").rename(drive / "image_03")
    (problem,) = stereo(pairs).problems
    assert problem.startswith("the cameras are swapped in 1 sequence: 2011_09_26/2011_09_26_drive_0001_sync")


def test_the_same_images_twice_are_no_stereo(pairs: tuple[Path, Path]) -> None:
    drive = pairs[0] / DRIVE.format("0001")
    shutil.rmtree(drive / "image_03")
    shutil.copytree(drive / "image_02", drive / "image_03")
    assert any(
        text.startswith("both cameras' images are the same ones in 2011_09_26/2011_09_26_drive_0001") for text in stereo(pairs).problems
    )


@pytest.mark.parametrize(("dx", "dy"), [(-12, 0), (-3, 2), (20, -4), (0, 7)])
@pytest.mark.parametrize("size_px", [(200, 700), (300, 2000), (48, 160)])
def test_a_known_shift_is_measured(size_px: tuple[int, int], dx: int, dy: int) -> None:
    height, width = size_px
    picture = wall(width + 100, height + 100)
    left, right = (np.asarray(picture.crop((50 - x, 50 - y, 50 - x + width, 50 - y + height))) for x, y in ((0, 0), (dx, dy)))
    found = shifts(left, right)
    assert len(found.x_px) >= 20
    assert np.median(found.x_px) == pytest.approx(dx, abs=0.3)
    assert found.row_offset_px == pytest.approx(dy, abs=0.3)
    assert found.swapped == (dx > 0)


def test_a_turned_camera_is_no_level_one() -> None:
    picture = wall(900, 400)
    left = np.asarray(picture.crop((100, 50, 800, 350)))
    right = np.asarray(picture.rotate(0.5, Image.Resampling.BICUBIC).crop((108, 50, 808, 350)))
    assert abs(shifts(left, right).row_offset_px) > 1


def test_unlike_pictures_have_nothing_in_common() -> None:
    left, right = (np.asarray(wall(700, 200, seed)) for seed in (1, 2))
    assert len(shifts(left, right).x_px) < 4
