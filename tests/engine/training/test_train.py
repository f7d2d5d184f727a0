"""The loop end to end through the real loader: runs end, logs tell, an interruption costs nothing."""

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.utils.tensorboard import SummaryWriter
from training_runs import STEREO, assert_same_weights, options, weights

from dataload.batch import Batch
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from engine.training import run as loop
from engine.training.log import RunLog
from engine.training.step import LossTerms
from engine.training.timing import Stopwatch, clock
from engine.training.update import Updater
from engine.training.validation import Validation


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples, 5 steps per epoch


def test_a_mono_run_leaves_weights_logs_and_pictures(tree, tmp_path):
    arguments = options(tree, tmp_path, "mono", "--num_epochs", "2", "--log_frequency", "2", "--scales", "0", "1")
    result = CliRunner().invoke(md_train, arguments)
    assert result.exit_code == 0, result.output
    run = tmp_path / "mono"
    for name in ("weights_0", "weights_1", "best"):
        assert {"encoder.pth", "depth.pth", "pose_encoder.pth", "pose.pth"} <= {p.name for p in (run / "models" / name).iterdir()}
    assert json.loads((run / "models" / "opt.json").read_text())["frame_ids"] == [0, -1, 1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["mode"], line["step"]) for line in lines] == [
        ("train", 0), ("train", 2), ("train", 4), ("val", 5), ("train", 5), ("train", 7), ("train", 9), ("val", 10),
    ]  # fmt: skip
    assert {"loss", "loss/0", "loss/1", "de/abs_rel", "da/a3"} <= set(lines[0])
    assert all(0 <= line["time/data_wait"] <= 1 and line["time/samples_per_s"] > 0 for line in lines if line["mode"] == "train")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "train")).Reload()
    assert {"loss", "loss/0", "de/rms", "time/data_wait"} <= set(events.Tags()["scalars"])
    pictures = {tag.split("/")[0] for tag in events.Tags()["images"]}
    assert pictures == {
        "color_0_0", "color_0_1", "color_-1_0", "color_1_0", "color_pred_-1_0", "color_pred_1_0", "disp_0", "disp_1",
        "automask_0", "automask_1",
    }  # fmt: skip


@pytest.mark.parametrize(("sources", "judged"), [(["--frame_ids", "0", "-1", "1"], "--eval_mono"), (STEREO, "--eval_stereo")])
def test_validation_scores_what_md_eval_scores(tree, tmp_path, sources, judged):
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *sources, "--max_steps", "2", "--amp", "off", "--loader", "torch"))
    assert result.exit_code == 0, result.output
    (line,) = [json.loads(s) for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"val"' in s]
    scores = tmp_path / "scores.json"  # the tree's test list is its validation list
    where = ["--data_path", str(tree), "--eval_split", str(tree / "split"), "--no_cuda", "--loader", "torch"]
    best = tmp_path / "run" / "models" / "best"
    done = CliRunner().invoke(md_eval, [*where, judged, "--load_weights_folder", str(best), "--json", str(scores)])
    assert done.exit_code == 0, done.output
    (model,) = json.loads(scores.read_text())["models"]
    assert {name: line[f"de/{name}"] for name in ("abs_rel", "sq_rel")} == pytest.approx(
        {name: model[name] for name in ("abs_rel", "sq_rel")}, rel=1e-4
    )
    assert f"abs_rel: {model['abs_rel']:.3f} (best so far)" in result.output


def test_the_best_weights_are_those_of_the_lowest_abs_rel(tree, tmp_path):
    arguments = options(tree, tmp_path, "run", *STEREO, "--num_epochs", "4", "--learning_rate", "1e-2", "--initial_depth", "8")
    result = CliRunner().invoke(md_train, arguments)
    assert result.exit_code == 0, result.output
    found = [json.loads(s)["de/abs_rel"] for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"val"' in s]
    assert found.index(min(found)) != len(found) - 1, "the last epoch must not be the best here, or this test shows nothing"
    models = tmp_path / "run" / "models"
    assert_same_weights(models / "best", models / f"weights_{found.index(min(found))}")


def test_without_ground_truth_the_loss_tells_the_best(kitti_tree, tmp_path):
    tree = kitti_tree(frames=12)
    for scan in tree.rglob("*.bin"):
        scan.unlink()
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *STEREO, "--max_steps", "1"))
    assert result.exit_code == 0, result.output
    assert "no image has ground truth" in result.output
    assert "abs_rel" not in result.output.split("validation loss")[1]
    assert (tmp_path / "run" / "models" / "best").is_dir()


