"""md-eval from the command line: every source of predictions and truth, and one clear line for what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from dataload.datasets.kitti import KittiRaw
from dataload.ground_truth import default_path, write_ground_truth
from dataload.split import FrameRef, parse_split
from engine.checkpoint import InputSize, save_weights
from engine.eval_cli import md_eval
from engine.evaluate import score
from engine.metrics import METRICS, PROTOCOLS
from engine.networks import build_networks

SIZE_PX = (64, 96)


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder of an untrained network."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_3"
    folder.parent.mkdir()
    save_weights(folder, build_networks(frame_ids=(0,), use_stereo=True), InputSize(*SIZE_PX, True))
    return folder


def run(tree: Path, *args: object) -> Result:
    fixed = ["--data_path", tree, "--eval_split", tree / "split", "--no_cuda", "--loader", "torch"]
    return CliRunner().invoke(md_eval, [str(arg) for arg in (*fixed, *args)])


def refs_of(tree: Path) -> tuple[FrameRef, ...]:
    return parse_split((tree / "split" / "test_files.txt").read_text().splitlines(), source="test")


def ext_disp(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def formula(count: int) -> np.ndarray:
    i, y, x = np.ogrid[0:count, 0:20, 0:50]
    return (0.02 + 0.2 * (y / 20) ** 2 + 0.01 * np.sin(0.3 * x + i) ** 2).astype(np.float32)


def test_network_to_scores_and_back_through_its_own_file(tree: Path, weights: Path, tmp_path: Path) -> None:
    scores_file = tmp_path / "scores.json"
    first = run(tree, "--eval_mono", "--load_weights_folder", weights.parent.parent, "--json", scores_file, "--batch_size", 3)
    assert first.exit_code == 0, first.output
    scores = json.loads(scores_file.read_text())
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
    rescored = json.loads(scores_file.read_text())
    assert [rescored[name] for name in METRICS] == pytest.approx([scores[name] for name in METRICS], rel=1e-5)


def test_scores_are_shown_even_if_their_file_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", formula(8)), "--json", tmp_path / "no" / "a.json")
    assert result.exit_code == 1
    assert "abs_rel" in result.output
    assert f"Error: {tmp_path / 'no' / 'a.json'}: No such file" in result.output


def test_post_processing_changes_the_prediction(tree: Path, weights: Path, tmp_path: Path) -> None:
    found = []
    for name, options in (("plain", ()), ("blended", ("--post_process",))):
        result = run(tree, "--eval_mono", "--load_weights_folder", weights, "--json", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        found.append(json.loads((tmp_path / name).read_text())["abs_rel"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--eval_mono"], {}),
        (["--eval_stereo"], {"median_scaling": False, "scale_factor": 5.4}),
        (["--eval_stereo", "--pred_depth_scale_factor", "2"], {"median_scaling": False, "scale_factor": 5.4}),
        (["--eval_mono", "--disable_median_scaling", "--pred_depth_scale_factor", "3"], {"median_scaling": False, "scale_factor": 3}),
        (["--eval_mono", "--protocol", "all_gt"], {"protocol": PROTOCOLS["all_gt"]}),
    ],
)
def test_scaling_options(tree: Path, tmp_path: Path, args: list[str], expected: dict) -> None:
    inv_depths = formula(8)
    result = run(tree, *args, "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", inv_depths), "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    dataset = KittiRaw(tree, ".jpg")
    scores = score(inv_depths, [dataset.eval_depth_m(ref) for ref in refs_of(tree)], **expected)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert {key: found[key] for key in scores.as_json()} == pytest.approx(scores.as_json())
    assert ("is not used: --eval_stereo sets 5.4" in result.output) == ("2" in args)


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
        ([], "give either --eval_mono"),
        (["--eval_mono", "--eval_stereo"], "give either --eval_mono"),
        (["--eval_mono"], "give either --load_weights_folder FOLDER or --ext_disp_to_eval FILE"),
        (["--eval_mono", "--load_weights_folder", "x", "--ext_disp_to_eval", "y"], "give either --load_weights_folder"),
        (["--eval_mono", "--ext_disp_to_eval", "y", "--post_process"], "need a network; leave them out with --ext_disp_to_eval"),
        (["--load_weights_folder", "x", "--no_eval"], "--no_eval without --save_pred_disps would leave nothing"),
        (["--eval_mono", "--load_weights_folder", "x", "--eval_split", "benchmark"], "has no public ground truth"),
        (["--eval_mono", "--load_weights_folder", "x", "--batch_size", "0"], "batch_size=0"),
        (["--eval_mono", "--load_weights_folder", "x", "--min_depth", "-1"], "min_depth=-1"),
        (["--eval_momo"], "did you mean --eval_mono?"),
        (["--eval_mono", "--protocol", "garg"], "'garg' is not one of 'eigen', 'all_gt'"),
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
        (formula(8)[:, None], "of shape (8, 1, 20, 50)"),
        (np.ones((8, 4, 4), np.int64), "is int64 of shape"),
        (np.where(np.arange(8)[:, None, None] == 3, np.nan, formula(8)), "image 3 (counted from 0) has NaN"),
        (np.where(np.arange(8)[:, None, None] == 7, np.inf, formula(8)), "image 7 (counted from 0) has NaN"),
        (-formula(8), "image 0 (counted from 0) has NaN, infinite or negative values"),
    ],
)
def test_disparities_that_are_none(tree: Path, tmp_path: Path, array: np.ndarray, message: str) -> None:
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", array))
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("Error:") == 1


def test_files_that_are_none(tree: Path, weights: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npy"
    text.write_text("0.1 0.2")
    several = tmp_path / "several.npz"
    np.savez(several, a=formula(8))
    (tmp_path / "empty").mkdir()
    cases = [
        (["--ext_disp_to_eval", tmp_path / "none.npy"], "no file"),
        (["--ext_disp_to_eval", text], "is no .npy array"),
        (["--ext_disp_to_eval", several], "holds several arrays"),
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
