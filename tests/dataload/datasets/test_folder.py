"""Folders of one's own: any names that sort, one or two cameras, intrinsics from a file or an option."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import BACKENDS
from evo_tree import save

from dataload.config import DataConfig
from dataload.datasets import locate, open_dataset
from dataload.datasets.folder import Folder
from dataload.datasets.presence import require_files
from dataload.frames.calibration import LEFT, RIGHT, Calibration, Intrinsics, read_calibration, write_calibration
from dataload.frames.frame_ref import NOT_ON_DISK
from dataload.loader import Loader
from splits.errors import InputError

CAMERA = Intrinsics(fx_px=50, fy_px=41, cx_px=31, cy_px=20, width_px=60, height_px=40)
NUMBERS = (50.0, 41.0, 31.0, 20.0)


def write_frames(folder: Path, names: list[str], size_px: tuple[int, int] = (40, 60)) -> None:
    """Frames whose grey tells their place."""
    for place, name in enumerate(names):
        save(folder / name, np.full((*size_px, 3), 10 * place, np.uint8))


def names_of(dataset: Folder, sequence: str) -> list[str]:
    return dataset.timeline(sequence).names


@pytest.mark.parametrize(
    "names",
    [
        ["frame_9.jpg", "frame_10.jpg", "frame_11.jpg"],
        ["IMG 2.jpeg", "IMG 10.JPG", "IMG 11.png"],
        ["a.png", "b.png", "c.png"],
        ["2020-10-29T17-01-59.9.jpg", "2020-10-29T17-02-00.1.jpg", "2020-10-29T17-02-00.3.jpg"],
    ],
)
def test_names_sort_as_people_count(tmp_path: Path, names: list[str]) -> None:
    write_frames(tmp_path / "drive", names)
    dataset = Folder(tmp_path, intrinsics=NUMBERS)
    assert [dataset.image_name("drive", "l", place) for place in range(3)] == names
    (target,) = dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0, -1, 1), use_stereo=False)
    assert dataset.image_path(target, 1) == tmp_path / "drive" / names[2]


def test_blanks_in_names_stand_as_percent_20_in_lines(tmp_path: Path) -> None:
    write_frames(tmp_path / "my drive 100%", ["IMG 1.jpg", "IMG 2.jpg", "IMG 3.jpg"])
    dataset = Folder(tmp_path)
    lines = [dataset.split_line(ref) for ref in dataset.all_refs()]
    assert lines[1] == "my%20drive%20100%25 IMG%202 l"
    assert dataset.refs(lines, source="own") == dataset.all_refs()
    assert dataset.image_path(dataset.refs(lines, source="own")[1]) == tmp_path / "my drive 100%" / "IMG 2.jpg"


def test_sequences_are_found_wherever_they_lie(tmp_path: Path) -> None:
    for place in ("one", "city/two", "city/three/left", "city/three/right", ".hidden", "splits/folder"):
        write_frames(tmp_path / place, ["1.jpg"])
    write_frames(tmp_path / "city/three/depth", ["1.png"])
    (tmp_path / "empty").mkdir()
    assert Folder(tmp_path).sequences() == ["city/three", "city/two", "one"]
    assert Folder(tmp_path / "one").sequences() == ["."]
    with pytest.raises(
        InputError, match=r"empty holds no sequence of dataset Folder: images are looked for in <sequence>/ or <sequence>/left/"
    ):
        Folder(tmp_path / "empty").sequences()


def test_a_sequence_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    write_frames(tmp_path / "disk" / "drive", ["1.jpg"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk" / "drive")
    (tmp_path / "data" / "back").symlink_to(tmp_path / "data")
    assert Folder(tmp_path / "data").sequences() == ["linked"]


def test_frames_right_in_the_folder_are_a_sequence(tmp_path: Path) -> None:
    write_frames(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    dataset = Folder(tmp_path)
    assert [dataset.split_line(ref) for ref in dataset.all_refs()] == [". 1 l", ". 2 l", ". 3 l"]
    require_files(dataset, dataset.all_refs()[1:2], frame_ids=(0, -1, 1), use_stereo=False)


def test_two_cameras_are_left_and_right(tmp_path: Path) -> None:
    for side in ("left", "right"):
        write_frames(tmp_path / "drive" / side, ["1.jpg", "2.jpg", "3.jpg"])
    (tmp_path / "drive/right/3.jpg").unlink()
    cameras = {LEFT: CAMERA, RIGHT: CAMERA.at_size(80, 120)}
    write_calibration(tmp_path / "drive" / "calibration.yaml", Calibration(cameras=cameras, baseline_m=0.2))
    dataset = Folder(tmp_path)
    refs = dataset.all_refs()
    assert [ref.line for ref in refs] == ["drive 1 l", "drive 2 l", "drive 3 l", "drive 1 r", "drive 2 r"]
    assert dataset.image_path(refs[3], stereo=True) == tmp_path / "drive/left/1.jpg"
    assert dataset.metric_factor == pytest.approx(2)
    assert [dataset.T_stereo(ref)[0, 3] for ref in (refs[0], refs[3])] == pytest.approx([-0.1, 0.1])
    np.testing.assert_allclose(dataset.K(refs[0], 64, 96), dataset.K(refs[3], 64, 96))
    kept = dataset.with_sources(refs, source="all", frame_ids=(0,), use_stereo=True)
    assert [ref.line for ref in kept] == ["drive 1 l", "drive 2 l", "drive 1 r", "drive 2 r"]
    # The right camera has no frame after its second.
    kept = dataset.with_sources(refs, source="all", frame_ids=(0, -1, 1), use_stereo=False)
    assert [ref.line for ref in kept] == ["drive 2 l"]


def test_numbers_with_a_hole_are_a_gap_and_names_without_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frames(tmp_path / "numbers", [f"{number:04d}.jpg" for number in (0, 1, 2, 3, 90, 91, 92)])
    write_frames(tmp_path / "letters", [f"{letter}.jpg" for letter in "abcxyz"])
    dataset = Folder(tmp_path, intrinsics=NUMBERS)
    with caplog.at_level(logging.INFO, "md"):
        kept = dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0, -1, 1), use_stereo=False)
    assert [ref.line for ref in kept] == [*(f"letters {letter} l" for letter in "bcxy"), *(f"numbers {n:04d} l" for n in (1, 2, 91))]
    assert "4 at an end of their sequence, 2 beside a gap" in caplog.text


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("drive", "1 field where 2 or 3 are expected"),
        ("drive 1 l 5", "4 fields where 2 or 3 are expected"),
        ("drive 1 left", "side 'left' is none of l, r, 2, 3"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    with pytest.raises(InputError, match=rf"^train, line 1: '{line}': {fault}; a line reads '<sequence> <frame> \[l or r\]'$"):
        Folder(tmp_path).refs([line], source="train")


def test_a_line_may_leave_out_the_side_and_name_what_is_not_there(tmp_path: Path) -> None:
    write_frames(tmp_path / "drive", ["1.jpg", "2.jpg"])
    dataset = Folder(tmp_path)
    first, gone, elsewhere = dataset.refs(["drive 1", "drive 7", "drove 1"], source="train")
    assert (dataset.side(first), first.line) == ("l", "drive 1")
    assert (gone.frame_index, elsewhere.frame_index) == (NOT_ON_DISK, NOT_ON_DISK)
    with pytest.raises(InputError, match=r"^2 images of the split missing from .*: drive/7\.jpg, drove/1\.jpg; "):
        require_files(dataset, [first, gone, elsewhere], frame_ids=(0,), use_stereo=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_are_made_of_mixed_sizes(tmp_path: Path, backend: str) -> None:
    write_frames(tmp_path / "large", [f"{n}.jpg" for n in range(4)], (80, 128))
    write_frames(tmp_path / "small", [f"{n}.png" for n in range(4)])
    config = DataConfig(
        data_path=tmp_path, dataset="folder", height_px=64, width_px=96, batch_size=4, loader=backend, num_workers=2,
        intrinsics=(30.0, 31.0, 28.0, 19.0),
    )  # fmt: skip
    dataset = open_dataset(config)
    assert isinstance(dataset, Folder)
    refs = dataset.with_sources(dataset.all_refs(), source="all", frame_ids=config.frame_ids, use_stereo=False)
    with Loader(config, dataset, refs, training=False) as loader:
        (batch,) = loader.epoch(0)
    assert [ref.line for ref in refs] == ["large 1 l", "large 2 l", "small 1 l", "small 2 l"]
    assert batch.target[0][:, 0, 32, 48].tolist() == pytest.approx([10, 20, 10, 20], abs=1)
    assert batch.sources[0][:, :, 0, 32, 48].flatten().tolist() == pytest.approx([0, 20, 10, 30, 0, 20, 10, 30], abs=1)
    # Pixels of the images as they lie on disk, whatever their size.
    for row, (height, width) in enumerate([(80, 128), (80, 128), (40, 60), (40, 60)]):
        assert torch.allclose(batch.K[row, 0, 0], torch.tensor(30 * 96 / width))
        assert torch.allclose(batch.K[row, 1, 2], torch.tensor(19.5 * 64 / height - 0.5))


def test_depth_lies_beside_the_frames_under_the_same_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "drive", ["1.jpg", "2.jpg"])
    save(tmp_path / "drive/depth/2.png", np.full((20, 30), 5120, np.uint16))
    dataset = Folder(tmp_path)
    first, second = dataset.all_refs()
    assert dataset.depth_m(first) is None
    assert np.unique(dataset.depth_m(second)).tolist() == [20]


def test_the_unit_of_depth_is_not_guessed_where_its_file_cannot_be_read(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", ["1.png", "2.png"])
    save(tmp_path / "a" / "depth" / "1.png", np.full((40, 60), 5000, np.uint16))
    (tmp_path / "a" / "calibration.yaml").write_text("cameras: {front_left: {fx: 60}}\ndepth: {scale: 1000}\n")
    (ref, _) = Folder(tmp_path).all_refs()
    with pytest.raises(InputError, match=r"calibration\.yaml: .*; that file may hold the unit of depth, too, which --depth_scale gives"):
        Folder(tmp_path).depth_m(ref)
    assert (Folder(tmp_path, depth_scale=1000.0).depth_m(ref) == 5).all()


def test_calibrations_keep_every_bit(tmp_path: Path) -> None:
    camera = Intrinsics(fx_px=1 / 3 + 700, fy_px=700.1, cx_px=2 / 3 + 640, cy_px=360.123456789, width_px=1280, height_px=720)
    known = Calibration(
        cameras={LEFT: camera, RIGHT: camera}, baseline_m=0.1 + 0.2, depth_scale=256, depth_kind="sparse", depth_topic="/points",
        frame_ids={LEFT: "cam", RIGHT: "other"}, source={"bag": "drive.bag", "image_topic": "/left", "hz": 10},
    )  # fmt: skip
    assert read_calibration(write_calibration(tmp_path / "calibration.yaml", known)) == known


GOOD = "cameras: {front_left: {image_width: 4, image_height: 3, camera_matrix: [1, 0, 1, 0, 1, 1, 0, 0, 1]}}"
ROS_FILE = """
image_width: 640
image_height: 480
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [DISTORTION, 0.0, 0.0, 0.0, 0.0]}
projection_matrix: {rows: 3, cols: 4, data: [480.0, 0.0, 318.0, 0.0, 0.0, 490.0, 239.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
RECTIFIED
"""


@pytest.mark.parametrize(("distortion", "rectified"), [("0.0", ""), ("-0.3", "rectified: true")])
def test_a_file_of_ros_itself_is_read(tmp_path: Path, distortion: str, rectified: str) -> None:
    (tmp_path / "calibration.yaml").write_text(ROS_FILE.replace("DISTORTION", distortion).replace("RECTIFIED", rectified))
    camera = read_calibration(tmp_path / "calibration.yaml").cameras[LEFT]
    assert camera == Intrinsics(fx_px=480, fy_px=490, cx_px=318, cy_px=239, width_px=640, height_px=480)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (ROS_FILE.replace("DISTORTION", "-0.3").replace("RECTIFIED", ""), "the images of camera front_left are distorted"),
        ("cameras: {front_left: {image_width: 4", "is not a YAML file"),
        ("- 1\n- 2\n", "holds no calibration"),
        ("", "holds no calibration"),
        ("cameras: {front_right: {image_width: 4}}", "names no camera front_left"),
        ("cameras: {front_left: 5}", "camera front_left holds no fields"),
        ("cameras: {front_left: {image_width: 4, image_height: 3}}", "has neither a projection_matrix of 12 numbers"),
        ("cameras: {front_left: {camera_matrix: [1, 0, 1, 0, 1, 1, 0, 0, 1]}}", "lacks image_width or image_height"),
        (
            "cameras: {front_left: {image_width: 4, image_height: 3, camera_matrix: [0, 0, 0, 0, 0, 0, 0, 0, 0]}}",
            "camera front_left: intrinsics: fx_px=0 must be above 0; an uncalibrated camera",
        ),
        (
            f"{GOOD}\nstereo: {{baseline_m: -1}}",
            "stereo: baseline_m is -1, not a number above 0",
        ),
    ],
)  # fmt: skip
def test_a_calibration_that_cannot_be_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_calibration(path)
    assert str(caught.value).startswith(f"{path}")
    assert fault in str(caught.value)


def test_splits_are_found_below_the_data_and_their_absence_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--data_path is missing: the folder that holds the sequences of dataset folder"):
        locate("folder", None, None)
    with pytest.raises(
        InputError, match=r"no split 'folder' and no folder .*/splits/folder; md-data splits --from .* --dataset folder makes one"
    ):
        locate("folder", tmp_path, None)
    with pytest.raises(
        InputError, match=r"^data_path .*/nowhere does not exist or is no folder; give the folder that holds the sequences$"
    ):
        locate("evo", tmp_path / "nowhere", "evo")
    (tmp_path / "splits" / "folder").mkdir(parents=True)
    (tmp_path / "splits" / "evo").mkdir()
    assert locate("folder", tmp_path, None) == (tmp_path, str(tmp_path / "splits" / "folder"))
    assert locate("evo", tmp_path, "evo") == (tmp_path, str(tmp_path / "splits" / "evo"))
    assert locate("folder", tmp_path, str(tmp_path)) == (tmp_path, str(tmp_path))


def test_a_camera_file_by_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "seq").mkdir()
    save(tmp_path / "seq" / "0.png", np.zeros((6, 8, 3), np.uint8))
    (tmp_path / "seq" / "ost.yaml").write_text(ROS_FILE)
    dataset = Folder(tmp_path)
    with pytest.raises(InputError, match=r"seq/ost.yaml is there: if it holds this camera, copy it to seq/calibration.yaml"):
        dataset.intrinsics(dataset.all_refs()[0])
