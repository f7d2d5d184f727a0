"""md-eval on several processes, as torchrun starts them: the output of one process, and one message for what is wrong."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from evaluation import ext_disp, formula, options_of, refs_of, run, save_untrained, server_images, tree, weights
from odometry_tree import make_tree
from places import PROJECT
from published import networks_of
from torchrun import errors_in, ranks_by_hand, torchrun

from engine.commands.md_eval import md_eval
from engine.weights import InputSize, save_weights

# Fixtures, for pytest to find.
__all__ = ["server_images", "tree", "weights"]

pytestmark = pytest.mark.slow
MD_EVAL = Path(sys.executable).with_name("md-eval")


def by_python(*arguments: str) -> list[str]:
    """The command of one process."""
    return [sys.executable, str(MD_EVAL), *arguments]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their relative paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_print_and_write_what_one_does(tree: Path, weights: Path, tmp_path: Path) -> None:
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    fixed = ["--eval_mono", "--load_weights_folder", weights, "--ext_disp_to_eval", disps, "--batch_size", 3, "--by_distance"]

    def options(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        kept = {"json": "scores.json", "csv": "images.csv", "report": "report", "eval_out_dir": "out"}
        return options_of(tree, *fixed, "--save_pred_disps", *(part for o, f in kept.items() for part in (f"--{o}", tmp_path / name / f)))

    one = CliRunner().invoke(md_eval, options("one"))
    assert one.exit_code == 0, one.output
    two = torchrun(2, MD_EVAL, *options("two"))
    assert two.returncode == 0, two.stdout
    # The table stands there once, and whole.
    assert two.stdout.count(one.stdout) == 1, two.stdout
    assert two.stdout.count("abs_rel") == one.stdout.count("abs_rel")
    expected = contents(tmp_path / "one")
    assert {"scores.json", "images.csv", "report/index.html", "report/worst_1.png", "out/disps_split_split.npy"} <= set(expected)
    assert contents(tmp_path / "two") == expected


def test_ranks_without_an_image(tree: Path, weights: Path, tmp_path: Path) -> None:
    models = tmp_path / "run" / "models"
    for epoch in (10, 2):
        shutil.copytree(weights, models / f"weights_{epoch}")
    args = ["--eval_stereo", "--load_weights_folder", tmp_path / "run", "--all_weights", "--save_pred_disps", "--batch_size", 5]
    one = run(tree, *args, "--json", tmp_path / "one.json")
    assert one.exit_code == 0, one.output
    files = [models / f"weights_{epoch}" / "disps_split_split.npy" for epoch in (2, 10)]
    saved = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    three = torchrun(3, MD_EVAL, *options_of(tree, *args, "--json", tmp_path / "three.json"))
    assert three.returncode == 0, three.stdout
    assert three.stdout.count(one.stdout) == 1, three.stdout
    assert (tmp_path / "three.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert [file.read_bytes() for file in files] == saved


def test_depth_images_for_the_server_and_no_scores(server_images: Path, tree: Path, weights: Path, tmp_path: Path) -> None:
    fixed = ["--eval_split", "benchmark", "--no_cuda", "--loader", "torch", "--data_path", server_images, "--batch_size", 50]
    args = [str(arg) for arg in (*fixed, "--load_weights_folder", weights, "--eval_out_dir")]
    one = CliRunner().invoke(md_eval, [*args, str(tmp_path / "one")])
    assert one.exit_code == 0, one.output
    two = torchrun(2, MD_EVAL, *args, str(tmp_path / "two"))
    assert two.returncode == 0, two.stdout
    assert "500 depth images for the KITTI server" in two.stdout
    expected = contents(tmp_path / "one")
    assert len(expected) == 500
    assert contents(tmp_path / "two") == expected

    saved = [["--load_weights_folder", weights, "--save_pred_disps", "--no_eval", "--eval_out_dir", tmp_path / name] for name in ("a", "b")]
    assert run(tree, *saved[0]).exit_code == 0
    quiet = torchrun(2, MD_EVAL, *options_of(tree, *saved[1], "--batch_size", 16))
    assert quiet.returncode == 0, quiet.stdout
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_ego_motion(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make_tree(tmp_path / "data")
    torch.manual_seed(0)
    save_weights(tmp_path / "weights_0", networks_of(), InputSize(64, 96, False))
    fixed = ["--data_path", tmp_path / "data", "--no_cuda", "--loader", "torch", "--load_weights_folder", tmp_path / "weights_0"]

    def options(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        kept = ["--json", tmp_path / name / "a.json", "--eval_out_dir", tmp_path / name, "--report", tmp_path / name / "report"]
        return [str(arg) for arg in (*fixed, "--eval_split", "odom_4", "--batch_size", 2, *kept)]

    one = CliRunner().invoke(md_eval, options("one"))
    assert one.exit_code == 0, one.output
    two = torchrun(2, MD_EVAL, *options("two"))
    assert two.returncode == 0, two.stdout
    assert two.stdout.count(one.stdout) == 1, two.stdout
    expected = contents(tmp_path / "one")
    assert {"a.json", "poses.npy", "trajectory_04_kitti.txt", "report/index.html"} <= set(expected)
    assert contents(tmp_path / "two") == expected


PROGRAM = """
import dataclasses, json, os, sys
from engine import EvalConfig, PoseEvalConfig, evaluate, evaluate_pose

