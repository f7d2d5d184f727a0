"""Runs that are killed, stopped, or asked to save, as processes: nothing is torn, and the same command continues them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from training_runs import MD_TRAIN, STEREO, assert_same_weights, options, start, wait_for

from engine.commands.md_train import md_train

# The run gets a signal from itself while it writes the checkpoints of these steps, so that it is there however busy the machine.
SIGNALLED = """
import os, signal
from engine import weights

write_file = weights.write_file

def write_and_signal(path, content):
    digest = write_file(path, content)
    if path.name == "adam.pth" and path.parent.name.split(".")[1] in {folders}:
        os.kill(os.getpid(), {number})
    return digest

weights.write_file = write_and_signal
"""


# A run that gets a hangup, and a request to save, while it makes its networks.
EARLY = """
import os, signal
from engine.training import train

build_engine = train.build_engine

def build_late(*args, **options):
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGHUP)
    return build_engine(*args, **options)

train.build_engine = build_late
"""


def signalled(number: int, *folders: str) -> str:
    return SIGNALLED.format(folders=folders, number=int(number)) + MD_TRAIN


def position_of(folder: Path) -> dict[str, float]:
    return torch.load(folder / "state.pt", weights_only=True)["position"]


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples, 5 steps per epoch


def test_killed_in_mid_epoch_the_same_command_continues_bit_identically(tree, tmp_path):
    whole = CliRunner().invoke(md_train, options(tree, tmp_path, "whole", "--max_steps", "8"))
    assert whole.exit_code == 0, whole.output

    models = tmp_path / "killed" / "models"
    command = options(tree, tmp_path, "killed", "--max_steps", "8", "--save_every_steps", "2", "--resume", "auto")
    process = start(command, signalled(signal.SIGKILL, "step_2"))
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    # Killed before the first checkpoint was whole: options, but nothing to resume.
    assert sorted(path.name for path in models.glob("[!.]*")) == ["opt.json"]
    process = start(command, signalled(signal.SIGKILL, "weights_1"))  # at the end of the second epoch, cut off after three steps
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    assert "Resuming" not in output
    assert list(models.glob(".weights_1.*.tmp"))
    assert sorted(path.name for path in models.glob("[!.]*")) == ["best", "opt.json", "step_6", "weights_0"]
    assert position_of(models / "weights_0")["samples"] == 0
    state = torch.load(models / "step_6" / "state.pt", weights_only=True)
    # As an earlier version wrote it.
    assert state["position"].pop("samples") == 4
    torch.save(state, models / "step_6" / "state.pt")
    (models / "step_6" / "SHA256SUMS").unlink()

    resumed = CliRunner().invoke(md_train, command)
    assert resumed.exit_code == 0, resumed.output
    assert f"Resuming from {models / 'step_6'}: epoch 1, step 6" in " ".join(resumed.output.split())
    assert not list((tmp_path / "killed").rglob(".*"))
    assert_same_weights(models / "weights_1", tmp_path / "whole" / "models" / "weights_1")
    assert position_of(models / "weights_1")["samples"] == 12
    steps_logged = [
        (json.loads(s)["mode"], json.loads(s)["step"]) for s in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps_logged == [("train", 0), ("val", 5), ("train", 5), ("val", 8)]


def test_ctrl_c_saves_leaves_and_resumes(tree, tmp_path):
    models = tmp_path / "stopped" / "models"
    process = start(options(tree, tmp_path, "stopped", *STEREO, "--num_epochs", "50"))
    wait_for(lambda: (models / "weights_1").exists(), process)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 130, output
    assert "with --resume to continue" in output
    assert "Traceback" not in output
    stopped_at = max(int(p.name.split("_")[1]) for p in models.glob("step_*"))
    result = CliRunner().invoke(
        md_train, ["--log_dir", str(tmp_path), "--model_name", "stopped", "--resume", "--max_steps", str(stopped_at + 2)]
    )
    assert result.exit_code == 0, result.output
    assert f"step {stopped_at}" in result.output


# The run gets a signal while it is validated.
IN_VALIDATION = """
import os, signal
from engine.training import validation

score = validation.score

