"""Runs of several processes under torchrun that lose one, are stopped, or go on with another number of processes."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from kitti_tree import drive_folder
from torchrun import MD_TRAIN, Launched, errors_in, metrics, once, options, signal_all, started, torchrun, torchrun_command

pytestmark = pytest.mark.slow
STEPS = 8


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples


def training(tree: Path, log_dir: Path, name: str, world: int = 2, steps: int = STEPS) -> None:
    """A run to its end."""
    done = torchrun(world, MD_TRAIN, *options(tree, log_dir, name, "--max_steps", str(steps)))
    assert done.returncode == 0, done.stdout


@contextmanager
def begun(tree: Path, log_dir: Path, name: str, *launch: str, extra: tuple[str, ...] = ()) -> Iterator[Launched]:
    """A run on two processes that has saved its third step or a later one."""
    arguments = options(tree, log_dir, name, "--max_steps", str(STEPS), *extra)
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
    return once(tmp_path_factory, "whole", lambda folder: training(tree, folder, "run")) / "run"


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


@pytest.mark.parametrize(
    ("before", "steps", "world", "until", "epochs", "samples"),
    [
        # Of the second epoch's 20 samples two processes have taken 12.
        (2, 8, 1, 14, [1, 1, 1, 1, 2, 2], 4),
        (2, 8, 3, 11, [1, 2, 2], 12),
        (1, 5, 2, 9, [0, 0, 1, 1], 8),
    ],
)
def test_a_run_goes_on_with_another_number_of_processes(tree, whole, tmp_path, before, steps, world, until, epochs, samples):
    if before == 2:
        shutil.copytree(whole, tmp_path / "run")
    else:
        training(tree, tmp_path, "run", before, steps)
    training(tree, tmp_path, "run", world, until)
    lines = metrics(tmp_path / "run")
    assert list(lines) == list(range(until))
    assert [lines[step]["epoch"] for step in range(steps, until)] == epochs
    reached = position(tmp_path / "run" / "models" / f"weights_{epochs[-1]}")
    assert (reached["epoch"], reached["samples"], reached["global_step"]) == (epochs[-1], samples, until)


def lost(run: Launched, rank: int, process: psutil.Process) -> str:
    """The one message about a lost rank; fails where there is another, or none."""
    (message,) = errors_in(run)
    found = re.match(rf"Error: lost rank {rank} \(process {process.pid} on \S+, last \w+, step (\d+)\): it died, hangs", message)
    assert found, message
    assert 3 <= int(found[1]) <= STEPS
    return message


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_is_named(tree, tmp_path, rank):
    with begun(tree, tmp_path, "hangs", extra=("--timeout_minutes", "0.1")) as run:
        process = run.workers()[rank]
        process.suspend()
        assert run.ended() == 1, run.output
        assert "--resume auto" in lost(run, rank, process)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_is_named(tree, tmp_path, rank):
    with begun(tree, tmp_path, "dies") as run:
        process = run.workers()[rank]
        process.kill()
        assert run.ended() == 1, run.output
        lost(run, rank, process)


def test_processes_that_a_killed_torchrun_left_end_without_a_traceback(tree, tmp_path):
    with begun(tree, tmp_path, "orphans", extra=("--max_steps", "500")) as run:
        left = list(run.workers().values())
        run.process.kill()
        _, alive = psutil.wait_procs(left, 60)  # they exchange scores of the validation through its store
        assert not alive
        messages = errors_in(run)
        assert messages
        assert all(message.startswith("Error: torchrun, or the first machine, has ended") for message in messages), messages
        assert "Traceback" not in run.output


def test_an_image_that_one_process_cannot_read_ends_all_with_one_line(tree, tmp_path):
    own = shutil.copytree(tree, tmp_path / "kitti")
    with begun(own, tmp_path, "damaged", extra=("--max_steps", "500", "--num_epochs", "500")) as run:
        for path in own.rglob("image_02/data/*.jpg"):
            path.write_bytes(path.read_bytes()[:900])
        assert run.ended() == 1, run.output
        (message,) = set(errors_in(run))
    assert "is a damaged image" in message
    saved = tmp_path / "damaged" / "models" / f"step_{step_of(tmp_path / 'damaged')}"
    assert message.endswith(f"The run is saved in {saved}: mend that, then repeat the command with --resume")
    assert position(saved)["global_step"] == int(saved.name[5:])


def test_images_that_processes_cannot_read_are_skipped_and_named_once_and_scored_by_none(kitti_tree, tmp_path):
    """Both processes validate some of a drive whose images are damaged: with the figures of its list without these."""
    own = kitti_tree(frames=12, drives=("0001", "0002"))
    lists = {name: (own / "split" / f"{name}_files.txt").read_text().splitlines() for name in ("train", "val")}
    (own / "split" / "train_files.txt").write_text("\n".join(line for line in lists["train"] if "_0001_" in line) + "\n")
    scored = [line for line in lists["val"] if "_0002_" in line]
    bad = [own / drive_folder("0002") / camera / "data" / f"{number:010d}.jpg" for camera, number in (("image_02", 2), ("image_03", 7))]
    shown: dict[str, dict[int, dict[str, float]]] = {}
    for name in ("whole", "skipping"):
        # Stereo: a sample needs the images of both cameras.
        left = [line for line in scored if name == "skipping" or line.split()[1] not in ("2", "7")]
        (own / "split" / "val_files.txt").write_text("\n".join(left) + "\n")
        if name == "skipping":
            for path in bad:
                path.write_bytes(path.read_bytes()[:900])
        done = torchrun(2, MD_TRAIN, *options(own, tmp_path, name, "--num_epochs", "1", "--bad_frames", "skip"))
        assert done.returncode == 0, done.stdout
        shown[name] = metrics(tmp_path / name, "val")
    (whole,), (skipping,) = (by_step.values() for by_step in shown.values())
    assert skipping["de/abs_rel"] == pytest.approx(whole["de/abs_rel"], rel=1e-6)
    assert skipping["loss"] != pytest.approx(whole["loss"], rel=1e-6)
    named = (tmp_path / "skipping" / "bad_frames.txt").read_text().splitlines()
    assert sorted(line.split(" is a damaged")[0] for line in named) == sorted(map(str, bad))


def test_a_log_that_cannot_be_written_any_more_is_told_when_all_have_saved(tree, tmp_path):
    """Nothing asks for a checkpoint here but the fault of rank 0, of which the others know nothing."""
    run_folder = tmp_path / "unlogged"
    arguments = options(tree, tmp_path, "unlogged", "--max_steps", "500", "--num_epochs", "500", "--save_minutes", "1000")
    log = run_folder / "metrics.jsonl"
    with started(torchrun_command(2, MD_TRAIN, *arguments)) as run:
        run.wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) >= 2)
        log.unlink()
        log.mkdir()
        assert run.ended() == 1, run.output
        (message,) = set(errors_in(run))
    assert message.startswith(f"Error: {log}: Is a directory")
    saved = sorted(path.name for path in (run_folder / "models").glob("*_*"))
    assert saved
    assert re.search(r"The run is saved in \S+/(step|weights)_\d+: mend that, then repeat the command with --resume$", message)
    log.rmdir()
    steps = max(position(run_folder / "models" / name)["global_step"] for name in saved)
    training(tree, tmp_path, "unlogged", steps=int(steps) + 1)


# Rank 1 dies where rank 0 waits for what it has to say, not for its gradients.
DIES_IN_VALIDATION = """
import os
import signal
from engine.interrupt import graceful_stop, ending_restored
from engine.parallel.ranks import joined

with ending_restored(), joined() as ranks, graceful_stop(then_deaf=True):
    ranks.heart.tell("validating", 5)
    ranks.meet()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gather(ranks.rank)
"""


def test_a_process_that_dies_in_validation_is_named_before_torchrun_kills_the_others(tmp_path):
    (tmp_path / "dies.py").write_text(DIES_IN_VALIDATION)
    done = torchrun(2, tmp_path / "dies.py", timeout_s=100)
    assert done.returncode == 1
    assert re.search(r"Lost: lost rank 1 \(", done.stdout), done.stdout
