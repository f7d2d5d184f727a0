"""kill -9 at random instants, over a hundred in all: nothing torn under a final name, nothing lost that was acknowledged, resumed right."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from places import PROJECT
from random_kills import WORK
from training_runs import assert_same_weights, options, start, weights

from engine.checkpoints import checkpoint_folders
from engine.commands.md_train import md_train
from engine.training.checkpoint import latest_resumable

pytestmark = pytest.mark.slow
KILLS = {"run": 50, "store": 20, "bag": 20, "video": 20, "sets": 20}
KILLS_OF_MD_TRAIN = 6


@pytest.mark.parametrize("name", WORK)
def test_what_is_killed_at_random_instants_tears_and_loses_nothing(name):
    program = PROJECT / "tests" / "support" / "random_kills.py"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, program, name, str(KILLS[name])]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *wrong, counts = done.stdout.splitlines()
    assert not wrong, "\n".join(wrong)
    met, acknowledged = (int(word) for word in counts.split() if word.isdigit())
    assert met >= KILLS[name] // 3, counts
    assert acknowledged, counts


def test_md_train_killed_at_random_instants_ends_as_if_undisturbed(kitti_tree: Callable[..., Path], tmp_path):
    tree = kitti_tree(frames=12)
    whole = CliRunner().invoke(md_train, options(tree, tmp_path, "whole", "--max_steps", "8"))
    assert whole.exit_code == 0, whole.output
    models, draw = tmp_path / "killed" / "models", random.Random(20)
    command = options(tree, tmp_path, "killed", "--max_steps", "8", "--save_every_steps", "1", "--resume", "auto")
    for number in range(KILLS_OF_MD_TRAIN):
        process = start(command)
        # From its first checkpoint on, or its next.
        before = {folder.name for folder in checkpoint_folders(models)}
        while process.poll() is None and {folder.name for folder in checkpoint_folders(models)} <= before:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        assert ("Resuming from" in output) == (number > 0), output
        for folder in checkpoint_folders(models):
            assert weights(folder), folder
        assert latest_resumable(models) in checkpoint_folders(models)
    process = start(command)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert_same_weights(tmp_path / "killed" / "models" / "weights_1", tmp_path / "whole" / "models" / "weights_1")
    assert not [path for path in (tmp_path / "killed").rglob(".*") if path.name != ".gitignore"]