def score_and_signal(*args, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return score(*args, **options)

validation.score = score_and_signal
"""


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "steps"), [("--num_epochs", 5), ("--max_steps", 1)])
def test_a_validation_is_left_where_a_stop_is_requested_and_made_again(tree, tmp_path, limit, steps):
    models = tmp_path / "unvalidated" / "models"
    command = options(tree, tmp_path, "unvalidated", *STEREO, limit, "1")
    process = start(command, IN_VALIDATION + MD_TRAIN)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 143, output
    assert f"Stopped at step {steps}" in output
    assert "validation loss" not in output
    assert [path.name for path in models.iterdir() if path.is_dir()] == [f"step_{steps}"]
    resumed = CliRunner().invoke(md_train, [*command, "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == ["best", "weights_0"]
    lines = [json.loads(line) for line in (tmp_path / "unvalidated" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["mode"], line["step"]) for line in lines] == [("train", 0), ("val", steps)]


# The run is killed when its first best weights are written.
KILLED_AT_BEST = """
import os, signal
from engine.training import run

save_weights = run.save_weights

def save_and_die(*args):
    save_weights(*args)
    os.kill(os.getpid(), signal.SIGKILL)

run.save_weights = save_and_die
"""


@pytest.mark.slow
def test_best_weights_never_lie_in_a_run_that_cannot_be_resumed(tree, tmp_path):
    models = tmp_path / "best" / "models"
    command = options(tree, tmp_path, "best", *STEREO, "--num_epochs", "1", "--resume", "auto")
    process = start(command, KILLED_AT_BEST + MD_TRAIN)
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == ["best", "step_5"]
    resumed = CliRunner().invoke(md_train, command)
    assert resumed.exit_code == 0, resumed.output
    assert sorted(path.name for path in models.iterdir() if path.is_dir()) == ["best", "weights_0"]
    lines = [json.loads(line) for line in (tmp_path / "best" / "metrics.jsonl").read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["train", "val"]


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves_and_the_run_resumes(tree, tmp_path):
    """A terminal of the run's own: when it goes, the system sends SIGHUP, and every further write to it is an error."""
    models = tmp_path / "hungup" / "models"
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MD_TRAIN, *options(tree, tmp_path, "hungup", *STEREO, "--num_epochs", "500", "--save_frequency", "500")],
        stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(its)
    said = b""
    while b"epoch   0" not in said:
        said += os.read(ours, 2**16)
    os.close(ours)
    assert process.wait(120) == 129, said.decode()
    (saved,) = models.glob("step_*")
    stopped_at = int(saved.name[5:])
    assert position_of(saved)["global_step"] == stopped_at >= 1
    resumed = CliRunner().invoke(
        md_train, ["--log_dir", str(tmp_path), "--model_name", "hungup", "--resume", "--max_steps", str(stopped_at + 1)]
    )
    assert resumed.exit_code == 0, resumed.output


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_changes_nothing_and_an_early_request_to_save_neither(tree, tmp_path):
    command = options(tree, tmp_path, "nohup", *STEREO, "--max_steps", "2")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(command, EARLY + MD_TRAIN)
    finally:
        signal.signal(signal.SIGHUP, before)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "Done: weights in" in output


@pytest.mark.slow
# The first signal asks to stop after the next step; the second comes while that is being saved.
@pytest.mark.parametrize(("environment", "left"), [({}, "step_2"), ({"TORCHELASTIC_RUN_ID": "none"}, "step_3")], ids=["alone", "torchrun"])
def test_signals_while_a_stop_is_being_saved_tear_nothing(tree, tmp_path, environment, left):
    models = tmp_path / "torn" / "models"
    command = options(tree, tmp_path, "torn", *STEREO, "--save_every_steps", "1")
    process = start(command, signalled(signal.SIGTERM, "step_2", "step_3"), **environment)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert ("Stopped at step 3" in output) == bool(environment)
    assert [path.name for path in models.iterdir() if path.is_dir()] == [left]
    assert position_of(models / left)["global_step"] == int(left[-1])
    resumed = CliRunner().invoke(md_train, [*command, "--resume", "--max_steps", "4"])
    assert resumed.exit_code == 0, resumed.output


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
def test_a_run_that_is_asked_to_save_saves_and_goes_on(tree, tmp_path):
    run_folder = tmp_path / "asked"
    process = start(options(tree, tmp_path, "asked", *STEREO, "--num_epochs", "500", "--save_frequency", "500"))
    wait_for((run_folder / "metrics.jsonl").is_file, process)
    for _ in range(2):
        before = set((run_folder / "models").glob("step_*"))
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(lambda before=before: bool(set((run_folder / "models").glob("step_*")) - before), process)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 143, output
    assert "Stopped at step" in output
