"""Runs of several processes under torchrun that lose one, are stopped, or go on with another number of processes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from torchrun import MD_TRAIN, Launched, metrics, signal_all, started, torchrun, torchrun_command

pytestmark = pytest.mark.slow
STEPS = 8


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples


def options(tree: Path, log_dir: Path, name: str, *extra: str) -> list[str]:
    """A small run: 5 steps per epoch on two processes, every step logged and saved."""
    return [
        "--data_path", str(tree), "--split", str(tree / "split"), "--log_dir", str(log_dir), "--model_name", name, "--no_cuda",
        "--height", "64", "--width", "96", "--batch_size", "2", "--frame_ids", "0", "--use_stereo", "--weights_init", "scratch",
        "--amp", "off", "--num_workers", "1", "--frame_store", "none", "--log_frequency", "1", "--save_minutes", "0", "--resume", "auto",
        *extra,
    ]  # fmt: skip


def training(tree: Path, log_dir: Path, name: str, world: int = 2, steps: int = STEPS) -> None:
    """A run to its end."""
    done = torchrun(world, MD_TRAIN, *options(tree, log_dir, name, "--max_steps", str(steps)))
    assert done.returncode == 0, done.stdout


@contextmanager
def begun(tree: Path, log_dir: Path, name: str, *launch: str, steps: int = STEPS) -> Iterator[Launched]:
    """A run on two processes that has saved its third step or a later one."""
    arguments = options(tree, log_dir, name, "--max_steps", str(steps))
    with started(torchrun_command(2, MD_TRAIN, *arguments, options=("--standalone", *launch))) as run:
        run.wait_for(lambda: step_of(log_dir / name) >= 3)
        yield run


def step_of(run_folder: Path) -> int:
    """The newest mid-epoch checkpoint's step."""
    return max((int(path.name.split("_")[1]) for path in (run_folder / "models").glob("step_*")), default=0)


def position(folder: Path) -> dict[str, float]:
    found: dict[str, float] = torch.load(folder / "state.pt", weights_only=True)["position"]
    return found


def content(folder: Path) -> dict[str, object]:
    """All that a checkpoint holds: weights, BatchNorm's buffers, Adam's moments."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("*.pth")):
        saved = torch.load(path, weights_only=True)
        if path.stem == "adam":
            saved = {f"{number} {name}": value for number, moments in saved["state"].items() for name, value in moments.items()}
        found |= {f"{path.stem} {name}": value for name, value in saved.items()}
    return found


def assert_same_end(run_folder: Path, other: Path) -> None:
    """Fails unless two runs have logged the same losses, each step once, and ended with the same checkpoint to the bit."""
    for mode in ("train", "val"):
        found, expected = metrics(run_folder, mode), metrics(other, mode)
        assert found.keys() == expected.keys()
        for step, line in expected.items():
            assert found[step]["loss"] == pytest.approx(line["loss"], rel=1e-6), step
    left, right = (content(folder / "models" / "weights_1") for folder in (run_folder, other))
    assert left.keys() == right.keys()
    assert any("running_mean" in name for name in left)
    for name, value in left.items():
        assert torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name], name
    assert position(run_folder / "models" / "weights_1") == position(other / "models" / "weights_1")
    assert not list(run_folder.rglob("*.tmp"))


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run on two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    training(tree, folder, "whole")
    return folder / "whole"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_costs_nothing_under_restarts(tree, whole, tmp_path, rank):
    with begun(tree, tmp_path, "killed", "--max_restarts", "2") as run:
        run.workers()[rank].kill()
        assert run.ended() == 0, run.output
        assert run.output.count("Resuming from") == 1, run.output
    assert_same_end(tmp_path / "killed", whole)


def send_to_torchrun(run: Launched) -> None:
    run.process.send_signal(signal.SIGTERM)


def send_to_all(run: Launched) -> None:
    signal_all(run, signal.SIGTERM)


def send_to_one_worker(run: Launched) -> None:
    run.workers()[1].terminate()


@pytest.mark.parametrize("send", [send_to_torchrun, send_to_all, send_to_one_worker])
def test_sigterm_saves_and_the_same_command_goes_on(tree, whole, tmp_path, send):
    with begun(tree, tmp_path, "stopped") as run:
        workers = run.workers()
        send(run)
        status = run.ended()
        assert status == 1, run.output
        _, alive = psutil.wait_procs(workers.values(), timeout=0)
        assert not alive
        assert run.output.count("Stopped at step") == 1, run.output
    models = tmp_path / "stopped" / "models"
    stopped_at = step_of(tmp_path / "stopped")
    assert position(models / f"step_{stopped_at}")["global_step"] == stopped_at
    assert max(metrics(tmp_path / "stopped")) == stopped_at - 1
    training(tree, tmp_path, "stopped")
    assert_same_end(tmp_path / "stopped", whole)