def test_damaged_truth_is_found_before_training_starts(kitti_tree, tmp_path):
    tree = kitti_tree(frames=12)
    scan = next(tree.rglob("*3.bin"))
    scan.write_bytes(scan.read_bytes()[:-5])
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *STEREO, "--max_steps", "1"))
    assert result.exit_code == 1
    assert str(scan) in result.output
    assert "validation loss" not in result.output


def test_truth_of_which_nothing_counts_is_found_before_training_starts(kitti_tree, tmp_path):
    tree = kitti_tree(frames=12)
    scan = next(tree.rglob("*3.bin"))
    points = np.random.default_rng(0).uniform([82, -8, -2, 0], [90, 8, 1, 1], size=(4000, 4))
    points.astype(np.float32).tofile(scan)
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *STEREO, "--max_steps", "1"))
    assert result.exit_code == 1
    assert "3 l' has no ground truth that counts (crop garg, from 0.001 to 80 m); take its line out of the list" in result.output
    assert "validation loss" not in result.output


def test_damaged_truth_of_the_training_list_is_said_in_one_line(kitti_tree, tmp_path):
    tree = kitti_tree(frames=12)
    scan = next(tree.rglob("*3.bin"))
    lists = {name: tree / "split" / f"{name}_files.txt" for name in ("train", "val")}
    lists["val"].write_text("".join(line for line in lists["train"].open() if " 3 " not in line))
    scan.write_bytes(scan.read_bytes()[:-5])
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *STEREO, "--num_epochs", "2", "--log_frequency", "1"))
    assert result.exit_code == 1
    assert str(scan) in result.output.splitlines()[-1]


def train_lines(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["mode"] == "train"]


def test_the_pace_is_that_of_training_alone(tree, tmp_path, monkeypatch):
    now_s = [0.0]

    def takes(seconds: float, owner: object, name: str) -> None:
        call = getattr(owner, name)

        def slow(*args: object, **options: object) -> object:
            now_s[0] += seconds
            return call(*args, **options)

        monkeypatch.setattr(owner, name, slow)

    monkeypatch.setattr(loop, "Stopwatch", partial(Stopwatch, now_s=lambda: now_s[0]))
    takes(2, Updater, "__call__")
    no_training = [(RunLog, "write"), (Validation, "run"), (loop, "save_weights"), (loop.checkpoint, "save_checkpoint")]
    for owner, name in no_training:
        takes(1000, owner, name)
    arguments = options(tree, tmp_path, "run", *STEREO, "--num_epochs", "2", "--log_frequency", "2")
    result = CliRunner().invoke(md_train, arguments)
    assert result.exit_code == 0, result.output
    lines = train_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 2, 4, 5, 7, 9]
    assert [line["time/samples_per_s"] for line in lines] == [2.0] * 6
    assert result.output.count("| samples/s:   2.0 |") == 6
    # By step 2 of 10 there were three updates and two logs: what is left takes as long in proportion.
    assert f"time left: {clock(7 / 3 * (3 * 2 + 2 * 1000))}" in result.output


def test_training_goes_on_while_its_pictures_are_written(tree, tmp_path, monkeypatch):
    update, add_image = Updater.__call__, SummaryWriter.add_image
    third = threading.Event()

    def updated(self: Updater, batch: Batch) -> LossTerms:
        if self._calls == 2:
            third.set()
        return update(self, batch)

    def written(*args: object, **options: object) -> None:
        assert third.wait(timeout=300), "training waits for its pictures"
        add_image(*args, **options)

    monkeypatch.setattr(Updater, "__call__", updated)
    monkeypatch.setattr(SummaryWriter, "add_image", written)
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "run", *STEREO, "--max_steps", "5", "--log_frequency", "1"))
    assert result.exit_code == 0, result.output
    lines = train_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert ["de/abs_rel" in line for line in lines[:2]] == [True, False]
    assert all(line["loss"] > 0 for line in lines)
    assert result.output.count("Step 1 is logged without pictures and depth errors") == 1


