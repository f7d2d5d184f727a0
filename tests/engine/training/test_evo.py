"""Training and evaluating on Evo at the command line: mixed sizes, lines of 3 and 7 fields, depth that is partly missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from evo_tree import FULL, SMALL, save, write_evo_tree, write_lists, write_sequence
from PIL import Image

from dataload.commands.md_data import md_data
from dataload.datasets.evo import Evo
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from engine.evaluation.metrics import ALL_GT
from engine.evaluation.scoring import Rules, score
from engine.inference.depth_network import load_depth_network
from export.commands.md_predict import md_predict
from export.prediction.torch_predictor import torch_predictor

SMALL_RUN = [
    *("--height", 64, "--width", 96, "--num_layers", 18, "--batch_size", 2, "--max_steps", 2),
    *("--weights_init", "scratch", "--num_workers", 2, "--no_cuda"),
]


def run(command, *args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evo_tree(tmp_path_factory.mktemp("evo"), (FULL, SMALL._replace(baseline_m=0.36)))


@pytest.fixture(scope="module")
def trained(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the fork's command, but smaller."""
    log_dir = tmp_path_factory.mktemp("runs")
    result = run(
        md_train, "--dataset", "evo", "--split", "evo", "--data_path", tree, "--log_dir", log_dir, "--model_name", "evo",
        "--height", 288, "--width", 512, "--num_epochs", 30, "--batch_size", 4, "--num_layers", 50, *SMALL_RUN,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return log_dir / "evo"


def test_training_leaves_out_what_has_no_neighbours_and_judges_what_has_depth(trained: Path, tree: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    val = [row for row in rows if row["mode"] == "val"][-1]
    assert val["de/abs_rel"] > 0
    options = json.loads((trained / "models" / "opt.json").read_text())
    assert (options["dataset"], options["split"], options["frame_ids"]) == ("evo", str(tree / "splits" / "evo"), [0, -1, 1])


def test_a_run_is_resumed_with_its_own_split(tmp_path: Path) -> None:
    """Where the one that the dataset takes by default is not there."""
    write_sequence(tmp_path / "data", FULL)
    write_lists(tmp_path / "lists", [FULL.line(frame) for frame in range(FULL.frames)])
    names = ["--log_dir", tmp_path / "runs", "--model_name", "own", "--no_cuda"]
    began = run(md_train, *names, "--dataset", "evo", "--data_path", tmp_path / "data", "--split", tmp_path / "lists", *SMALL_RUN)
    assert began.exit_code == 0, began.output
    went_on = run(md_train, *names, "--resume", "--max_steps", 3)
    assert went_on.exit_code == 0, went_on.output
    assert "epoch 1, step 2" in went_on.output
    refused = run(md_train, *names, "--resume", "--split", tmp_path, "--dry_run")
    assert refused.exit_code == 2
    assert "--split differs from the run's" in refused.output


def test_a_split_by_name_is_the_datasets_own(trained: Path, tree: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    out = ["--json", scores, "--no_cuda", "--num_workers", 2]
    by_split = run(md_eval, "--eval_mono", "--eval_split", "evo", "--data_path", tree, "--load_weights_folder", trained, *out)
    assert by_split.exit_code == 0, by_split.output
    assert "2 of 12 images have no ground truth and are not scored" in by_split.output
    settings = json.loads(scores.read_text())["settings"]
    assert (settings["crop"], settings["min_gt_m"], settings["max_gt_m"], settings["max_pred_m"]) == ("none", 0.0, None, 80.0)


def test_scores_are_taken_at_the_truths_own_size(trained: Path, tree: Path, tmp_path: Path) -> None:
    """Against scoring by hand what was saved: all images are predicted, those with depth are scored."""
    out = tmp_path / "out"
    scores = tmp_path / "scores.json"
    result = run(
        md_eval, "--eval_mono", "--eval_split", "evo", "--save_pred_disps", "--eval_from_file", "--data_path", tree,
        "--load_weights_folder", trained, "--eval_out_dir", out, "--json", scores, "--no_cuda", "--num_workers", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    disps = np.load(out / "disps_evo_split.npy")
    assert len(disps) == FULL.frames + SMALL.frames
    dataset = Evo(tree)
    refs = dataset.read(str(tree / "splits/evo"), "test")
    judged = [index for index, ref in enumerate(refs) if dataset.depth_source(ref)]
    truths = [dataset.eval_sparse_depth(refs[index]) for index in judged]
    assert {truth.size_px for truth in truths} == {(108, 192), (72, 128)}
    by_hand = score([disps[judged]], truths, Rules(ALL_GT)).means
    (model,) = json.loads(scores.read_text())["models"]
    assert by_hand["abs_rel"] == pytest.approx(model["abs_rel"], rel=1e-6)
    # A file of all predictions is scored the same.
    again = run(md_eval, "--eval_split", "evo", "--data_path", tree, "--ext_disp_to_eval", out / "disps_evo_split.npy", "--eval_mono")
    assert again.exit_code == 0, again.output
    assert [line for line in again.output.splitlines() if line.startswith("&")] == [
        line for line in result.output.splitlines() if line.startswith("&")
    ]


def test_ground_truth_is_kept_for_the_images_that_have_some(trained: Path, tree: Path, tmp_path: Path) -> None:
    split = tmp_path / "split"
    write_lists(split, [sequence.line(frame) for sequence in (FULL, SMALL) for frame in range(sequence.frames)])
    made = run(md_data, "gt", "--dataset", "evo", "--data_path", tree, "--split", split)
    assert made.exit_code == 0, made.output
    assert "10 depth maps in" in made.output
    args = ["--dataset", "evo", "--eval_split", split, "--data_path", tree, "--load_weights_folder", trained, "--eval_mono", "--no_cuda"]
    kept, anew = (run(md_eval, *args, *more) for more in ([], ["--eval_from_file"]))
    assert f"Ground truth from {split / 'gt_depths.npz'}" in kept.output
    assert "Ground truth made on the fly" in anew.output
    tables = [[line for line in result.output.splitlines() if line.startswith("&")] for result in (kept, anew)]
    assert tables[0] == tables[1] != []
    write_lists(split, [FULL.line(1)])
    other = run(md_eval, *args)
    assert other.exit_code == 1
    assert "holds the ground truth of other frames (10) than the split's test list (1); make it again" in other.output


def test_whole_metre_depth_ends_an_evaluation_with_the_remedy(trained: Path, tree: Path, tmp_path: Path) -> None:
    for sequence in (FULL,):
        write_evo_tree(tmp_path, (sequence,))
        for frame in range(sequence.frames):
            path = sequence.file(tmp_path, "front_depth_left", frame, ".png")
            save(path, (np.asarray(Image.open(path)) // 256).astype(np.uint16))
    args = ["--eval_split", "evo", "--data_path", tmp_path, "--load_weights_folder", trained, "--eval_mono", "--no_cuda"]
    refused, read = run(md_eval, *args), run(md_eval, *args, "--depth_scale", 1)
    assert refused.exit_code == 1
    assert "give --depth_scale 1" in refused.output
    assert read.exit_code == 0, read.output


def test_a_stereo_model_knows_the_metres_of_its_own_cameras(tree: Path, tmp_path: Path) -> None:
    split = tmp_path / "pairs"
    write_lists(split, [SMALL.line(frame) for frame in range(SMALL.frames)])
    result = run(
        md_train, "--dataset", "evo", "--split", split, "--data_path", tree, "--log_dir", tmp_path, "--model_name", "pair",
        "--frame_ids", 0, "--use_stereo", *SMALL_RUN,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "pair/models/opt.json").read_text())["metric_factor"] == pytest.approx(3.6)
    assert load_depth_network(tmp_path / "pair").metric_factor == pytest.approx(3.6)
    assert torch_predictor(tmp_path / "pair", no_cuda=True, amp="off").unit_m == pytest.approx(3.6)
    scores = tmp_path / "scores.json"
    scored = run(
        md_eval, "--eval_stereo", "--dataset", "evo", "--eval_split", split, "--data_path", tree,
        "--load_weights_folder", tmp_path / "pair", "--pred_depth_scale_factor", 2, "--json", scores, "--no_cuda",
    )  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert "--pred_depth_scale_factor 2 is not used: --eval_stereo sets 3.6" in scored.output
    image = SMALL.file(tree, "front_rgb_left", 1)
    predicted = run(
        md_predict, "--image", image, "--model", tmp_path / "pair", "--out", tmp_path / "out", "--pred_metric_depth", "--no_cuda"
    )
    assert predicted.exit_code == 0, predicted.output
    depth_m = np.load(next((tmp_path / "out").glob("*_depth.npy")))
    assert 0.36 <= depth_m.min() <= depth_m.max() <= 360


def test_training_without_intrinsics_says_where_they_are_looked_for(tree: Path, tmp_path: Path) -> None:
    for frame in range(3):
        save(tmp_path / "drive" / f"{frame}.jpg", np.zeros((64, 96, 3), np.uint8))
    write_lists(tmp_path / "splits" / "folder", ["drive 1 l"])
    args = ["--dataset", "folder", "--data_path", tmp_path, "--log_dir", tmp_path / "runs", *SMALL_RUN, "--batch_size", 1]
    result = run(md_train, *args)
    assert result.exit_code == 1
    assert "the intrinsics of sequence drive are not known: neither its split lines have them" in result.output
    assert not (tmp_path / "runs").exists()
    assert run(md_train, *args, "--intrinsics", 60, 60, 48, 32, "--max_steps", 1).exit_code == 0
