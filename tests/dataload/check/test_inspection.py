"""What is wrong with a dataset is found and named before a training; what is right is not complained of."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inspected_trees import SIZE_PX, evo_tree, folder_tree, inspected, write_camera, write_depth, write_frames, write_lists
from numpy.typing import NDArray
from PIL import Image

from dataload.check import frames as inspect_frames
from dataload.footage import motion
from dataload.frames.picture import Picture

DRIVE = "2011_09_26/2011_09_26_drive_{}_sync"
STANDING_DRIVE = "2011_09_28/2011_09_28_drive_9003_sync"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return folder_tree(tmp_path / "data", {"a": 6, "b": 5})


def test_a_sound_dataset_is_ready(tree: Path, tmp_path: Path) -> None:
    write_depth(tree / "a" / "depth", ["0001.jpg", "0002.jpg"], 10)
    report = inspected(tree, depth_scale=256, sheet=tmp_path / "sheet.png")
    assert (report.problems, report.warnings, report.verdict) == ([], [], "ready")
    assert report.facts["frames"] | {"seconds": 0} == {"decoded": 11, "seconds": 0, "missing": 0, "damaged": [], "blank": [], "black": []}
    assert report.facts["lists"]["all"]["left_out"] == {"at an end of their sequence": 4}
    assert report.facts["lists"]["all"]["standing"] == {"checked": 7, "standing": 0}
    assert report.facts["lists"]["all"]["with_depth"] == 2
    assert report.facts["lists"]["all"]["depth"]["median_m"] == pytest.approx(10, rel=0.01)
    assert [camera["place"] for camera in report.facts["cameras"]] == ["a l", "b l"]
    assert report.told()[-1] == "ready"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300


def test_published_layouts_are_ready(kitti_tree: Callable[..., Path]) -> None:
    root = kitti_tree()
    lines = (root / "split" / "train_files.txt").read_text().split("\n")
    split = write_lists(root / "own", train=lines[:4])
    report = inspected(root, split, dataset="kitti", height_px=64, width_px=224)
    assert report.problems == []
    assert report.facts["lists"]["train"]["with_depth"] == 4


def test_each_file_is_decoded_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, watched = Counter[Path](), Counter[Path]()
    decode, look = inspect_frames.inspect_picture, motion.thumbnail

    def counting(path: Path) -> Picture:
        decoded[path] += 1
        return decode(path)

    def watching(path: Path) -> NDArray[np.uint8]:
        watched[path] += 1
        return look(path)

    monkeypatch.setattr(inspect_frames, "inspect_picture", counting)
    monkeypatch.setattr(motion, "thumbnail", watching)
    inspected(tree, write_lists(tree / "splits" / "s", train=["a 0001", "a 0002", "b 0001"], val=["a 0003"], test=["a 0004", "b 0004"]))
    # b's 0003 is nobody's neighbour.
    assert decoded == Counter([tree / "a" / f"{i:04d}.jpg" for i in range(5)] + [tree / "b" / f"{i:04d}.jpg" for i in (0, 1, 2, 4)])
    # Small and grey once more for each list, however many targets share it.
    assert watched == Counter(tree / "a" / f"{i:04d}.jpg" for i in (0, 1, 2, 3, 2, 3, 4)) + Counter(
        tree / "b" / f"{i:04d}.jpg" for i in (0, 1, 2)
    )


def test_a_truncated_image_is_named_once(tree: Path) -> None:
    path = tree / "a" / "0002.jpg"
    path.write_bytes(path.read_bytes()[:1500])
    report = inspected(tree)
    (problem,) = report.problems
    assert problem.startswith("1 image damaged: a/0002.jpg;")
    assert "restore the file" in problem
    # Its targets are not looked at for movement, the others are.
    assert report.facts["lists"]["all"]["standing"]["checked"] == 4


def test_frames_that_are_not_there_are_counted(tree: Path) -> None:
    report = inspected(tree, write_lists(tree / "splits" / "s", train=["a 0001", "a 0077", "c 0001"], test=["b 0009"]))
    assert report.facts["frames"]["missing"] == 3
    assert any(text.startswith("train: 2 images of the split missing") and "a/0077.jpg" in text for text in report.problems)
    assert any(text.startswith("test: 1 image of the split missing") for text in report.problems)


def test_kitti_targets_at_the_ends_of_drives_are_left_out_and_lost_neighbours_named(kitti_tree: Callable[..., Path]) -> None:
    root = kitti_tree()
    folder = DRIVE.format("0001")
    report = inspected(
        root, write_lists(root / "ends", train=[f"{folder} 0 l", f"{folder} 1 l"]), dataset="kitti", height_px=64, width_px=224
    )
    assert report.problems == []
    assert report.facts["lists"]["train"]["left_out"] == {"at an end of their sequence": 1}
    (root / folder / "image_02" / "data" / "0000000002.jpg").unlink()
    report = inspected(root, str(root / "ends"), dataset="kitti", height_px=64, width_px=224)
    (problem,) = report.problems
    assert "1 image of the split missing" in problem
    assert "all are neighbours of targets" in problem


def test_mixed_sizes_in_a_sequence_are_flagged_and_of_two_sequences_not(tmp_path: Path) -> None:
    root = folder_tree(tmp_path, {"a": 4})
    write_frames(root / "b", [f"{i:04d}.jpg" for i in range(4)], size_px=(192, 640))
    write_camera(root / "b", size_px=(192, 640))
    assert inspected(root).problems == []
    write_frames(root / "a", ["0003.jpg"], size_px=(90, 320))
    (problem,) = inspected(root).problems
    assert problem.startswith("a: images of several sizes, 3 of 320x96 but 1 of 320x90 as 0003.jpg;")


def test_pictures_of_one_colour_and_squeezed_ones_are_warned_of(tree: Path) -> None:
    Image.new("RGB", SIZE_PX[::-1]).save(tree / "a" / "0003.jpg")
    report = inspected(tree, height_px=160, width_px=320)
    assert any("1 image of a single colour: a/0003.jpg" in text for text in report.warnings)
    assert any("squeezed to 320x160" in text and "--height 96 --width 320" in text for text in report.warnings)
    assert report.verdict == "ready"


@pytest.mark.parametrize(
    ("changed", "told", "is_problem"),
    [
        ({"fx_px": 30_000.0, "fy_px": 30_000.0}, "1 degrees wide): no plausible field of view", True),
        ({"fx_px": 40.0, "fy_px": 40.0}, "152 degrees wide): no plausible field of view", True),
        ({"cx_px": 900.0}, "the principal point lies outside the image", True),
        ({"cy_px": 20.0}, "the principal point is far from the middle", False),
        ({"fx_px": 250.0}, "fx and fy differ", False),
    ],
)
def test_implausible_cameras_are_told(tree: Path, changed: dict[str, float], told: str, is_problem: bool) -> None:
    write_camera(tree / "b", **changed)
    report = inspected(tree)
    found = report.problems if is_problem else report.warnings
    assert any(text.startswith("1 camera (b l: fx ") and told in text for text in found)
    assert bool(report.problems) == is_problem


def test_intrinsics_for_images_of_another_shape_are_a_problem_and_of_another_size_a_warning(tree: Path) -> None:
    write_camera(tree, size_px=(192, 640))
    report = inspected(tree)
    assert any("2 cameras (a l: " in text and "given for 640x192" in text and "another size" in text for text in report.warnings)
    assert report.problems == []
    write_camera(tree, size_px=(480, 640))
    assert any("given for 640x480" in text and "images of another shape" in text for text in inspected(tree).problems)


def test_no_intrinsics_at_all_is_told_with_the_remedy(tree: Path) -> None:
    (tree / "calibration.yaml").unlink()
    assert any("intrinsics of sequence a are not known" in text and "--intrinsics FX FY CX CY" in text for text in inspected(tree).problems)
    assert inspected(tree, intrinsics=(190, 190, 160, 48)).problems == []


def test_whole_metres_are_told_with_the_remedy(tree: Path) -> None:
    names = [f"{index:04d}.jpg" for index in range(6)]
    write_depth(tree / "a" / "depth", names, 30, scale=1)
    problems = inspected(tree).problems
    assert any("4 of 4 depth maps read cannot be used" in text and "give --depth_scale 1" in text for text in problems)
    assert inspected(tree, depth_scale=1).problems == []


def test_depth_of_an_absurd_unit_is_told(tree: Path) -> None:
    write_depth(tree / "a" / "depth", ["0001.jpg", "0002.jpg"], 30, scale=1000)
    assert any("depth of 30000 m in the median" in text for text in inspected(tree, depth_scale=1).problems)
    assert inspected(tree, depth_scale=1000).problems == []


def test_depth_that_may_be_millimetres_is_asked_about(tree: Path) -> None:
    write_depth(tree / "a" / "depth", ["0001.jpg", "0002.jpg"], 3, scale=1000)
    (problem,) = inspected(tree).problems
    assert "read as 1/256 m they are" in problem
    assert "as millimetres" in problem
    assert "write 'depth: {scale: 256}' or 'depth: {scale: 1000}' into calibration.yaml, or give --depth_scale" in problem
    write_depth(tree / "a" / "depth", ["0001.jpg", "0002.jpg"], 90)
    report = inspected(tree)
    assert report.problems == []
    assert any("read as 1/256 m they are" in text for text in report.warnings)
    for scale in (256, 1000):
        assert inspected(tree, depth_scale=scale).problems == []


def test_depth_of_another_shape_than_its_image_is_told(tree: Path) -> None:
    write_depth(tree / "a" / "depth", ["0001.jpg"], 30, size_px=(48, 160))
    assert inspected(tree, depth_scale=256).problems == []
    write_depth(tree / "a" / "depth", ["0001.jpg"], 30, size_px=(120, 160))
    assert any("1 depth map of another shape" in text and "160x120 of 320x96" in text for text in inspected(tree, depth_scale=256).problems)


def test_a_list_in_training_and_in_test_is_a_problem_and_a_shared_sequence_a_warning(tree: Path) -> None:
    report = inspected(
        tree, write_lists(tree / "splits" / "s", train=["a 0001", "a 0002"], val=["b 0001", "b 0002"], test=["a 0002", "b 0002"])
    )
    (problem,) = report.problems
    assert problem.startswith("test shares 1 target with train (a 0002)")
    assert any(text.startswith("test shares 1 target with val (b 0002)") for text in report.warnings)
    report = inspected(tree, write_lists(tree / "splits" / "t", train=["a 0001", "a 0001"], val=["a 0003", "b 0002"]))
    assert report.problems == []
    assert any("val has 1 of its 2 sequences in common with train (a)" in text for text in report.warnings)
    assert any("train: 1 line with a target that the list holds already" in text for text in report.warnings)


def test_a_malformed_list_leaves_the_others_inspected(tree: Path) -> None:
    report = inspected(tree, write_lists(tree / "splits" / "s", train=["a 0001", "a 0002 x"], val=["b 0001"]))
    (problem,) = report.problems
    assert "train_files.txt, line 2: 'a 0002 x': side 'x' is none of l, r, 2, 3" in problem
    assert report.facts["frames"]["decoded"] == 3


def test_a_test_list_of_another_dataset_does_not_stop_training(kitti_tree: Callable[..., Path]) -> None:
    root = kitti_tree()
    split = write_lists(root / "benchmark", train=[f"{DRIVE.format('0001')} 2 l"], test=["image 0", "image 1"])
    report = inspected(root, split, dataset="kitti", height_px=64, width_px=224)
    assert report.problems == []
    assert any(text.startswith("test: split line 'image 0' names no camera") for text in report.warnings)


def test_times_may_be_larger_than_whole_numbers_of_64_bits(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "data", {"a": 5})
    for number, path in enumerate(sorted((root / "a").glob("*.jpg"))):
        path.rename(path.with_stem(str(93 * 10**17 + number * 10**8)))
    assert inspected(root).facts["interval_s"] == pytest.approx(0.1)


def test_gaps_and_slow_sequences_are_told(tmp_path: Path) -> None:
    # Threes a tenth of a second apart, and most of a second between them.
    root = evo_tree(tmp_path / "fast", "site_0", [third + 0.1 * index for third in range(4) for index in range(3)])
    report = inspected(root, dataset="evo")
    assert report.facts["gaps"] == 3
    assert report.facts["interval_s"] == pytest.approx(0.1)
    assert report.facts["lists"]["all"]["left_out"] == {
        "at an end of their sequence": 2, "beside a gap of over 2.5 times the usual interval": 6,
    }  # fmt: skip
    assert any("all: 8 of 12 targets left out" in text for text in report.warnings)
    report = inspected(evo_tree(tmp_path / "slow", "site_0", [2.0 * index for index in range(12)]), dataset="evo")
    assert any("1 sequence with more than 1 s between images (site_0)" in text for text in report.warnings)


def test_a_list_that_cannot_be_trained_on_is_a_problem(tmp_path: Path) -> None:
    root = folder_tree(tmp_path, {"a": 2})
    (problem,) = inspected(root).problems
    assert "none of 2 targets can be trained on: 2 at an end of their sequence" in problem
    assert inspected(root, frame_ids=(0, -1)).problems == []


def test_stereo_of_unknown_baseline_is_a_problem(tree: Path) -> None:
    (problem,) = inspected(tree, use_stereo=True).problems
    assert problem.startswith("use_stereo: the distance of the cameras is not known")


def test_a_standing_camera_is_told_from_a_moving_one(shared: Path, tmp_path: Path) -> None:
    root = shared / "kitti" / "raw_jpg"
    split = write_lists(tmp_path / "split", train=[f"{STANDING_DRIVE} {i} l" for i in (1, 2)], val=[f"{DRIVE.format('9001')} 8 l"])
    report = inspected(root, split, dataset="kitti", height_px=192, width_px=640)
    assert any(text.startswith("train: the camera stands still at 100 % of 2 targets checked") for text in report.warnings)
    assert report.facts["lists"]["val"]["standing"] == {"checked": 1, "standing": 0}


def test_a_sheet_that_cannot_be_written_is_a_warning(tree: Path) -> None:
    (tree / "blocked").write_text("")
    report = inspected(tree, sheet=tree / "blocked" / "sheet.jpg")
    (warning,) = report.warnings
    assert warning.startswith("no contact sheet: cannot make folder")
    assert report.verdict == "ready"
