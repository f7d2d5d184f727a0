"""The demo world: whole, the same each time, and its pictures, depth, poses, calibration and scans agree with one another."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dataload.commands.md_data import md_data
from dataload.datasets.demo import Demo
from dataload.demo import render as demo_render
from dataload.demo import scene as demo_scene
from dataload.demo import street as demo_street
from dataload.demo import textures as demo_textures
from dataload.demo import world as demo_world
from dataload.demo.world import WorldConfig
from dataload.frames.frame_ref import FrameRef
from dataload.ground_truth import read_ground_truth
from dataload.kitti.velodyne import read_calibration, read_scan, sparse_depth
from splits.errors import InputError

SIZE_PX = (96, 320)
CONFIG = WorldConfig(height_px=SIZE_PX[0], width_px=SIZE_PX[1], drives=4, frames=4)
PIXEL_Y, PIXEL_X = np.mgrid[0 : SIZE_PX[0], 0 : SIZE_PX[1]].astype(np.float64)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_world.ensure(tmp_path_factory.mktemp("demo") / "world", config=CONFIG, progress=False)


def read_refs(world: Path, subset: str) -> tuple[FrameRef, ...]:
    return Demo(world).read(str(demo_world.split_folder(world)), subset)


def read_image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64)


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of an image at real coordinates, and which of these lie inside it."""
    inside = (x >= 0) & (y >= 0) & (x < image.shape[1] - 1) & (y < image.shape[0] - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    i, j = y.astype(int), x.astype(int)
    a, b = (y - i)[..., None], (x - j)[..., None]
    upper, lower = (1 - b) * image[i, j] + b * image[i, j + 1], (1 - b) * image[i + 1, j] + b * image[i + 1, j + 1]
    return (1 - a) * upper + a * lower, inside


def warp_errors(target: np.ndarray, source: np.ndarray, depth_m: np.ndarray, K: np.ndarray, T: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference of the target with the source warped into it by exact geometry, and with the source as it is."""
    rays = np.stack([(PIXEL_X - K[0, 2]) / K[0, 0], (PIXEL_Y - K[1, 2]) / K[1, 1], np.ones(SIZE_PX)])
    points = np.tensordot(T[:3, :3], rays * depth_m, 1) + T[:3, 3, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = K[0, 0] * points[0] / points[2] + K[0, 2], K[1, 1] * points[1] / points[2] + K[1, 2]
    warped, inside = bilinear(source, np.nan_to_num(x, nan=-1), np.nan_to_num(y, nan=-1))
    used = inside & (depth_m > 0)
    assert used.mean() > 0.5
    return float(np.abs(warped - target)[used].mean()), float(np.abs(source - target)[used].mean())


def test_world_has_kittis_folders_and_splits_of_other_drives(world: Path) -> None:
    refs = {subset: read_refs(world, subset) for subset in ("train", "val", "test")}
    drives = {subset: {ref.folder for ref in subset_refs} for subset, subset_refs in refs.items()}
    assert len(drives["train"] | drives["val"] | drives["test"]) == CONFIG.drives
    assert not drives["train"] & (drives["val"] | drives["test"])
    assert {ref.side for ref in refs["train"]} == {"l", "r"}
    dataset = Demo(world)
    for ref in (*refs["train"], *refs["val"], *refs["test"]):
        files = [dataset.image_path(ref, frame_id, stereo=stereo) for frame_id in (-1, 0, 1) for stereo in (False, True)]
        assert all(path.is_file() for path in (*files, dataset.scan_path(ref)))


def test_full_size_lists_hold_what_a_short_training_needs(tmp_path: Path) -> None:
    config = WorldConfig()
    demo_world._write_splits(tmp_path / "splits", config)
    lines = {subset: (tmp_path / "splits" / f"{subset}_files.txt").read_text().splitlines() for subset in ("train", "val", "test")}
    assert {subset: len(rows) for subset, rows in lines.items()} == {"train": 13 * 16 * 2, "val": 16, "test": 25}
    assert len({row.split()[0] for row in lines["test"]}) == 2
    frames = {int(row.split()[1]) for rows in lines.values() for row in rows}
    assert frames == set(range(1, config.frames - 1))


@pytest.mark.parametrize("frame_id", [-1, 1])
def test_neighbours_warp_into_the_target_by_exact_depth_and_poses(world: Path, frame_id: int) -> None:
    dataset = Demo(world)
    for ref in (read_refs(world, "train")[2], read_refs(world, "test")[0]):
        poses = np.loadtxt(world / ref.folder / "poses.txt").reshape(-1, 3, 4)
        to_world = [np.vstack([pose, [0, 0, 0, 1]]) for pose in poses]
        T_source_target = np.linalg.inv(to_world[ref.frame_index + frame_id]) @ to_world[ref.frame_index]
        assert ref.side == "l"
        target, source = read_image(dataset.image_path(ref)), read_image(dataset.image_path(ref, frame_id))
        warped, unwarped = warp_errors(target, source, dataset.depth_m(ref), dataset.K(ref, *SIZE_PX), T_source_target)
        assert warped < 0.45 * unwarped


@pytest.mark.parametrize("side", ["l", "r"])
def test_other_camera_warps_into_the_target_by_exact_depth(world: Path, side: str) -> None:
    dataset = Demo(world)
    ref = read_refs(world, "val")[0]._replace(side=side)
    T = dataset.T_stereo(ref).astype(np.float64)
    T[:3, 3] *= dataset.metric_factor
    target, source = read_image(dataset.image_path(ref)), read_image(dataset.image_path(ref, stereo=True))
    warped, unwarped = warp_errors(target, source, dataset.eval_depth_m(ref), dataset.K(ref, *SIZE_PX), T)
    assert warped < 0.35 * unwarped


@pytest.mark.parametrize(("side", "camera"), [("l", 2), ("r", 3)])
def test_laser_scan_projects_onto_the_exact_depth(world: Path, side: str, camera: int) -> None:
    dataset = Demo(world)
    ref = read_refs(world, "test")[0]._replace(side=side)
    sparse = sparse_depth(read_scan(dataset.scan_path(ref)), read_calibration(world / demo_world.DATE, camera), vel_depth=False).dense()
    exact = dataset.depth_m(ref)
    measured = sparse > 0
    assert sparse.shape == exact.shape == SIZE_PX
    assert measured.mean() > 0.1
    relative = np.abs(sparse - exact)[measured] / np.maximum(exact[measured], 1)
    # What remains: pixels at edges, and what the laser sees past an edge that hides it from the camera.
    assert np.median(relative) < 0.01
    assert (relative < 0.05).mean() > 0.9


def test_depth_of_the_road_is_the_camera_height_over_the_slope() -> None:
    scene = demo_scene.SceneBuilder(1)
    scene.rectangle(1, -1, (-50, 0, -10), (50, 0, 200), "asphalt", (1.0, 1.0, 1.0))
    pose = np.column_stack([np.eye(3), [0.3, -demo_street.CAMERA_HEIGHT_M, 5.0]])
    street = scene.scene(sun=np.array([1.0, 0.0]), shadow_m=np.full(10, -1000.0), poses=pose[None])
    image, depth = demo_render.render(street, demo_textures.make_atlas(), pose, *SIZE_PX)
    K = demo_render.intrinsics(*SIZE_PX)
    rows = np.arange(60, SIZE_PX[0])
    expected = demo_street.CAMERA_HEIGHT_M * K[1, 1] / (rows - K[1, 2])
    np.testing.assert_allclose(depth[60:], np.broadcast_to(expected[:, None], depth[60:].shape), rtol=1e-4)
    assert (depth[:48] == 0).all()  # sky
    assert image[60:].std() > 3


def test_drives_turn_and_move_forward_and_differ() -> None:
    scenes = [demo_world.scene_of(WorldConfig(), drive) for drive in (1, 2)]
    for scene in scenes:
        steps = np.linalg.norm(np.diff(scene.poses[:, :, 3], axis=0), axis=1)
        assert 0.25 < steps.min() < steps.max() < 1.1
        headings = np.arctan2(scene.poses[:, 0, 2], scene.poses[:, 2, 2])
        assert np.ptp(headings) > 0.02
        np.testing.assert_allclose(
            np.swapaxes(scene.poses[:, :, :3], 1, 2) @ scene.poses[:, :, :3], np.tile(np.eye(3), (len(scene.poses), 1, 1)), atol=1e-12
        )
    assert len(scenes[0].kind) != len(scenes[1].kind)


def hash_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_rendering_again_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    again = demo_world.ensure(tmp_path / "again", config=CONFIG, progress=False)
    assert hash_of(again) == hash_of(world)


def test_several_processes_give_the_same_bytes(world: Path, tmp_path: Path) -> None:
    again = demo_world.ensure(tmp_path / "again", config=CONFIG, progress=False, processes=2)
    assert hash_of(again) == hash_of(world)


def test_a_world_that_is_there_is_left_alone_until_remade(tmp_path: Path) -> None:
    small = WorldConfig(height_px=32, width_px=96, drives=4, frames=3)
    folder = demo_world.ensure(tmp_path / "world", config=small, progress=False)
    (folder / "mine").touch()
    assert demo_world.ensure(folder) == folder
    assert (folder / "mine").exists()
    demo_world.ensure(folder, config=small, remake=True, progress=False)
    assert not (folder / "mine").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"world"}


def _ensure_small(folder: Path) -> None:
    demo_world.ensure(folder, config=WorldConfig(height_px=32, width_px=96, drives=4, frames=3), progress=False)


def test_two_processes_at_once_make_one_world(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_ensure_small, args=(tmp_path / "world",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert json.loads((tmp_path / "world" / demo_world.MARKER).read_text())["frames"] == 3


def test_a_failed_rendering_leaves_nothing_behind(tmp_path: Path) -> None:
    wider_than_jpeg_allows = WorldConfig(height_px=2, width_px=66_000, drives=4, frames=3)
    with pytest.raises(OSError, match=r"broken data stream|encoder error"):
        demo_world.ensure(tmp_path / "world", config=wider_than_jpeg_allows, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == set()


def test_folders_of_others_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("mine")
    for remake in (False, True):
        with pytest.raises(InputError, match=r"is no demo world .*name an empty or a new folder"):
            demo_world.ensure(tmp_path, remake=remake)
    assert (tmp_path / "photos.txt").read_text() == "mine"


def test_a_world_of_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / demo_world.MARKER).write_text('{"version": 0}')
    with pytest.raises(InputError, match=r"version 0, not \d+; render it again: md-data demo --remake"):
        demo_world.ensure(tmp_path)


def test_default_folder_follows_the_cache_convention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_world.default_folder() == tmp_path / "md-engine" / f"demo_world_v{demo_world.VERSION}"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert demo_world.default_folder().parent == Path.home() / ".cache" / "md-engine"


@pytest.mark.parametrize(("field", "least"), [("drives", 4), ("frames", 3)])
def test_too_small_a_world_is_refused(field: str, least: int) -> None:
    with pytest.raises(InputError, match=f"{field}=2 must be at least {least}"):
        WorldConfig(**{field: 2})


def test_dataset_names_what_is_missing_and_takes_no_png(world: Path) -> None:
    ref = read_refs(world, "test")[0]
    with pytest.raises(InputError, match=r"0000000099\.png is missing: the exact depth of .* md-data demo --remake"):
        Demo(world).eval_depth_m(ref._replace(frame_index=99))
    with pytest.raises(InputError, match=r"are \.jpg, not \.png; leave --png out"):
        Demo(world, ".png")


def test_its_ground_truth_by_name(world: Path) -> None:
    result = CliRunner().invoke(md_data, ["gt", "--dataset", "demo", "--data_path", str(world), "--split", "demo"])
    assert result.exit_code == 0, result.output
    path = demo_world.split_folder(world) / "gt_depths.npz"
    assert f"4 depth maps in {path}: " in result.output
    assert len(read_ground_truth(path, read_refs(world, "test"))) == 4
