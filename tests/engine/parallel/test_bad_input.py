"""What cannot work with several processes: one message from one of them, and all end with the same status."""

import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torchrun import MD_TRAIN, Launched, errors_in, free_port, md_train, options, ranks_by_hand, started, torchrun

from dataload.pipeline.order import epoch_batches
from dataload.system.launch import Launch
from dataload.system.locks import hold
from engine.parallel import ranks
from splits.errors import InputError

# What takes longer has hung; the machine may be busy.
WITHIN_S = 120


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples


def refusal(runs: Sequence[Launched]) -> str:
    """The one message of all processes, which end with the same status."""
    statuses = [run.ended(WITHIN_S) for run in runs]
    shown = "\n".join(run.output for run in runs)
    assert statuses == [1] * len(runs), shown
    (message,) = errors_in(*runs)
    assert "Traceback" not in shown, shown
    return message


def refused_by_torchrun(*arguments: str) -> str:
    done = torchrun(2, MD_TRAIN, *arguments, timeout_s=WITHIN_S)
    assert done.returncode == 1, done.stdout
    (message,) = errors_in(done)
    assert "new message format" not in done.stdout, done.stdout
    # torchrun's own message is long; its last line but a ruler is ours.
    assert done.stdout.rstrip().splitlines()[-2] == f"  traceback : {message.removeprefix('Error: ')}", done.stdout
    return message


def test_a_rank_that_is_no_number_is_refused(tree, tmp_path):
    with started(md_train(*options(tree, tmp_path, "run")), {"RANK": "first", "WORLD_SIZE": "2"}) as run:
        assert run.ended(WITHIN_S) == 1, run.output
        (message,) = errors_in(run)
    assert "RANK=first, WORLD_SIZE=2, LOCAL_RANK=(missing)" in message
    assert "start it with torchrun" in message


def test_a_process_that_nobody_joins_does_not_wait_for_torchs_half_hour(monkeypatch):
    monkeypatch.setattr(ranks, "COME_WITHIN_S", 1.0)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(InputError, match=r"rank 0 finds no others at 127\.0\.0\.1:\d+ \(.*; start all"):
        ranks._store_of(Launch(0, 2, 0, 2))


@pytest.mark.parametrize("name", ["batch_size", pytest.param("seed", marks=pytest.mark.slow)])
def test_other_options_on_one_rank_are_named(tree, tmp_path, name):
    common = options(tree, tmp_path, "run")
    with ranks_by_hand([md_train(*common, f"--{name}", "3"), md_train(*common, f"--{name}", "5")]) as runs:
        message = refusal(runs)
    assert f"--{name} differs between the processes: 3 on rank 0 (" in message
    assert ", 5 on rank 1 (" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_lists_are_named(tree, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    shutil.copytree(tree / "split", tmp_path / "split")
    # Where a machine's copy ends early, so do the samples that have all sources.
    (frame,) = (path for path in other.rglob("image_02/data/*.jpg") if path.stem.endswith("0011"))
    frame.unlink()
    common = options(tree, tmp_path, "run", "--split", str(tmp_path / "split"), "--frame_ids", "0", "-1", "1")
    with ranks_by_hand([md_train(*common), md_train(*common, "--data_path", str(other))]) as runs:
        message = refusal(runs)
    assert "the training list differs between the processes: " in message


@pytest.mark.slow
def test_fewer_samples_than_a_global_batch_are_refused(tree, tmp_path):
    message = refused_by_torchrun(*options(tree, tmp_path, "run", "--batch_size", "11"))
    assert "20" in message
    assert "batch_size" in message


@pytest.mark.slow
def test_a_port_in_use_is_named(tree, tmp_path):
    command = md_train(*options(tree, tmp_path, "run"))
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with ranks_by_hand([command, command], port=port) as runs:
            assert runs[0].ended(WITHIN_S) == 1, runs[0].output
            (message,) = errors_in(runs[0])
    assert f"another job uses port 127.0.0.1:{port}" in message


@pytest.mark.slow
def test_a_second_job_on_a_run_folder_is_refused(tree, tmp_path):
    with hold(tmp_path / "run", "wait", folder=True):
        message = refused_by_torchrun(*options(tree, tmp_path, "run"))
    assert "choose another --model_name" in message
    assert str(os.getpid()) in message


def cannot_mount() -> bool:
    """Whether a folder cannot be hidden from a process."""
    return os.system("unshare -m mount -t tmpfs none /mnt 2>/dev/null") != 0


@pytest.mark.slow
@pytest.mark.skipif(cannot_mount(), reason="no rights to hide a folder from one process (unshare -m)")
def test_a_run_folder_that_one_rank_does_not_see_is_named(tree, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    command = md_train(*options(tree, logs, "run"))
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(logs), *command]
    with ranks_by_hand([command, hidden]) as runs:
        message = refusal(runs)
    assert f"{logs / 'run' / 'models'} is not on a file system that all machines share: what rank 0 writes is missing on " in message
    assert not list((logs / "run").rglob(".seen*"))


@pytest.mark.slow
def test_a_damaged_frame_that_one_rank_reads_is_named(kitti_tree, tmp_path):
    tree = kitti_tree(frames=12)
    second_of_rank_1 = epoch_batches(20, batch_size=2, seed=0, epoch=0, rank=1, world=2)[1][0]
    folder, number, side = (tree / "split" / "train_files.txt").read_text().splitlines()[second_of_rank_1].split()
    frame = tree / folder / {"l": "image_02", "r": "image_03"}[side] / "data" / f"{int(number):010d}.jpg"
    frame.write_bytes(frame.read_bytes()[:200])
    with ranks_by_hand([md_train(*options(tree, tmp_path, "run", "--max_steps", "4"))] * 2) as runs:
        message = refusal(runs)
    assert str(frame) in message


@pytest.mark.slow
def test_a_full_disk_is_reported_once(tree, tmp_path):
    command = md_train(*options(tree, tmp_path, "run", "--max_steps", "4"))
    limited = ["bash", "-c", 'ulimit -f 20000 && exec "$@"', "bash", *command]
    with ranks_by_hand([limited, command]) as runs:
        message = refusal(runs)
    assert "encoder.pth" in message
    assert "File too large" in message
