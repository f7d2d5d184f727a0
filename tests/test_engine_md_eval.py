"""md-eval from the command line: every source of predictions and truth, and one clear line for what does not fit."""

import csv
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
from click.testing import CliRunner, Result
from PIL import Image

from dataload.datasets.kitti import KittiRaw
from dataload.ground_truth import default_path, write_ground_truth
from dataload.sparse_depth import SparseDepth
from dataload.split import FrameRef, parse_split
from engine.checkpoint import InputSize, save_weights
from engine.disp_files import SERVER_PER_M, SERVER_SIZE_PX
from engine.eval_cli import eval_config, md_eval
from engine.eval_run import rules_of
from engine.metrics import ALL_GT, EIGEN, METRICS, Protocol
from engine.networks import build_networks
from engine.resample import resize
from engine.scores import BAND_EDGES_M
from engine.scoring import Rules, score
from splits import eigen_to_benchmark_ids, read_lines

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


def truths_of(tree: Path) -> list[SparseDepth]:
    return [SparseDepth.of(KittiRaw(tree, ".jpg").eval_depth_m(ref)) for ref in refs_of(tree)]


def ext_disp(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def model_of(path: Path) -> dict:
    """The scores of the one model in a file of scores."""
    (model,) = json.loads(path.read_text())["models"]
    return model


def formula(count: int) -> np.ndarray:
    i, y, x = np.ogrid[0:count, 0:20, 0:50]
    return (0.02 + 0.2 * (y / 20) ** 2 + 0.01 * np.sin(0.3 * x + i) ** 2).astype(np.float32)


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


def test_scores_are_shown_even_if_their_file_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", ext_disp(tmp_path / "x.npy", formula(8)), "--json", "/dev/full")
    assert result.exit_code == 1
    assert "abs_rel" in result.output
    assert "No space left" in result.output


def test_what_cannot_be_written_is_found_before_anything_is_predicted(tree: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    for args, message in (
        (["--json", tmp_path / "no" / "a.json"], f"json: no folder {tmp_path}/no to write a.json to; make it first"),
        (["--csv", tmp_path / "no" / "a.csv"], f"csv: no folder {tmp_path}/no to write a.csv to; make it first"),
        (["--report", below], f"cannot make folder {below} (Not a directory); give another one with --report"),
        (
            ["--save_pred_disps", "--eval_out_dir", below],
            f"cannot make folder {below} (Not a directory); give another one with --eval_out_dir",
        ),
    ):
        result = run(tree, "--eval_mono", "--load_weights_folder", weights, *args)
        assert result.exit_code == 1, result.output
        assert f"Error: {message}\n" in result.output
        assert "predictions" not in result.output


def test_damaged_weights_of_a_later_model_are_found_before_anything_is_predicted(tree: Path, weights: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(weights, tmp_path / "weights_4"))
    (damaged / "depth.pth").write_bytes((damaged / "depth.pth").read_bytes()[:-1000])
    result = run(tree, "--eval_mono", "--load_weights_folder", weights, "--load_weights_folder", damaged)
    assert result.exit_code == 1
    assert f"{damaged / 'depth.pth'} is corrupt or no weights file" in result.output
    assert "predictions" not in result.output


def test_runs_of_one_name_do_not_overwrite_each_other(tree: Path, weights: Path, tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(weights, tmp_path / name / "run" / "models" / weights.name)) for name in "ab"]
    both = [part for folder in runs for part in ("--load_weights_folder", folder)]
    result = run(tree, *both, "--save_pred_disps", "--no_eval", "--eval_out_dir", tmp_path / "out")
    assert result.exit_code == 1
    shared = tmp_path / "out" / f"run_models_{weights.name}"
    assert f"two of the models would keep their inverse depths in {shared}; evaluate them one at a time" in result.output


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
    config = eval_config(md_eval.make_context("md-eval", ["--ext_disp_to_eval", "x.npy", "--eval_split", "eigen_benchmark"]).params)
    assert rules_of(config) == Rules(ALL_GT)
    assert rules_of(replace(config, cap_m=50.0)).protocol == ALL_GT._replace(max_gt_m=50.0, max_pred_m=50.0)


def test_errors_by_distance_and_the_interval_are_shown_and_kept(tree: Path, tmp_path: Path) -> None:
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", disps, "--by_distance", "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    found = model_of(tmp_path / "scores.json")
    scores = score([formula(8)], truths_of(tree), details=True)
    low, high = found["interval_95"]["abs_rel"]
    assert low < found["abs_rel"] < high
    assert f"{low: 9.3f}" in result.output
    assert f"{high: 9.3f}" in result.output
    assert [band["pixels"] for band in found["by_distance"]] == scores.bands[:, 0].astype(int).tolist()
    for band, errors in zip(found["by_distance"], scores.band_errors(), strict=True):
        assert f"{band['from_m']:>4} to {band['to_m']:<3} {band['pixels']:>11}" in result.output
        assert band["abs_rel"] == (pytest.approx(errors[0]) if band["pixels"] else None)
    assert len(found["by_distance"]) == len(BAND_EDGES_M) - 1


def test_a_row_for_each_image(tree: Path, tmp_path: Path) -> None:
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    result = run(tree, "--eval_mono", "--ext_disp_to_eval", disps, "--csv", tmp_path / "images.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = score([formula(8)], truths_of(tree))
    assert [row["frame"] for row in rows] == [ref.line for ref in refs_of(tree)]
    assert {row["model"] for row in rows} == {str(disps)}
    found = np.array([[float(row[name]) for name in METRICS] for row in rows])
    np.testing.assert_allclose(found, scores.per_image)
    np.testing.assert_allclose([float(row["median_ratio"]) for row in rows], scores.median_ratios)


def test_models_are_compared_in_one_table(tree: Path, weights: Path, tmp_path: Path) -> None:
    first, second = ext_disp(tmp_path / "a.npy", formula(8)), ext_disp(tmp_path / "b.npy", formula(8)[:, ::-1])
    args = ["--load_weights_folder", weights, "--ext_disp_to_eval", first, "--ext_disp_to_eval", second]
    result = run(tree, "--eval_mono", *args, "--json", tmp_path / "scores.json", "--csv", tmp_path / "images.csv")
    assert result.exit_code == 0, result.output
    models = json.loads((tmp_path / "scores.json").read_text())["models"]
    assert [model["name"] for model in models] == [str(weights), str(first), str(second)]
    best = min(models, key=lambda model: model["abs_rel"])
    (line,) = [line for line in result.output.splitlines() if line.startswith(f"{best['name']} ")]
    assert f"&{best['abs_rel']: 8.3f}*" in line
    for model in models:
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"{model['name']} ")]
        assert f"{model['interval_95']['abs_rel'][0]:.3f} to {model['interval_95']['abs_rel'][1]:.3f}" in line
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 1 + 3 * 8


