"""An evaluation of ego-motion from its config to its files, and one clear line for what does not fit."""

import json
import re
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from odometry_tree import NUM_FRAMES, make_tree, true_poses
from PIL import Image
from published import networks_of

from engine.geometry import transform_from_axisangle
from engine.odometry.config import PoseEvalConfig, pose_config, pose_sequence
from engine.odometry.errors import local_motions
from engine.odometry.run import evaluate_pose, read_gt_poses
from engine.odometry.trajectory import read_kitti_poses
from engine.weights import InputSize, save_weights
from splits.errors import InputError

SEQUENCE = 4
SIZE_PX = (64, 96)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("odometry"))


def weights_of(folder: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    save_weights(folder, networks_of(**options), InputSize(*SIZE_PX, False))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_3"
    folder.parent.mkdir()
    return weights_of(folder)


def config_of(tree: Path, **changes: Any) -> PoseEvalConfig:
    return PoseEvalConfig(**{"data_path": tree, "sequence": SEQUENCE, "no_cuda": True, "loader": "torch", "num_workers": 2, **changes})


def ext(path: Path, motions: np.ndarray) -> Path:
    np.save(path, motions.astype(np.float32))
    return path


def test_network_to_files_and_back_through_its_motions(tree: Path, weights: Path, tmp_path: Path) -> None:
    scores = evaluate_pose(config_of(tree, weights_folder=weights.parent.parent, json_path=tmp_path / "a.json"))
    motions = np.load(weights / "poses.npy")
    assert (motions.shape, motions.dtype) == ((NUM_FRAMES - 1, 4, 4), np.float32)
    poses = read_kitti_poses(weights / "trajectory_04_kitti.txt")
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-9)
    scaled = motions.astype(np.float64)
    scaled[:, :3, 3] *= scores.alignment.scale
    np.testing.assert_allclose(local_motions(poses), scaled, atol=1e-5)
    tum = np.loadtxt(weights / "trajectory_04_tum.txt")
    np.testing.assert_allclose(tum[:, 0], 0.2 * np.arange(NUM_FRAMES), atol=1e-6)
    np.testing.assert_allclose(tum[:, 1:4], poses[:, :3, 3], atol=1e-6)
    with Image.open(weights / "trajectory_04.png") as plot:
        assert plot.width > 600

    again = evaluate_pose(config_of(tree, ext_poses=weights / "poses.npy", json_path=tmp_path / "b.json"))
    assert again.table() == scores.table()
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first.pop("evaluated") == str(weights.parent.parent)
    assert second.pop("evaluated") == str(weights / "poses.npy")
    # The file is float32, as published.
    flat = ("segments_by_length_m", "eval_split", "t_err_percent", "r_err_deg_per_100m")
    assert {k: v for k, v in first.items() if k in flat} == {k: v for k, v in second.items() if k in flat}
    assert {k: v for k, v in first.items() if k not in flat} == pytest.approx({k: v for k, v in second.items() if k not in flat}, rel=1e-4)


def test_batch_and_workers_do_not_change_the_motions(tree: Path, weights: Path, tmp_path: Path) -> None:
    found = []
    for number, changes in enumerate([{"batch_size": 1, "num_workers": 0}, {"batch_size": 4}, {"batch_size": 16}]):
        evaluate_pose(config_of(tree, weights_folder=weights, out_dir=tmp_path / str(number), **changes))
        found.append(np.load(tmp_path / str(number) / "poses.npy"))
    assert np.abs(np.diff(found[0], axis=0)).max() > 1e-6  # the frames differ, so an order that is off would show
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


@pytest.mark.parametrize("pose_model_type", ["separate_resnet", "shared", "posecnn"])
def test_half_precision_is_near(tree: Path, tmp_path: Path, pose_model_type: str) -> None:
    folder = weights_of(tmp_path / "weights", pose_model_type=pose_model_type)
    found = []
    for amp in ("off", "bf16"):
        evaluate_pose(config_of(tree, weights_folder=folder, out_dir=tmp_path / amp, amp=amp))
        found.append(np.load(tmp_path / amp / "poses.npy"))
    assert 0 < np.abs(found[1] - found[0]).max() < 0.05 * np.abs(found[0] - np.eye(4)).max()


