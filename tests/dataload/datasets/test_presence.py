"""Missing files are found by folder scans, counted, named, and answered with the likely remedy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dataload.datasets.kitti import KittiRaw
from dataload.datasets.presence import missing_files, require_files
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

FOLDER = "2011_09_26/2011_09_26_drive_0001_sync"
REFS = [FrameRef(FOLDER, frame, side) for frame in range(1, 5) for side in "lr"]


@pytest.fixture(scope="module")
def whole(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=6)


@pytest.fixture
def tree(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "kitti"))


def fault(
    root: Path, refs: list[FrameRef] = REFS, *, ext: str = ".jpg", frame_ids: tuple[int, ...] = (0, -1, 1), stereo: bool = False
) -> str:
    with pytest.raises(InputError) as caught:
        require_files(KittiRaw(root, ext), refs, frame_ids=frame_ids, use_stereo=stereo)
    return str(caught.value)


def test_whole_tree_passes(whole: Path) -> None:
    require_files(KittiRaw(whole, ".jpg"), REFS, frame_ids=(0, -1, 1), use_stereo=True)
    assert missing_files(KittiRaw(whole, ".jpg"), REFS, frame_ids=(0, -1, 1), use_stereo=True) == []


def test_finds_exactly_what_opening_each_file_would(tree: Path) -> None:
    dataset = KittiRaw(tree, ".jpg")
    for frame, camera in ((0, 2), (3, 3), (5, 2)):
        (tree / FOLDER / f"image_0{camera}" / "data" / f"{frame:010d}.jpg").unlink()
    for frame_ids, stereo in (((0,), False), ((0, -1, 1), False), ((0,), True), ((0, -2, 2), True)):
        wanted = {dataset.image_path(ref, k) for ref in REFS for k in frame_ids}
        wanted |= {dataset.image_path(ref, stereo=True) for ref in REFS if stereo}
        assert missing_files(dataset, REFS, frame_ids=frame_ids, use_stereo=stereo) == sorted(p for p in wanted if not p.is_file())


def test_scans_each_folder_once_whatever_the_number_of_lines(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    scandir = os.scandir

    def counting(path: Path) -> object:
        scanned.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    assert not missing_files(KittiRaw(whole, ".jpg"), REFS * 1000, frame_ids=(0, -1, 1), use_stereo=True)
    assert sorted(scanned) == [str(whole / FOLDER / f"image_0{camera}" / "data") for camera in (2, 3)]


def test_a_few_missing_are_counted_and_named(tree: Path) -> None:
    (tree / FOLDER / "image_02" / "data" / "0000000003.jpg").unlink()
    text = fault(tree)
    assert text.startswith(f"1 image of the split missing from {tree}, in 1 folder: {FOLDER}/image_02/data/0000000003.jpg;")
    assert "fetch these drives again" in text


def test_many_missing_are_cut_short(tree: Path) -> None:
    refs = [FrameRef(FOLDER, frame, "l") for frame in range(1, 50)]
    text = fault(tree, refs, frame_ids=(0,))
    assert text.startswith("44 images of the split missing")
    assert text.count(".jpg") == 3
    assert "and 41 more" in text


def test_other_extension(tree: Path, kitti_tree: Callable[..., Path]) -> None:
    assert "12 of them are there as .jpg: leave out --png" in fault(tree, ext=".png")
    assert "12 of them are there as .png: add --png" in fault(kitti_tree(ext=".png"))


def test_data_path_missing_or_a_level_off(tree: Path) -> None:
    assert fault(tree / "nowhere") == f"data_path {tree / 'nowhere'} does not exist or is no folder; give the dataset's root folder"
    assert f"they lie under {tree}: give that as data_path" in fault(tree / "2011_09_26")
    assert f"they lie under {tree}: give that as data_path" in fault(tree.parent)


def test_a_line_that_names_a_folder_elsewhere_is_answered_with_it(tree: Path, tmp_path: Path) -> None:
    here, gone = tmp_path / "elsewhere", tmp_path / "gone"
    shutil.copytree(tree / FOLDER, here)
    refs = [FrameRef(str(here), 2, "l"), FrameRef(str(here), 77, "l")]
    require_files(KittiRaw(tree, ".jpg"), refs[:1], frame_ids=(0, -1, 1), use_stereo=True)
    said = f"1 image of the split missing from {tree}, in 1 folder: {here}/image_02/data/0000000077.jpg; fetch these drives again"
    assert fault(tree, refs, frame_ids=(0,)).startswith(said)
    refs = [FrameRef(str(gone), 2, "l")]
    assert f"absent folders: {gone}/image_02/data; unpack" in fault(tree, refs, frame_ids=(0,))


def test_absent_drive_and_camera(tree: Path) -> None:
    shutil.rmtree(tree / FOLDER / "image_03")
    assert f"absent folders: {FOLDER}/image_03/data; unpack their archives there (`md-data splits" in fault(tree, REFS[:1], stereo=True)
    text = fault(tree, [FrameRef("2011_09_26/2011_09_26_drive_0002_sync", 0, "l")])
    assert "absent folders: 2011_09_26/2011_09_26_drive_0002_sync/image_02/data;" in text


def test_neighbours_beyond_the_ends(tree: Path) -> None:
    ends = [FrameRef(FOLDER, 0, "l"), FrameRef(FOLDER, 5, "l")]
    text = fault(tree, ends)
    assert text.startswith("2 images of the split missing")
    assert "all are neighbours of targets" in text
    require_files(KittiRaw(tree, ".jpg"), ends, frame_ids=(0,), use_stereo=True)


def test_line_without_camera(tree: Path) -> None:
    assert "'image 5' names no camera" in fault(tree, [FrameRef("image", 5, None)])
