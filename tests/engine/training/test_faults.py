"""Faults in the middle of a run, as processes: what is sound is saved, one line says what, where and how to go on, and nothing hangs."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from engines import stereo_networks
from kitti_tree import drive_folder
from training_runs import MD_TRAIN, STEREO, options, start

from engine.commands.md_train import md_train
from engine.weights import InputSize, save_weights

MENDED = "mend that, then repeat the command with --resume"
# What happens to a run when it has made so many steps: {what} is a statement.
AT_STEP = """
import os, shutil, signal, subprocess
from pathlib import Path
from engine.training.run import Run

after_step = Run.after_step

def after_step_and_fault(self, *args):
    after_step(self, *args)
    if self.position.global_step == {step}:
        {what}

Run.after_step = after_step_and_fault
"""


def at_step(step: int, what: str) -> str:
    """md-train in which something happens after a step."""
    return AT_STEP.format(step=step, what=what) + MD_TRAIN


@pytest.fixture(scope="module")
def whole_tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples, 5 steps per epoch


@pytest.fixture
def tree(whole_tree: Path, tmp_path: Path) -> Path:
    """The test's own copy."""
    return shutil.copytree(whole_tree, tmp_path / "kitti")


def image(tree: Path, number: int, camera: str = "image_02") -> Path:
    return tree / drive_folder("0001") / camera / "data" / f"{number:010d}.jpg"


def ended(arguments: list[str], program: str = MD_TRAIN, **environment: str) -> tuple[int, str]:
    """The exit status and output of a run; without the time-out a run that hangs would look like a slow machine."""
    process = start(arguments, program, **environment)
    try:
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    return process.returncode, output


def fault(output: str) -> str:
    """The one line that says why a run ended."""
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "Error: " in line]
    return line[line.index("Error: ") :]


def resumed(log_dir: Path, name: str, *extra: str) -> Result:
    return CliRunner().invoke(md_train, ["--log_dir", str(log_dir), "--model_name", name, "--resume", *extra])


def position_of(folder: Path) -> dict[str, float]:
    return torch.load(folder / "state.pt", weights_only=True)["position"]


def steps_logged(run_folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["mode"] == "train"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that takes two checkpoints of a stereo run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(disk)], check=False, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here, which root alone may")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


LOADED = ["--frame_store", "none", "--log_frequency", "1", "--num_workers", "0"]


def test_a_frame_that_is_damaged_in_mid_epoch_saves_the_step_before_and_skipping_it_goes_on(tree, tmp_path):
    damage = f"[path.write_bytes(path.read_bytes()[:900]) for path in Path({str(tree)!r}).rglob('image_02/data/000000000[4-6].jpg')]"
    arguments = options(tree, tmp_path, "damaged", *STEREO, *LOADED, "--max_steps", "7")
    status, output = ended(arguments, at_step(2, damage))
    line = fault(output)
    assert status == 1
    (saved,) = (tmp_path / "damaged" / "models").glob("step_*")
    assert "is a damaged image" in line
    assert line.endswith(f"restore the file, or leave it out. The run is saved in {saved}: {MENDED}")
    reached = position_of(saved)["global_step"]
    assert 2 <= reached < 5
    assert steps_logged(tmp_path / "damaged") == list(range(int(reached)))

    again = resumed(tmp_path, "damaged", "--bad_frames", "skip")
    assert again.exit_code == 0, again.output
    assert steps_logged(tmp_path / "damaged") == list(range(7))
    named = (tmp_path / "damaged" / "bad_frames.txt").read_text().splitlines()
    assert sorted({line.split(" is a damaged")[0] for line in named}) == [str(image(tree, number)) for number in (4, 5, 6)]
    assert "Bad frames  3 cannot be read and are skipped" in " ".join(again.output.split("\n"))


def test_a_validation_that_cannot_be_made_saves_the_epoch_before_it(tree, tmp_path):
    shutil.copytree(tree / drive_folder("0001"), tree / drive_folder("0002"))
    lines = "".join(f"{drive_folder('0002')} {number} l\n" for number in range(1, 6))
    (tree / "split" / "val_files.txt").write_text(lines)
    remove = f"Path({str(tree / drive_folder('0002') / 'image_02' / 'data' / '0000000003.jpg')!r}).unlink()"
    status, output = ended(options(tree, tmp_path, "unvalidated", *STEREO, *LOADED, "--num_epochs", "1"), at_step(2, remove))
    saved = tmp_path / "unvalidated" / "models" / "step_5"
    assert status == 1
    assert fault(output).endswith(f"The run is saved in {saved}: {MENDED}")
    assert "0000000003.jpg (No such file" in fault(output)
    shutil.copy(image(tree, 3), tree / drive_folder("0002") / "image_02" / "data" / "0000000003.jpg")
    again = resumed(tmp_path, "unvalidated")
    assert again.exit_code == 0, again.output
    assert "validation loss" in again.output
    assert [path.name for path in saved.parent.glob("*_*")] == ["weights_0"]


FILL = "os.system('dd if=/dev/zero of={disk}/filler bs=1M 2>/dev/null')"


