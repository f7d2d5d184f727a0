"""md-eval from the command line: every source of predictions and truth, and one clear line for what does not fit."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation import SIZE_PX, count_reads, ext_disp, formula, model_of, refs_of, run, tree, truths_of, weights
from PIL import Image
from places import PROJECT
from published import networks_of

from dataload.datasets.kitti import KittiRaw
from dataload.frames.frame_ref import FrameRef, parse_split
from dataload.frames.sparse_depth import SparseDepth
from dataload.ground_truth import default_path, write_ground_truth
from engine.commands.md_eval import md_eval
from engine.evaluation.config import EvalConfig
from engine.evaluation.metrics import ALL_GT, EIGEN, METRICS, Protocol
from engine.evaluation.run import rules_of
from engine.evaluation.scoring import Rules, score
from engine.weights import InputSize, save_weights
from splits import eigen_to_benchmark_ids, read_lines

# Fixtures, for pytest to find.
__all__ = ["tree", "weights"]


def test_network_to_scores_and_back_through_its_own_file(tree: Path, weights: Path, tmp_path: Path) -> None:
    scores_file = tmp_path / "scores.json"
    first = run(tree, "--eval_mono", "--load_weights_folder", weights.parent.parent, "--json", scores_file, "--batch_size", 3)
    assert first.exit_code == 0, first.output
    scores = model_of(scores_file)
    assert scores["num_images"] == len(refs_of(tree)) == 8
    assert set(METRICS) < set(scores)
    row = "".join(f"&{scores[name]: 8.3f}  " for name in METRICS) + "\\\\"
    assert row in first.output
    assert f" Scaling ratios | med: {scores['median_ratio']:0.3f} | std:" in first.output

    saved = run(tree, "--load_weights_folder", weights, "--save_pred_disps", "--no_eval")
    assert saved.exit_code == 0, saved.output
    assert "abs_rel" not in saved.output
    path = weights / "disps_split_split.npy"
    inv_depths = np.load(path)
    assert inv_depths.shape == (8, *SIZE_PX)
    assert inv_depths.dtype == np.float32
    again = run(tree, "--eval_mono", "--ext_disp_to_eval", path, "--json", scores_file)
    assert again.exit_code == 0, again.output
    rescored = model_of(scores_file)
    assert [rescored[name] for name in METRICS] == pytest.approx([scores[name] for name in METRICS], rel=1e-5)


def test_weights_are_read_once(tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    done = run(tree, "--eval_mono", "--load_weights_folder", weights, "--report", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert reads == {"encoder.pth": 1, "depth.pth": 1}


def test_damaged_weights_of_a_later_model_are_found_before_anything_is_predicted(tree: Path, weights: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(weights, tmp_path / "weights_4"))
    (damaged / "depth.pth").write_bytes((damaged / "depth.pth").read_bytes()[:-1000])
    result = run(tree, "--eval_mono", "--load_weights_folder", weights, "--load_weights_folder", damaged)
    assert result.exit_code == 1
    assert f"{damaged / 'depth.pth'} is damaged: it is not what was written" in result.output
    assert "predictions" not in result.output


def test_truth_of_which_nothing_counts_is_found_before_anything_is_predicted(tree: Path, weights: Path) -> None:
    result = run(tree, "--eval_mono", "--load_weights_folder", weights, "--cap", "0.01")
    assert result.exit_code == 1
    line = refs_of(tree)[0].line
    message = f"image '{line}' has no ground truth that counts (crop garg, from 0.001 to 0.01 m); take its line out of the list"
    assert f"Error: {message}\n" in result.output
    assert "predictions" not in result.output


def test_post_processing_changes_the_prediction(tree: Path, weights: Path, tmp_path: Path) -> None:
    found = []
    for name, options in (("plain", ()), ("blended", ("--post_process",))):
        result = run(tree, "--eval_mono", "--load_weights_folder", weights, "--json", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        found.append(model_of(tmp_path / name)["abs_rel"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("args", "rules"),
    [
        (["--eval_mono"], Rules()),
        ([], Rules()),
        (["--eval_stereo"], Rules(alignment="none", scale_factor=5.4)),
        (["--eval_stereo", "--pred_depth_scale_factor", "2"], Rules(alignment="none", scale_factor=5.4)),
        (["--eval_mono", "--disable_median_scaling", "--pred_depth_scale_factor", "3"], Rules(alignment="none", scale_factor=3)),
        (["--disable_median_scaling"], Rules(alignment="none")),
        (["--alignment", "lstsq"], Rules(alignment="lstsq")),
        (["--eval_stereo", "--alignment", "median"], Rules(scale_factor=5.4)),
        (["--eval_mono", "--crop", "none"], Rules(EIGEN._replace(crop="none"))),
        (["--eval_mono", "--crop", "eigen", "--cap", "50"], Rules(Protocol("eigen", max_gt_m=50, max_pred_m=50))),
    ],
)
def test_scoring_options(tree: Path, tmp_path: Path, args: list[str], rules: Rules) -> None:
    inv_depths = formula(8)
    result = run(tree, *args, "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", inv_depths), "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    scores = score([inv_depths], truths_of(tree), rules, details=True)
    found = model_of(tmp_path / "scores.json")
    assert {name: found[name] for name in METRICS} == pytest.approx(scores.means)
    assert found["median_ratio"] == scores.median_ratio
    assert ("is not used: --eval_stereo sets 5.4" in result.output) == ("2" in args)
    assert ("neither --eval_mono nor --eval_stereo" in result.output) == (args == [])
    if rules == Rules(Protocol("eigen", max_gt_m=50, max_pred_m=50)):
        settings = json.loads((tmp_path / "scores.json").read_text())["settings"]
        assert (settings["crop"], settings["max_gt_m"], settings["alignment"]) == ("eigen", 50, "median")


def test_the_annotated_split_counts_every_truth(tree: Path, tmp_path: Path) -> None:
    config = EvalConfig.from_options(ext_disp_to_eval="x.npy", eval_split="eigen_benchmark")
    assert rules_of(config) == Rules(ALL_GT)
    assert rules_of(replace(config, cap_m=50.0)).protocol == ALL_GT._replace(max_gt_m=50.0, max_pred_m=50.0)


def write_annotated(tree: Path, ref: FrameRef, rng: np.random.Generator, size_px: tuple[int, int]) -> SparseDepth:
    """An annotated depth image of a frame in a KITTI tree, and what it holds."""
    path = tree / ref.folder / "proj_depth" / "groundtruth" / f"image_0{2 if ref.side == 'l' else 3}" / f"{ref.frame_index:010d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = rng.integers(256, 70 * 256, size_px).astype(np.uint16)
    Image.fromarray(values).save(path)
    return SparseDepth.of(values / np.float32(256))


def test_eigen_disparities_on_the_annotated_split(tmp_path: Path) -> None:
    refs = parse_split(read_lines("eigen_benchmark", "test"), source="test")
    rng = np.random.default_rng(0)
    depths = [write_annotated(tmp_path, ref, rng, (4, 6)) for ref in refs]
    inv_depths = rng.uniform(0.02, 1, (697, 3, 5)).astype(np.float32)
    args = [
        "--eval_split",
        "eigen_benchmark",
        "--eval_eigen_to_benchmark",
        "--data_path",
        str(tmp_path),
        "--json",
        str(tmp_path / "s.json"),
    ]
    result = CliRunner().invoke(md_eval, [*args, "--ext_disp_to_eval", str(ext_disp(tmp_path / "x.npy", inv_depths))])
    assert result.exit_code == 0, result.output
    expected = score([inv_depths[eigen_to_benchmark_ids()]], depths, Rules(ALL_GT))
    assert model_of(tmp_path / "s.json")["abs_rel"] == pytest.approx(expected.means["abs_rel"])
    short = CliRunner().invoke(md_eval, [*args, "--ext_disp_to_eval", str(ext_disp(tmp_path / "x.npy", inv_depths[:652]))])
    assert short.exit_code == 1
    assert "holds 652 images, the split's test list 697" in short.output


def test_ground_truth_file_is_used_and_must_fit(kitti_tree: Callable[..., Path], tmp_path: Path) -> None:
    tree = kitti_tree()
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    on_the_fly = run(tree, "--eval_mono", "--ext_disp_to_eval", disps, "--json", tmp_path / "a.json")
    assert on_the_fly.exit_code == 0, on_the_fly.output
    path = default_path(str(tree / "split"), tree)
    write_ground_truth(path, KittiRaw(tree, ".jpg"), refs_of(tree), progress=False)
    for scan in tree.rglob("*.bin"):
        scan.unlink()
    from_file = run(tree, "--eval_mono", "--ext_disp_to_eval", disps, "--json", tmp_path / "b.json")
    assert from_file.exit_code == 0, from_file.output
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()

    lines = (tree / "split" / "test_files.txt").read_text().splitlines()
    (tree / "split" / "test_files.txt").write_text("\n".join(lines[:-1]) + "\n")
    disps = ext_disp(tmp_path / "x.npy", formula(7))
    mismatch = run(tree, "--eval_mono", "--ext_disp_to_eval", disps)
    assert mismatch.exit_code == 1
    assert str(path) in mismatch.output
    path.unlink()
    missing = run(tree, "--eval_mono", "--ext_disp_to_eval", disps)
    assert missing.exit_code == 1
    assert ".bin" in missing.output
    assert "Traceback" not in missing.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--load_weights_folder", "x"], "give either --eval_mono"),
        (["--eval_mono", "--eval_stereo", "--ext_disp_to_eval", "y"], "give either --eval_mono"),
        (["--eval_mono"], "give --load_weights_folder FOLDER or --ext_disp_to_eval FILE"),
        (["--eval_mono", "--ext_disp_to_eval", "y", "--post_process"], "need a network: add --load_weights_folder FOLDER"),
        (["--load_weights_folder", "x", "--no_eval"], "--no_eval without --save_pred_disps would write nothing"),
        (["--load_weights_folder", "x", "--eval_split", "benchmark", "--report", "r"], "no public ground truth: leave out --report"),
        (["--load_weights_folder", "x", "--load_weights_folder", "y", "--eval_split", "benchmark"], "makes one submission"),
        (["--alignment", "median", "--disable_median_scaling", "--ext_disp_to_eval", "y"], "exclude each other"),
        (["--eval_eigen_to_benchmark", "--ext_disp_to_eval", "y"], "give such a file and --eval_split eigen_benchmark"),
        (["--ext_disp_to_eval", "y", "--ext_poses_to_eval", "z"], "needs an odometry sequence"),
        (["--ext_disp_to_eval", "y", "--cap", "-5"], "cap=-5"),
        (["--ext_disp_to_eval", "y", "--cap", "inf"], "cap=inf must be a finite number"),
        (["--ext_disp_to_eval", "y", "--pred_depth_scale_factor", "inf"], "pred_depth_scale_factor=inf must be a finite number"),
        (["--ext_disp_to_eval", "y", "--eval_split", "odom_x"], "odom_x"),
        (["--ext_disp_to_eval", ""], "an empty path; is a variable of the shell not set?"),
        (["--eval_mono", "--load_weights_folder", "x", "--batch_size", "0"], "batch_size=0"),
        (["--eval_mono", "--load_weights_folder", "x", "--min_depth", "-1"], "min_depth=-1"),
        (["--eval_momo"], "did you mean --eval_mono?"),
        (["--eval_mono", "--crop", "grag"], "'grag' is not one of 'garg', 'eigen', 'none'"),
    ],
)
def test_wrong_usage_exits_2(tree: Path, args: list[str], message: str) -> None:
    result = run(tree, *args)
    assert result.exit_code == 2, result.output
    assert message in result.output


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (formula(5), "holds 5 images, the split's test list 8"),
        (formula(8)[0], "of shape (20, 50), not floats of shape (images, height, width)"),
        (np.repeat(formula(8)[:, None], 3, axis=1), "of shape (8, 3, 20, 50)"),
        (np.array([*formula(7), "x"], dtype=object), "numpy.savez('maps.npz', *maps)"),
        (np.ones((8, 4, 4), np.int64), "is int64 of shape"),
        (np.where(np.arange(8)[:, None, None] == 3, np.nan, formula(8)), "has NaN, infinite, zero or negative"),
        (np.where(np.arange(8)[:, None, None] == 7, np.inf, formula(8)), "4 r' of"),
        (-formula(8), "1 l' of"),
    ],
)
def test_disparities_that_are_none(tree: Path, tmp_path: Path, array: np.ndarray, message: str) -> None:
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", array))
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("Error:") == 1


def test_disparities_in_every_form_that_people_save_give_the_same_scores(tree: Path, tmp_path: Path) -> None:
    maps = formula(8)
    forms = {
        "plain": maps, "channel": maps[:, None], "last": maps[..., None], "double": maps.astype(np.float64),
        "big_endian": maps.astype(">f4"), "fortran": np.asfortranarray(maps),
    }  # fmt: skip
    paths = [ext_disp(tmp_path / f"{name}.npy", array) for name, array in forms.items()]
    for name, arrays in (("stack", [maps]), ("list", list(maps))):
        np.savez(tmp_path / f"{name}.npz", *arrays)
        paths.append(tmp_path / f"{name}.npz")
    for path in paths:
        result = run(tree, "--eval_mono", "--ext_disp_to_eval", path, "--json", tmp_path / f"{path.stem}.json")
        assert result.exit_code == 0, (path, result.output)
        assert model_of(tmp_path / f"{path.stem}.json")["abs_rel"] == model_of(tmp_path / "plain.json")["abs_rel"], path
    # Sizes may differ within a list: the second map has twice the pixels of the same picture.
    np.savez(tmp_path / "mixed.npz", maps[0], maps[1].repeat(2, axis=0), *maps[2:])
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", tmp_path / "mixed.npz", "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 20, 50",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 20, -50), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999, 99999999), }",
    ],
)
def test_headers_made_to_break_readers_end_in_one_line(tree: Path, tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header + b"\n").to_bytes(2, "little") + header + b"\n")
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", path)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "is not a .npy array" in result.output or "is cut off: " in result.output


def test_files_that_are_none(tree: Path, weights: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npy"
    text.write_text("0.1 0.2")
    several = tmp_path / "several.npz"
    np.savez(several, *formula(7), np.ones((2, 3, 3), np.float32))
    (tmp_path / "empty").mkdir()
    cases = [
        (["--ext_disp_to_eval", tmp_path / "none.npy"], "no file"),
        (["--ext_disp_to_eval", text], "is not a .npy array"),
        (["--ext_disp_to_eval", several], "array 7 (counted from 0) is float32 of shape (2, 3, 3)"),
        (["--load_weights_folder", tmp_path / "none"], "does not exist"),
        (["--load_weights_folder", tmp_path / "empty"], "holds no encoder.pth"),
        (["--load_weights_folder", weights, "--min_depth", "200"], "min_depth=200.0 must be below max_depth=100.0"),
        (["--load_weights_folder", weights, "--png"], "leave out --png"),
        (["--load_weights_folder", weights, "--data_path", tmp_path / "nowhere"], "nowhere does not exist"),
        (["--load_weights_folder", weights, "--eval_split", tmp_path / "empty"], "test_files.txt is missing"),
    ]
    for args, message in cases:
        result = run(tree, "--eval_mono", *args)
        assert result.exit_code == 1, (args, result.output)
        assert message in result.output, (args, result.output)
        assert "Traceback" not in result.output


def test_the_networks_depth_is_read_off_its_weights(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "weights_0"
    save_weights(folder, networks_of(num_layers=50, frame_ids=(0,), use_stereo=True), InputSize(*SIZE_PX, True))
    for option in ([], ["--num_layers", "18"]):
        result = run(tree, "--eval_stereo", "--load_weights_folder", folder, *option, "--amp", "off", "--num_workers", "1")
        assert result.exit_code == 0, result.output
        assert "ResNet-50 at 96x64" in result.output


def test_the_range_of_depth_can_be_given(tree: Path, weights: Path) -> None:
    args = ["--load_weights_folder", weights, "--save_pred_disps", "--no_eval"]
    result = run(tree, *args, "--min_depth", "0.5", "--max_depth", "0.51")
    assert result.exit_code == 0, result.output
    inv_depths = np.load(weights / "disps_split_split.npy")
    assert 1 / 0.51 <= inv_depths.min() <= inv_depths.max() <= 1 / 0.5


def test_annotated_depth_of_a_folder(kitti_tree: Callable[..., Path], tmp_path: Path) -> None:
    tree = kitti_tree()
    rng = np.random.default_rng(0)
    gts_m = [write_annotated(tree, ref, rng, (75, 248)) for ref in refs_of(tree)]
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    result = run(tree, "--dataset", "kitti_depth", "--ext_disp_to_eval", disps, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    assert model_of(tmp_path / "scores.json")["abs_rel"] == pytest.approx(score([formula(8)], gts_m).means["abs_rel"])


def test_scoring_a_file_imports_no_torch(tree: Path, tmp_path: Path) -> None:
    arguments = ["--data_path", tree, "--eval_split", tree / "split", "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", formula(8))]
    program = "import sys; from engine.commands.md_eval import md_eval; md_eval(standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")


# The files that try md-eval's options.
TRYING = ("commands/test_md_eval*.py", "training/test_evo.py")


def test_every_option_is_tried_at_the_command_line() -> None:
    tests = "".join(path.read_text() for files in TRYING for path in (PROJECT / "tests" / "engine").glob(files))
    names = [name for option in md_eval.params for name in option.opts if name.startswith("--")]
    missing = [name for name in names if f'"{name}"' not in tests and name not in ("--version", "--help")]
    assert not missing
