"""Every dataset's answers: paths, intrinsics, the other camera, ground truth; and what is said when a file is not there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import splits
from dataload.config import DataConfig
from dataload.datasets import DATASETS, dataset_class, open_dataset
from dataload.datasets.demo import Demo
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_depth import KittiDepth, read_depth_png
from dataload.datasets.kitti_odom import KittiOdom
from dataload.datasets.kitti_test import KittiTest
from dataload.datasets.presence import require_files
from dataload.demo.world import WorldConfig, ensure
from dataload.frames.frame_ref import FrameRef, parse_split
from dataload.loader import Loader
from splits.errors import InputError

DRIVE = "2011_09_26_drive_0001_sync"
FOLDER = f"2011_09_26/{DRIVE}"
LEFT, RIGHT = FrameRef(FOLDER, 3, "l"), FrameRef(FOLDER, 3, "r")
OWN = [KittiRaw, KittiOdom, KittiDepth]


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


def write_depth_png(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 6), value, dtype=np.uint16)).save(path)


@pytest.mark.parametrize("name", ["kitti", "kitti_odom", "kitti_depth", "kitti_test"])
def test_open_dataset_by_name(name: str, tmp_path: Path) -> None:
    dataset = open_dataset(DataConfig(data_path=tmp_path, dataset=name, image_ext=".png"))
    assert type(dataset).__module__ == DATASETS[name].partition(":")[0]
    assert dataset.data_path == tmp_path
    assert dataset.image_name("9" if name == "kitti_odom" else "image", "l", 5).endswith("5.png")
    assert dataset.metric_factor == pytest.approx(5.4)
    assert dataset.default_image_ext == (".png" if name == "kitti_test" else ".jpg")


def test_unknown_dataset_names_the_near_one() -> None:
    with pytest.raises(InputError, match=r"dataset 'kiti' is unknown; did you mean 'kitti'\? choose from kitti, kitti_odom"):
        dataset_class("kiti")


@pytest.mark.parametrize("cls", [KittiRaw, KittiDepth])
def test_raw_paths(cls: type[KittiRaw]) -> None:
    dataset = cls(Path("data"), ".jpg")
    assert dataset.image_path(LEFT) == Path(f"data/{FOLDER}/image_02/data/0000000003.jpg")
    assert dataset.image_path(RIGHT, -1) == Path(f"data/{FOLDER}/image_03/data/0000000002.jpg")
    assert dataset.image_path(LEFT, stereo=True) == Path(f"data/{FOLDER}/image_03/data/0000000003.jpg")
    assert dataset.image_path(RIGHT, stereo=True) == Path(f"data/{FOLDER}/image_02/data/0000000003.jpg")


def test_odometry_paths() -> None:
    dataset = KittiOdom(Path("data"), ".png")
    assert dataset.image_path(FrameRef("9", 123, "l"), 1) == Path("data/sequences/09/image_2/000124.png")
    assert dataset.image_path(FrameRef("10", 5, "l"), stereo=True) == Path("data/sequences/10/image_3/000005.png")


def test_paths_exist_in_a_tree(tree: Path) -> None:
    dataset = KittiRaw(tree, ".jpg")
    assert all(dataset.image_path(ref, k, stereo=s).is_file() for ref in (LEFT, RIGHT) for k in (-1, 0, 1) for s in (False, True))


@pytest.mark.parametrize("cls", OWN)
def test_intrinsics_are_nominal_in_pixels(cls: type[KittiRaw]) -> None:
    K = cls(Path("data"), ".jpg").K(LEFT, 192, 640)
    assert K.dtype == np.float32
    np.testing.assert_allclose(K, [[0.58 * 640, 0, 320], [0, 1.92 * 192, 96], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("cls", OWN)
def test_stereo_moves_points_against_the_other_camera(cls: type[KittiRaw]) -> None:
    left, right = (cls(Path("data"), ".jpg").T_stereo(ref) for ref in (LEFT, RIGHT))
    assert left.dtype == np.float32
    # a point straight ahead of the left camera lies to the left (-x) in the right one
    np.testing.assert_allclose(left @ [0, 0, 10, 1], [-0.1, 0, 10, 1], rtol=1e-6)
    np.testing.assert_allclose(left @ right, np.eye(4), atol=1e-7)


@pytest.mark.parametrize("cls", OWN)
def test_line_without_camera_is_refused(cls: type[KittiRaw]) -> None:
    dataset = cls(Path("data"), ".jpg")
    for ask in (dataset.image_path, dataset.T_stereo):
        with pytest.raises(InputError, match=r"split line 'image 5' names no camera; add its side: 'image 5 l'"):
            ask(FrameRef("image", 5, None))


def test_odometry_refuses_raw_lines_and_has_no_depth() -> None:
    dataset = KittiOdom(Path("data"), ".jpg")
    with pytest.raises(InputError, match=r"is no sequence number; its split lines read '9 123 l': use --split odom"):
        dataset.image_path(LEFT)
    assert dataset.depth_m(FrameRef("9", 0, "l")) is None
    with pytest.raises(InputError, match="no ground-truth depth"):
        dataset.eval_depth_m(FrameRef("9", 0, "l"))


def test_every_source_is_named(tree: Path, tmp_path: Path) -> None:
    assert KittiRaw(tree, ".jpg").depth_source(LEFT) == tree / FOLDER / "velodyne_points/data/0000000003.bin"
    assert KittiRaw(tree, ".jpg").depth_source(LEFT._replace(frame_index=77)) is None
    assert KittiDepth(tree, ".jpg").depth_source(LEFT) is None
    assert KittiOdom(tree, ".jpg").depth_source(FrameRef("9", 0, "l")) is None
    world = ensure(tmp_path / "world", config=WorldConfig(height_px=64, width_px=192, drives=4, frames=3), progress=False)
    ref = FrameRef("2000_01_01/2000_01_01_drive_0001_sync", 1, "r")
    assert Demo(world).depth_source(ref) == world / ref.folder / "depth_exact/image_03/0000000001.png"


TEST_PLACES = ["", "test_depth_prediction_anonymous", "depth_selection/test_depth_prediction_anonymous"]


@pytest.mark.parametrize("place", TEST_PLACES)
def test_anonymous_images_are_found_and_loaded(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place / "image"
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (96, 64), (50 * index, 20, 200)).save(folder / f"{index:010d}.png")
    dataset = KittiTest(tmp_path, KittiTest.default_image_ext)
    refs = parse_split(splits.read_lines("benchmark", "test")[:3], source="test")
    assert dataset.image_path(refs[2]) == folder / "0000000002.png"
    require_files(dataset, refs, frame_ids=(0,), use_stereo=False)
    config = DataConfig(
        data_path=tmp_path, dataset="kitti_test", frame_ids=(0,), batch_size=2, height_px=64, width_px=96, image_ext=".png", num_levels=1
    )
    with Loader(config, dataset, refs, training=False, device=torch.device("cpu")) as loader:
        targets = torch.cat([batch.target_input for batch in loader.epoch(0)])
    assert targets.shape == (3, 3, 64, 96)
    assert targets[:, :, 32, 48].tolist() == [[0, 20, 200], [50, 20, 200], [100, 20, 200]]


def test_anonymous_images_have_no_depth_and_train_nothing(tmp_path: Path) -> None:
    dataset, ref = KittiTest(tmp_path, ".png"), FrameRef("image", 5, None)
    assert dataset.image_path(ref) == tmp_path / "image/0000000005.png"
    assert dataset.depth_source(ref) is None
    assert dataset.depth_m(ref) is None
    with pytest.raises(InputError, match=r"no ground-truth depth: the KITTI benchmark's server holds it"):
        dataset.eval_depth_m(ref)
    for frame_ids, use_stereo in (((0, -1, 1), False), ((0,), True)):
        with pytest.raises(InputError, match=r"cannot be trained on: .*train with --dataset kitti and --split benchmark"):
            require_files(dataset, [ref], frame_ids=frame_ids, use_stereo=use_stereo)
    for asked in ({"frame_id": 1}, {"stereo": True}):
        with pytest.raises(InputError, match="cannot be trained on"):
            dataset.image_path(ref, **asked)
    with pytest.raises(InputError, match=r"its split lines read 'image 5': use the test list of --split benchmark"):
        dataset.image_path(LEFT)
    with pytest.raises(InputError, match=r"^1 image of the split missing from .*: image/0000000005.png;"):
        require_files(dataset, [ref], frame_ids=(0,), use_stereo=False)


def test_laser_depth_by_both_rules(tree: Path) -> None:
    dataset = KittiRaw(tree, ".jpg")
    z, x = dataset.depth_m(LEFT), dataset.eval_depth_m(LEFT)
    assert z is not None
    assert z.shape == x.shape == (75, 248)
    assert z.dtype == x.dtype == np.float32
    hit = z > 0
    assert hit.sum() > 1000
    # the tree's laser sits 0.27 m behind the camera
    np.testing.assert_allclose(x[hit] - z[hit], 0.27, atol=1e-4)
    right = dataset.depth_m(RIGHT)
    assert right is not None
    assert (right != z).any()


def test_missing_scan(tree: Path) -> None:
    dataset, late = KittiRaw(tree, ".jpg"), FrameRef(FOLDER, 77, "l")
    assert dataset.depth_m(late) is None
    with pytest.raises(
        InputError, match=r"velodyne_points/data/0000000077.bin is missing: .*unpack KITTI raw's 2011_09_26_drive_0001_sync.zip into"
    ):
        dataset.eval_depth_m(late)


def test_missing_calibration(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / FOLDER / "velodyne_points", tmp_path / FOLDER / "velodyne_points")
    for ask in (KittiRaw(tmp_path, ".jpg").depth_m, KittiRaw(tmp_path, ".jpg").eval_depth_m):
        with pytest.raises(InputError, match=r"2011_09_26/calib_cam_to_cam.txt is missing"):
            ask(LEFT)


@pytest.mark.parametrize(
    "place",
    [FOLDER, *(f"{folder}{part}/{DRIVE}" for folder in ("", "data_depth_annotated/", "depth_annotated/") for part in ("train", "val"))],
)
def test_annotated_depth_is_found_in_each_layout(tmp_path: Path, place: str) -> None:
    write_depth_png(tmp_path / place / "proj_depth/groundtruth/image_03/0000000003.png", 300 * 256 // 10)
    dataset = KittiDepth(tmp_path, ".jpg")
    for depth in (dataset.depth_m(RIGHT), dataset.eval_depth_m(RIGHT)):
        assert depth is not None
        assert depth.dtype == np.float32
        np.testing.assert_array_equal(depth, np.full((4, 6), 30, dtype=np.float32))
    assert dataset.depth_source(RIGHT) == tmp_path / place / "proj_depth/groundtruth/image_03/0000000003.png"
    assert dataset.depth_source(LEFT) is None
    assert dataset.depth_m(LEFT) is None
    with pytest.raises(
        InputError, match=r"image_02/0000000003.png is missing: .*looked for .*, data_depth_annotated/train.*_annotated.zip"
    ):
        dataset.eval_depth_m(LEFT)
    with pytest.raises(InputError, match=r"image_03/0000000004.png is missing: .*first and last 5 frames have no annotated depth"):
        dataset.eval_depth_m(RIGHT._replace(frame_index=4))


@pytest.mark.parametrize(
    ("content", "message"), [(b"\x89PNG\r\n\x1a\n broken", "damaged"), (b"", "is empty"), (None, "no 16-bit depth image but of mode L")]
)
def test_unusable_depth_png(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "depth.png"
    if content is None:
        Image.new("L", (4, 4)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"depth.png .*{message}"):
        read_depth_png(path)


def test_truncated_depth_png_is_named(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    values = np.random.default_rng(0).integers(0, 2**16, size=(50, 60), dtype=np.uint16)
    Image.fromarray(values).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"depth.png .*damaged"):
        read_depth_png(path)


def test_real_annotated_depth_in_the_archives_layout(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "2011_09_26").symlink_to(shared / "kitti" / "raw_jpg" / "2011_09_26")
    (tmp_path / "train").symlink_to(shared / "kitti" / "depth_annotated" / "train")
    ref = FrameRef(FOLDER, 25, "l")
    annotated, laser = KittiDepth(tmp_path, ".jpg").eval_depth_m(ref), KittiRaw(tmp_path, ".jpg").depth_m(ref)
    assert laser is not None
    assert annotated.shape == laser.shape == (375, 1242)
    both = (annotated > 0) & (laser > 0)
    assert both.sum() > 5000
    # the same street seen by both: single scans and their checked accumulation agree within centimetres nearly everywhere
    assert np.median(np.abs(annotated[both] - laser[both])) < 0.1