def test_each_motion_belongs_to_its_frames(tree: Path, weights: Path, tmp_path: Path) -> None:
    evaluate_pose(config_of(tree, weights_folder=weights, out_dir=tmp_path))
    found = np.load(tmp_path / "poses.npy")
    torch.manual_seed(0)
    networks = networks_of().eval()
    frames = []
    for index in range(NUM_FRAMES):
        with Image.open(tree / "sequences" / "04" / "image_2" / f"{index:06d}.jpg") as image:
            pixels = np.asarray(image.resize(SIZE_PX[::-1], Image.Resampling.LANCZOS))
        frames.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)
    with torch.no_grad():
        pairs = [networks.pose([networks.pose_encoder(torch.cat(pair, 1))[-1]]) for pair in pairwise(frames)]
        expected = np.concatenate([transform_from_axisangle(a[:, 0], t[:, 0]).numpy() for a, t in pairs])
    # The loader's resize is within a level of Pillow's.
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found - expected).max() < 0.2 * np.abs(found - expected[::-1]).max()


@pytest.mark.parametrize("options", [{"pose_model_type": "shared"}, {"pose_model_type": "posecnn"}, {"pose_model_input": "all"}])
def test_every_kind_of_pose_network(tree: Path, tmp_path: Path, options: dict[str, str]) -> None:
    folder = weights_of(tmp_path / "weights", **options)
    scores = evaluate_pose(config_of(tree, weights_folder=folder, out_dir=tmp_path / "out"))
    assert scores.num_frames == NUM_FRAMES
    assert np.load(tmp_path / "out" / "poses.npy").shape == (NUM_FRAMES - 1, 4, 4)
    assert not (folder / "poses.npy").exists()


def test_motions_made_elsewhere_need_the_poses_alone(tree: Path, tmp_path: Path) -> None:
    motions = local_motions(true_poses(300))
    motions[:, :3, 3] *= 0.05
    before = sorted(tree.rglob("*"))
    scores = evaluate_pose(config_of(tree, sequence=5, ext_poses=ext(tmp_path / "x.npy", motions)))
    assert scores.alignment.scale == pytest.approx(20, rel=1e-4)
    assert scores.segments.t_err_percent == pytest.approx(0, abs=1e-3)
    assert scores.table().startswith("\n   Trajectory error: 0.000, std: 0.000\n\n")
    assert scores.as_json()["num_frames"] == 300
    # Nothing is written that was not asked for.
    assert sorted(tree.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npy"]


def test_report(tree: Path, tmp_path: Path) -> None:
    path = ext(tmp_path / "<b>&x.npy", local_motions(true_poses(300, 0.03)))
    scores = evaluate_pose(config_of(tree, sequence=5, ext_poses=path, report=tmp_path / "a" / "report"))
    folder = tmp_path / "a" / "report"
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "pose.json", "trajectory_05.png"]
    found = json.loads((folder / "pose.json").read_text())
    assert found["ate_rmse_m"] == pytest.approx(scores.ate_rmse_m)
    assert found["segments_by_length_m"]["100"]["num_segments"] > 0
    page = (folder / "index.html").read_text()
    assert "&lt;b&gt;&amp;x.npy" in page
    assert "<b>" not in page
    assert f"<td>100</td><td>{found['segments_by_length_m']['100']['num_segments']}</td>" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_published_lists_hold_the_sequences_they_name(shared: Path, tmp_path: Path) -> None:
    root = shared / "kitti" / "odometry"
    for sequence, num_frames in ((9, 1591), (10, 1201)):
        motions = local_motions(read_kitti_poses(root / "poses" / f"{sequence:02d}.txt"))
        scores = evaluate_pose(config_of(root, sequence=sequence, ext_poses=ext(tmp_path / "x.npy", motions)))
        assert scores.num_frames == num_frames
        assert scores.segments.t_err_percent < 0.02
        assert scores.ate_rmse_m < 0.1


def test_cut_poses_of_a_published_sequence(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "poses").mkdir()
    shutil.copy(tree / "poses" / "04.txt", tmp_path / "poses" / "09.txt")
    with pytest.raises(InputError, match=r"09\.txt holds 12 poses, sequence 9 has 1591 frames; unpack it again"):
        evaluate_pose(config_of(tmp_path, sequence=9, ext_poses=tmp_path / "x.npy"))