def plain(value):
    return value.tolist() if hasattr(value, "tolist") else value._asdict() if hasattr(value, "_asdict") else str(value)

data, weights, motion, pose, out = sys.argv[1:]
common = {"no_cuda": True, "loader": "torch", "batch_size": 3}
kitti = {"data_path": data, "eval_split": f"{data}/split", "eval_mono": True}
depth = evaluate(EvalConfig.from_options(load_weights_folder=[weights], **kitti, **common))
scores = evaluate_pose(PoseEvalConfig.from_options(data_path=motion, eval_split="odom_4", load_weights_folder=[pose], **common))
text = json.dumps([*map(dataclasses.asdict, depth), scores._asdict()], default=plain)
with open(f"{out}/{os.environ['WORLD_SIZE']}_{os.environ['RANK']}.json", "w") as file:
    file.write(text)
"""


def test_in_python_each_process_gets_all_results(tree: Path, weights: Path, tmp_path: Path) -> None:
    for name in ("data", "out"):
        (tmp_path / name).mkdir()
    make_tree(tmp_path / "data")
    torch.manual_seed(0)
    save_weights(tmp_path / "weights_0", networks_of(), InputSize(64, 96, False))
    (tmp_path / "program.py").write_text(PROGRAM)
    args = [str(path) for path in (tree, weights, tmp_path / "data", tmp_path / "weights_0", tmp_path / "out")]
    for count in (1, 2):
        done = torchrun(count, tmp_path / "program.py", *args, env={"PYTHONPATH": str(PROJECT)})
        assert done.returncode == 0, done.stdout
    found = {path.stem: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(found) == {"1_0", "2_0", "2_1"}
    assert len(set(found.values())) == 1
    assert '"num_images": 8' in found["1_0"]


def test_an_image_that_one_of_them_cannot_read_is_reported_by_it_alone(tmp_path: Path, kitti_tree: Callable[..., Path]) -> None:
    tree = kitti_tree()
    weights = save_untrained(tmp_path)
    ref = refs_of(tree)[5]  # of the second batch of three, which is rank 1's
    image = tree / ref.folder / f"image_0{2 if ref.side == 'l' else 3}" / "data" / f"{ref.frame_index:010d}.jpg"
    image.write_bytes(b"none")
    args = options_of(tree, "--eval_mono", "--load_weights_folder", weights, "--batch_size", 3, "--json", tmp_path / "a.json")
    with ranks_by_hand([by_python(*args)] * 2) as both:
        assert [each.ended() for each in both] == [1, 1]
        errors = [errors_in(each) for each in both]
    assert [len(lines) for lines in errors] == [0, 1]
    assert str(image) in errors[1][0]
    assert not (tmp_path / "a.json").exists()


def test_options_that_differ_and_a_warning_that_does_not(tree: Path, weights: Path, tmp_path: Path) -> None:
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    plain, other = options_of(tree, "--ext_disp_to_eval", disps), options_of(tree, "--ext_disp_to_eval", disps, "--cap", 50)
    with ranks_by_hand([by_python(*plain), by_python(*other)]) as both:
        assert [each.ended() for each in both] == [1, 1]
        outputs = [each.output for each in both]
        (message,) = errors_in(*both)
    assert "cap_m differs between the processes: None on rank 0 (" in message
    assert "50.0 on rank 1 (" in message
    assert ["neither --eval_mono nor --eval_stereo" in output for output in outputs] == [True, False]