@pytest.mark.slow
@pytest.mark.parametrize("saves", [True, False])
def test_a_full_disk_names_the_file_and_the_last_checkpoint(whole_tree, small_disk, saves):
    often = ["--save_every_steps", "1"] if saves else []
    arguments = options(whole_tree, small_disk, "full", *STEREO, *LOADED, "--max_steps", "5", *often)
    status, output = ended(arguments, at_step(2, FILL.format(disk=str(small_disk))))
    line, models = fault(output), small_disk / "full" / "models"
    assert status == 1
    assert f"{small_disk}/full/" in line
    assert "No space left on device" in line
    assert "free some room on that disk" in line
    kept = [path.name for path in models.glob("[!.]*_*")]
    if saves:
        assert kept == ["step_1"]
        assert line.endswith(f"The run is saved in {models / 'step_1'}: {MENDED}")
    else:
        assert kept == []
        assert re.search(r"\. Step \d could not be saved: ", line)
        assert line.endswith("Nothing of this run is saved yet: mend that, then start again")
    assert not list((small_disk / "full").rglob("*.tmp"))
    if saves:
        (small_disk / "filler").unlink()
        again = resumed(small_disk, "full")
        assert again.exit_code == 0, again.output
        assert steps_logged(small_disk / "full") == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_log_alone_saves_the_step(whole_tree, small_disk, tmp_path):
    """The log's files lie on another disk than the checkpoints, as links of the run folder."""
    run_folder = tmp_path / "linked"
    run_folder.mkdir()
    for name in ("train", "val"):
        (small_disk / name).mkdir()
        (run_folder / name).symlink_to(small_disk / name)
    arguments = options(whole_tree, tmp_path, "linked", *STEREO, *LOADED, "--max_steps", "40", "--num_epochs", "40")
    status, output = ended(arguments, at_step(2, FILL.format(disk=str(small_disk))))
    line = fault(output)
    (saved,) = (run_folder / "models").glob("step_*")
    assert status == 1
    assert line.startswith(f"Error: {run_folder / 'train'}: No space left on device; ")
    assert line.endswith(f"The run is saved in {saved}: {MENDED}")


@pytest.mark.slow
def test_a_run_folder_that_can_only_be_read_any_more_names_the_last_checkpoint(whole_tree, tmp_path):
    models = tmp_path / "readonly" / "models"
    arguments = options(whole_tree, tmp_path, "readonly", *STEREO, *LOADED, "--max_steps", "5", "--save_every_steps", "2")
    what = f"os.system('mount --bind {models} {models} && mount -o remount,ro,bind {models}')"
    try:
        status, output = ended(arguments, at_step(3, what))
    finally:
        is_read_only = subprocess.run(["umount", "-l", str(models)], check=False, capture_output=True).returncode == 0
    if not is_read_only:
        pytest.skip("nothing can be mounted here, which root alone may")
    line = fault(output)
    assert status == 1
    assert f"{models}/" in line
    assert "Read-only file system; that disk can only be read: name a place on another" in line
    assert line.endswith(f"The run is saved in {models / 'step_2'}: {MENDED}")
    again = resumed(tmp_path, "readonly")
    assert again.exit_code == 0, again.output


@pytest.mark.slow
def test_a_bug_between_two_steps_saves_the_step_and_keeps_its_traceback(whole_tree, tmp_path):
    program = at_step(2, "self.loaders.train._maker.source.read = None")
    status, output = ended(options(whole_tree, tmp_path, "bug", *STEREO, *LOADED, "--max_steps", "5"), program)
    (saved,) = (tmp_path / "bug" / "models").glob("step_*")
    assert status == 1
    assert "Traceback" in output
    assert f"is saved in {saved}" in " ".join(output.split("\n"))
    assert resumed(tmp_path, "bug").exit_code == 0


# What would be saved and could not be resumed, though no loss shows it.
INFINITE_MOMENT = "next(iter(self.engine.optimizer.state.values()))['exp_avg_sq'].fill_(float('inf'))"


@pytest.mark.parametrize(
    ("amp", "advice", "break_it"),
    [
        ("off", "", INFINITE_MOMENT),
        ("bf16", " or --amp off", "next(self.engine.networks.parameters()).data.fill_(float('inf'))"),
    ],
)
def test_a_run_that_diverges_is_told_what_may_help_and_what_is_there(whole_tree, tmp_path, amp, advice, break_it):
    arguments = options(whole_tree, tmp_path, "nan", *STEREO, *LOADED, "--max_steps", "4", "--amp", amp)
    status, output = ended(arguments, at_step(1, break_it))
    assert status == 1
    line = fault(output)
    assert line.startswith("Error: the loss or a weight became NaN or infinite by step ")
    assert line.endswith(f"; start again with a --learning_rate below 0.0001{advice}")
    assert not list((tmp_path / "nan" / "models").glob("*_*"))


def test_weights_that_are_no_numbers_are_told_from_a_run_that_diverges(whole_tree, tmp_path):
    networks = stereo_networks()
    networks.depth.decoder[10].conv.bias.data[0] = float("nan")
    save_weights(tmp_path / "weights", networks, InputSize(64, 96, True))
    given = ["--load_weights_folder", str(tmp_path / "weights"), "--models_to_load", "encoder", "depth"]
    arguments = options(whole_tree, tmp_path, "bad", *STEREO, *given, "--max_steps", "1")
    result = CliRunner().invoke(md_train, arguments)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"Error: {tmp_path / 'weights' / 'depth.pth'} is of no use: 1 of " in said
    assert "are NaN or infinite; the file is damaged, or the run that wrote it had diverged" in said
    assert not (tmp_path / "bad").exists() or not list((tmp_path / "bad").rglob("*.pth"))
