"""What the tests of whole trainings share: md-train's arguments for small runs, as a process too, and what runs leave behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SIZE = ["--height", "64", "--width", "96", "--batch_size", "4", "--weights_init", "scratch", "--num_workers", "1", "--no_cuda"]
STEREO = ["--frame_ids", "0", "--use_stereo"]
MD_TRAIN = "from engine.commands.md_train import md_train; md_train()"


def options(tree: Path, log_dir: Path, name: str, *extra: str) -> list[str]:
    """A small run on the frames of a tree of KITTI's form."""
    return ["--data_path", str(tree), "--split", str(tree / "split"), "--log_dir", str(log_dir), "--model_name", name, *SIZE, *extra]


def start(arguments: list[str], program: str = MD_TRAIN, **environment: str) -> subprocess.Popen[str]:
    """md-train as a process of its own, or another program with its arguments."""
    # The progress bar's own switch, which a run must not mind.
    quiet = {**os.environ, "TQDM_DISABLE": "1", **environment}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 600) -> None:
    """Until a run got somewhere; fails with its output where it ended before."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.02)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder of weights by file and name."""
    found = {}
    for path in sorted(folder.glob("*.pth")):
        if path.stem != "adam":
            content = torch.load(path, weights_only=True)
            found |= {f"{path.stem}/{k}": v for k, v in content.items() if isinstance(v, torch.Tensor)}
    return found


def assert_same_weights(a: Path, b: Path) -> None:
    """Fails unless two folders hold the same weights, to the bit."""
    left, right = weights(a), weights(b)
    assert left
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key