def test_every_epoch_of_a_run(tree: Path, weights: Path, tmp_path: Path) -> None:
    models = tmp_path / "run" / "models"
    for epoch in (10, 2):
        shutil.copytree(weights, models / f"weights_{epoch}")
    result = run(tree, "--eval_mono", "--load_weights_folder", tmp_path / "run", "--all_weights", "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "scores.json").read_text())["models"]
    assert [model["epoch"] for model in found] == [2, 10]
    assert found[0]["abs_rel"] == found[1]["abs_rel"]
    lone = run(tree, "--eval_mono", "--load_weights_folder", weights, "--all_weights")
    assert lone.exit_code == 1
    assert "holds no weights_<epoch> folders" in lone.output


def test_the_report_of_a_run_shows_its_best_epoch(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for epoch in range(3):
        torch.manual_seed(2 - epoch)
        networks = build_networks(frame_ids=(0,), use_stereo=True)
        save_weights(tmp_path / "models" / f"weights_{epoch}", networks, InputSize(*SIZE_PX, True))
    report = tmp_path / "report"
    args = ["--load_weights_folder", tmp_path, "--all_weights", "--report", report, "--json", tmp_path / "scores.json"]
    assert run(tree, "--eval_mono", *args).exit_code == 0
    best = min(json.loads((tmp_path / "scores.json").read_text())["models"], key=lambda model: model["abs_rel"])
    assert best["epoch"] != 0, "the first epoch must not be the best here, or this test shows nothing"
    page = (report / "index.html").read_text()
    assert f"Errors of {best['name']}, pooled" in page
    assert f"Of {best['name']}: the images" in page


def test_what_is_predicted_goes_where_it_is_told(tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "made" / "here"
    args = ["--load_weights_folder", weights, "--save_pred_disps", "--no_eval", "--eval_out_dir", out]
    result = run(tree, *args)
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tree / "split")
    assert run(tree, *args, "--eval_split", ".").exit_code == 0  # the folder's name all the same
    assert np.load(out / "disps_split_split.npy").shape == (8, *SIZE_PX)
    assert [p.name for p in out.iterdir()] == ["disps_split_split.npy"]
    both = run(tree, *args, "--load_weights_folder", tree / "none")
    assert both.exit_code == 1
    assert "none does not exist" in both.output


@pytest.fixture
def server_images(tmp_path: Path) -> Path:
    """The depth benchmark's folder of anonymous images: all 500 of its list."""
    folder = tmp_path / "test_depth_prediction_anonymous" / "image"
    folder.mkdir(parents=True)
    for number in range(500):
        if number < 3:
            Image.fromarray(np.full((75, 248, 3), 50 * number, np.uint8)).save(folder / f"{number:010d}.png")
        else:
            (folder / f"{number:010d}.png").symlink_to(folder / f"{number % 3:010d}.png")
    return tmp_path


def test_depth_images_for_the_server(server_images: Path, weights: Path, tmp_path: Path) -> None:
    fixed = ["--eval_split", "benchmark", "--no_cuda", "--loader", "torch", "--data_path", str(server_images)]
    from_weights = CliRunner().invoke(md_eval, [*fixed, "--load_weights_folder", str(weights), "--save_pred_disps", "--batch_size", "50"])
    assert from_weights.exit_code == 0, from_weights.output
    folder = weights / "benchmark_predictions"
    assert len(list(folder.iterdir())) == 500
    inv_depths = np.load(weights / "disps_benchmark_split.npy")
    for number in (0, 1, 499):
        with Image.open(folder / f"{number:010d}.png") as image:
            assert image.mode.startswith("I;16")
            depth_m = np.asarray(image) / SERVER_PER_M
        expected = np.minimum(5.4 / resize(inv_depths[number], SERVER_SIZE_PX), 80)
        assert depth_m.shape == SERVER_SIZE_PX
        # Cut off, not rounded: at most one step of 1/256 m below.
        assert (expected - depth_m).min() > -1e-4
        assert (expected - depth_m).max() < 1 / SERVER_PER_M + 1e-4
    from_file = CliRunner().invoke(
        md_eval, [*fixed, "--ext_disp_to_eval", str(weights / "disps_benchmark_split.npy"), "--eval_out_dir", str(tmp_path / "out")]
    )
    assert from_file.exit_code == 0, from_file.output
    for number in (0, 499):
        name = f"{number:010d}.png"
        assert (tmp_path / "out" / "benchmark_predictions" / name).read_bytes() == (folder / name).read_bytes()


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


def test_report_of_an_evaluation(tree: Path, weights: Path, tmp_path: Path) -> None:
    disps = ext_disp(tmp_path / "x.npy", formula(8))
    report = tmp_path / "report"
    args = ["--load_weights_folder", weights, "--ext_disp_to_eval", disps, "--report", report, "--json", report / "scores.json"]
    result = run(tree, "--eval_mono", *args)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "index.html").read_text()
    scores = score([formula(8)], truths_of(tree))
    assert f"{scores.means['abs_rel']:.3f}" in page
    assert str(weights) in page
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"best_1.png", "median_1.png", "worst_1.png", "error_histogram.png", "abs_rel_by_distance.png", "scores.json"} <= names


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
        (["--load_weights_folder", "x", "--no_eval"], "--no_eval without --save_pred_disps would leave nothing"),
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
        (formula(8)[:, None], "of shape (8, 1, 20, 50)"),
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


def test_the_networks_depth_is_read_off_its_weights(tree: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "weights_0"
    save_weights(folder, build_networks(num_layers=50, frame_ids=(0,), use_stereo=True), InputSize(*SIZE_PX, True))
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
    program = "import sys; from engine.cli import md_eval; md_eval(standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")


def test_every_option_is_tried_at_the_command_line() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_engine_md_eval*.py"))
    names = [name for option in md_eval.params for name in option.opts if name.startswith("--")]
    missing = [name for name in names if f'"{name}"' not in tests and name not in ("--version", "--help")]
    assert not missing
