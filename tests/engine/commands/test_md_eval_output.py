"""What md-eval prints and writes: tables, JSON, CSV, reports, predictions, depth images for the server."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation import SIZE_PX, ext_disp, formula, model_of, refs_of, run, server_images, tree, truths_of, weights
from PIL import Image
from published import networks_of

from dataload.datasets.kitti_depth import PNG_PER_M
from engine.commands.md_eval import md_eval
from engine.evaluation.disp_files import SERVER_SIZE_PX
from engine.evaluation.metrics import METRICS
from engine.evaluation.scores import BAND_EDGES_M
from engine.evaluation.scoring import score
from engine.resample import resize
from engine.weights import InputSize, save_weights

# Fixtures, for pytest to find.
__all__ = ["server_images", "tree", "weights"]


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


def test_runs_of_one_name_do_not_overwrite_each_other(tree: Path, weights: Path, tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(weights, tmp_path / name / "run" / "models" / weights.name)) for name in "ab"]
    both = [part for folder in runs for part in ("--load_weights_folder", folder)]
    result = run(tree, *both, "--save_pred_disps", "--no_eval", "--eval_out_dir", tmp_path / "out")
    assert result.exit_code == 1
    shared = tmp_path / "out" / f"run_models_{weights.name}"
    assert f"two of the models would keep their inverse depths in {shared}; evaluate them one at a time" in result.output


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
        networks = networks_of(frame_ids=(0,), use_stereo=True)
        save_weights(tmp_path / "models" / f"weights_{epoch}", networks, InputSize(*SIZE_PX, True))
    report = tmp_path / "report"
    args = ["--load_weights_folder", tmp_path, "--all_weights", "--report", report, "--json", tmp_path / "scores.json"]
    assert run(tree, "--eval_mono", *args).exit_code == 0
    best = min(json.loads((tmp_path / "scores.json").read_text())["models"], key=lambda model: model["abs_rel"])
    assert best["epoch"] != 0, "the first epoch must not be the best here, or this test shows nothing"
    page = (report / "index.html").read_text()
    assert f"Errors of {best['name']}, pooled" in page
    assert f"Images of {best['name']} with" in page


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


def test_depth_images_for_the_server(server_images: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fixed = ["--eval_split", "benchmark", "--no_cuda", "--loader", "torch", "--data_path", str(server_images)]
    from_weights = CliRunner().invoke(md_eval, [*fixed, "--load_weights_folder", str(weights), "--save_pred_disps", "--batch_size", "50"])
    assert from_weights.exit_code == 0, from_weights.output
    # These networks know the metres in their unit; a file of disparities does not.
    assert "nothing says" not in from_weights.output
    folder = weights / "benchmark_predictions"
    assert len(list(folder.iterdir())) == 500
    inv_depths = np.load(weights / "disps_benchmark_split.npy")
    for number in (0, 1, 499):
        with Image.open(folder / f"{number:010d}.png") as image:
            assert image.mode in ("I;16", "I")  # by Pillow's version
            depth_m = np.asarray(image) / PNG_PER_M
        expected = np.minimum(5.4 / resize(inv_depths[number], SERVER_SIZE_PX), 80)
        assert depth_m.shape == SERVER_SIZE_PX
        # Cut off, not rounded: at most one step of 1/256 m below.
        assert (expected - depth_m).min() > -1e-4
        assert (expected - depth_m).max() < 1 / PNG_PER_M + 1e-4
    from_file = CliRunner().invoke(
        md_eval, [*fixed, "--ext_disp_to_eval", str(weights / "disps_benchmark_split.npy"), "--eval_out_dir", str(tmp_path / "out")]
    )
    assert from_file.exit_code == 0, from_file.output
    assert "nothing says that its depths times 5.4 are metres" in caplog.text
    for number in (0, 499):
        name = f"{number:010d}.png"
        assert (tmp_path / "out" / "benchmark_predictions" / name).read_bytes() == (folder / name).read_bytes()


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