def test_an_occupied_run_folder_is_not_overwritten(tree, tmp_path):
    arguments = options(tree, tmp_path, "twice", *STEREO, "--max_steps", "1")
    assert CliRunner().invoke(md_train, arguments).exit_code == 0
    before = weights(tmp_path / "twice" / "models" / "weights_0")
    again = CliRunner().invoke(md_train, arguments)
    assert again.exit_code == 1
    assert "already holds weights" in again.output
    assert "add --resume" in " ".join(again.output.split())
    after = weights(tmp_path / "twice" / "models" / "weights_0")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_in_parts_resumes_and_what_only_saves_memory_changes_nothing(tree, tmp_path):
    parts = [*STEREO, "--grad_accumulation", "2"]
    whole = CliRunner().invoke(md_train, options(tree, tmp_path, "whole", *parts, "--max_steps", "4", "--cuda_graph"))
    assert whole.exit_code == 0, whole.output
    assert "Step        not compiled, 2 parts per batch\n--cuda_graph does nothing here: it is for a GPU" in whole.output
    first = CliRunner().invoke(md_train, options(tree, tmp_path, "two", *parts, "--max_steps", "2", "--checkpoint_activations"))
    assert first.exit_code == 0, first.output
    assert "2 parts per batch, activations recomputed" in first.output
    resumed = CliRunner().invoke(md_train, ["--log_dir", str(tmp_path), "--model_name", "two", "--resume", "--max_steps", "4"])
    assert resumed.exit_code == 0, resumed.output
    assert_same_weights(tmp_path / "two" / "models" / "weights_0", tmp_path / "whole" / "models" / "weights_0")
    # One step per batch, whatever its parts; and no GPU, no GPU memory.
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["mode"], line["step"]) for line in lines] == [("train", 0), ("val", 4)]
    assert "memory/peak_gib" not in lines[0]
    assert "GiB" not in whole.output


def test_resume_refuses_options_that_change_the_numbers(tree, tmp_path):
    arguments = options(tree, tmp_path, "kept", *STEREO, "--max_steps", "1")
    assert CliRunner().invoke(md_train, arguments).exit_code == 0
    result = CliRunner().invoke(md_train, [*arguments, "--resume", "--learning_rate", "5e-4"])
    assert result.exit_code == 2
    assert "--learning_rate differs from the run's (0.0005 given, 0.0001 in" in " ".join(result.output.split())


def test_a_loss_that_is_no_number_stops_before_it_is_saved(tree, tmp_path):
    result = CliRunner().invoke(md_train, options(tree, tmp_path, "nan", *STEREO, "--learning_rate", "1e15", "--save_minutes", "0"))
    assert result.exit_code == 1, result.output
    assert "became NaN or infinite" in result.output
    kept = [folder for kind in ("weights_*", "step_*", "best") for folder in (tmp_path / "nan" / "models").glob(kind)]
    assert all(value.isfinite().all() for folder in kept for value in weights(folder).values())


def test_weights_move_to_a_new_run(tree, tmp_path):
    first = CliRunner().invoke(md_train, options(tree, tmp_path, "first", *STEREO, "--max_steps", "1"))
    assert first.exit_code == 0, first.output
    source = tmp_path / "first" / "models" / "weights_0"
    second = CliRunner().invoke(
        md_train,
        options(tree, tmp_path, "second", *STEREO, "--load_weights_folder", str(source), "--max_steps", "1", "--learning_rate", "1e-9"),
    )
    assert second.exit_code == 0, second.output
    assert "Loaded encoder, depth from" in second.output
    new, old = weights(tmp_path / "second" / "models" / "weights_0"), weights(source)
    assert torch.allclose(new["depth/decoder.0.conv.conv.weight"], old["depth/decoder.0.conv.conv.weight"], atol=1e-6)


def test_too_few_samples_for_a_batch_is_said(tree, tmp_path):
    result = CliRunner().invoke(md_train, [*options(tree, tmp_path, "few", *STEREO), "--batch_size", "64"])
    assert result.exit_code == 1
    assert "fewer than one batch of 64; give a smaller --batch_size" in result.output
    assert not (tmp_path / "few").exists()
