"""md-eval of ego-motion from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from odometry_tree import NUM_FRAMES, make_tree, true_poses
from published import networks_of

from engine.commands.md_eval import md_eval
from engine.odometry.errors import local_motions
from engine.weights import InputSize, save_weights


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("odometry"))


def run(tree: Path, *args: object) -> Result:
    return CliRunner().invoke(md_eval, [str(arg) for arg in ("--data_path", tree, "--no_cuda", *args)])


def ext(path: Path, num_frames: int) -> Path:
    np.save(path, local_motions(true_poses(num_frames)).astype(np.float32))
    return path


def test_weights(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "weights_0"
    save_weights(folder, networks_of(), InputSize(64, 96, False))
    args = ("--eval_split", "odom_4", "--load_weights_folder", folder, "--json", tmp_path / "a.json", "--batch_size", 5, "--eval_mono")
    result = run(tree, *args)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "a.json").read_text())
    assert scores["num_frames"] == NUM_FRAMES
    line = f"\n   Trajectory error: {scores['trajectory_error']:0.3f}, std: {scores['trajectory_error_std']:0.3f}\n\n"
    assert line in result.output
    assert np.load(folder / "poses.npy").shape == (NUM_FRAMES - 1, 4, 4)
    first = np.load(folder / "poses.npy")
    # --height and --width win over the folder's own.
    assert run(tree, *args, "--height", 96, "--width", 160, "--eval_out_dir", tmp_path / "out").exit_code == 0
    assert not np.array_equal(np.load(tmp_path / "out" / "poses.npy"), first)
    np.testing.assert_array_equal(np.load(folder / "poses.npy"), first)


def test_motions_made_elsewhere(tree: Path, tmp_path: Path) -> None:
    path = ext(tmp_path / "x.npy", 300)
    result = run(tree, "--eval_split", "odom_05", "--ext_poses_to_eval", path, "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "\n   Trajectory error: 0.000, std: 0.000\n" in result.output
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["odom_4"], 2, "give either --load_weights_folder FOLDER or --ext_poses_to_eval FILE"),
        (["odom_12", "--ext_poses_to_eval", "x.npy"], 2, "sequences 11 to 21 have no public poses"),
        (["odom", "--ext_poses_to_eval", "x.npy"], 2, "names no sequence of KITTI odometry"),
        (["odom_4", "--ext_poses_to_eval", "x.npy", "--post_process"], 2, "--post_process is for depth"),
        (["odom_4", "--ext_poses_to_eval", "x.npy"], 1, "x.npy is float32 of shape (299, 4, 4), not floats of shape (11, 4, 4)"),
        (["odom_4", "--ext_poses_to_eval", "none.npy"], 1, "ext_poses_to_eval: no file"),
        (["odom_4", "--ext_poses_to_eval", "x.npy", "--json", "no/such/a.json"], 1, "json: no folder no/such to write a.json to"),
        (["odom_6", "--ext_poses_to_eval", "x.npy"], 1, "data_odometry_poses.zip"),
        (["odom_4", "--load_weights_folder", "none"], 1, "model none: there is no such folder or file, nor a released model of that name"),
    ],
)
def test_faults_are_one_line(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    ext(tmp_path / "x.npy", 300)
    result = run(tree, "--eval_split", *args)
    assert result.exit_code == code, result.output
    error = result.output[result.output.index("Error: ") :]
    assert message in error
    assert error.count("\n") == 1


def test_the_config_is_light() -> None:
    code = "import sys, engine.odometry.config; print(sorted({'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