def test_faults_of_the_data(tree: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"07\.txt is missing: the true poses of sequence 7; unpack .*data_odometry_poses\.zip"):
        evaluate_pose(config_of(tree, sequence=7, weights_folder=weights))
    with pytest.raises(InputError, match=r"no folder .*05/image_2: the images of sequence 5; unpack .*data_odometry_color\.zip"):
        evaluate_pose(config_of(tree, sequence=5, weights_folder=weights))
    with pytest.raises(InputError, match=r"12 of them are there as \.jpg: leave out --png"):
        evaluate_pose(config_of(tree, weights_folder=weights, image_ext=".png"))
    with pytest.raises(InputError, match=r"has no pose\.pth"):
        evaluate_pose(config_of(tree, weights_folder=weights_of(tmp_path / "stereo", frame_ids=(0,), use_stereo=True)))
    with pytest.raises(InputError, match="height_px=100 must be a multiple of 32"):
        evaluate_pose(config_of(tree, weights_folder=weights, height_px=100))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make folder .*give another one with --eval_out_dir or --report"):
        evaluate_pose(config_of(tree, weights_folder=weights, out_dir=tmp_path / "file"))
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses" / "04.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(InputError, match="holds one pose; motion needs two frames or more"):
        evaluate_pose(config_of(tmp_path, weights_folder=weights))


def test_weights_that_answer_no_number(tree: Path, weights: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights, tmp_path / "weights"))
    content = torch.load(folder / "pose.pth", weights_only=True)
    content["net.3.bias"][:] = torch.nan
    torch.save(content, folder / "pose.pth")
    (folder / "SHA256SUMS").unlink()  # of the weights before
    (folder / "poses.npy").unlink(missing_ok=True)
    with pytest.raises(InputError, match="gives NaN or infinite motions"):
        evaluate_pose(config_of(tree, weights_folder=folder))
    assert not (folder / "poses.npy").exists()


def test_sequences_of_a_split_name() -> None:
    assert [pose_sequence(name) for name in ("odom_9", "odom_09", "odom_10", "odom_0", "odom_22")] == [9, 9, 10, 0, 22]
    assert [pose_sequence(name) for name in ("eigen", "eigen_benchmark", "odometry", "folder/odom_9")] == [None] * 4
    for name in ("odom", "odom_", "odom_x", "odom_9x", "odom_-1", "odom_²"):
        with pytest.raises(InputError, match="names no sequence of KITTI odometry; give odom_9, odom_10"):
            pose_sequence(name)
    for name in ("odom_11", "odom_21"):
        with pytest.raises(InputError, match="sequences 11 to 21 have no public poses"):
            pose_sequence(name)


def options_of(**changes: Any) -> Mapping[str, Any]:
    given = {"data_path": None, "eval_split": "odom_9", "png": False, "load_weights_folder": (), "ext_poses_to_eval": None}
    given |= {"eval_out_dir": None, "json": None, "report": None, "height": None, "width": None, "batch_size": 16}
    return given | {"num_workers": 12, "loader": "auto", "amp": "auto", "no_cuda": False} | changes


def test_config_of_options(tmp_path: Path) -> None:
    config = pose_config(options_of(load_weights_folder=(tmp_path,), png=True, height=128, batch_size=3, report=tmp_path / "r"))
    assert config == PoseEvalConfig(
        data_path=Path("kitti_data"),
        sequence=9,
        weights_folder=tmp_path,
        image_ext=".png",
        height_px=128,
        batch_size=3,
        report=tmp_path / "r",
    )
    assert pose_config(options_of(ext_poses_to_eval=tmp_path, data_path=tmp_path)).ext_poses == tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give either --load_weights_folder FOLDER or --ext_poses_to_eval FILE"),
        ({"load_weights_folder": (Path("a"),), "ext_poses_to_eval": Path("b")}, "give either"),
        ({"load_weights_folder": (Path("a"), Path("b"))}, "--load_weights_folder is given 2 times"),
        (
            {"ext_disp_to_eval": (Path("b"),), "csv": Path("c")},
            "--ext_disp_to_eval, --csv is for depth; leave it out with --eval_split odom_9",
        ),
        ({"ext_poses_to_eval": Path("b"), "height": 64}, "--height and --width are a network's input size"),
        ({"load_weights_folder": (Path("a"),), "batch_size": 0}, "batch_size=0 must be above 0"),
        ({"load_weights_folder": (Path("a"),), "amp": "fp8"}, "amp=fp8 is unknown"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pose_config(options_of(**changes))


def test_motions_saved_the_other_way_round_are_told(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gt = local_motions(read_gt_poses(tree, SEQUENCE))
    right = evaluate_pose(config_of(tree, ext_poses=ext(tmp_path / "right.npy", gt)))
    assert "inverse" not in caplog.text
    evaluate_pose(config_of(tree, ext_poses=ext(tmp_path / "wrong.npy", np.linalg.inv(gt))))
    assert "its inverse fits far better" in caplog.text
    assert f"ATE {right.ate_rmse_m:.2f} m" in caplog.text
