"""md-data as a newcomer meets it; exit status 0, 1, 2, 130 and one line for what the user can mend."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner, Result

import splits
from dataload.commands.command import Command, Group, usage_errors
from dataload.commands.md_data import md_data
from dataload.datasets.kitti import KittiRaw
from dataload.ground_truth import read_ground_truth
from dataload.system.machine import usable_cores
from splits.errors import InputError


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(md_data, [str(arg) for arg in args])


@pytest.fixture
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


def test_help_names_the_commands() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("splits", "gt", "demo"))


def test_it_says_its_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output.startswith("md-data, version ")) == (0, True)


@pytest.mark.parametrize("command", ["splits", "gt", "demo"])
def test_each_command_has_help(command: str) -> None:
    assert run(command, "--help").exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from dataload.commands.md_data import md_data; md_data(['gt', '--help'], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'PIL', 'nvidia'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_mistyped_command() -> None:
    result = run("split")
    assert result.exit_code == 2
    assert "no such command 'split'; did you mean 'splits'?" in result.output
    assert "choose from check, demo, doctor, download, from-bag, from-video, gt, jpeg, splits, store" in run("zzz").output


def test_splits_table_and_files(tmp_path: Path) -> None:
    table = run("splits").output
    assert "eigen_zhou       train     39810" in table
    assert "66 archives" in table
    result = run("splits", "--write", tmp_path)
    assert result.exit_code == 0
    assert all(Path(line).is_file() for line in result.output.splitlines())
    assert splits.read_lines(str(tmp_path / "eigen"), "test") == splits.read_lines("eigen", "test")


def test_gt_into_the_split_folder(tree: Path) -> None:
    result = run("gt", "--data_path", tree, "--split", tree / "split")
    assert result.exit_code == 0, result.output
    path = tree / "split" / "gt_depths.npz"
    assert f"8 depth maps in {path}: " in result.output
    refs = KittiRaw(tree).read(str(tree / "split"), "test")
    depths = list(read_ground_truth(path, refs))
    assert f": {sum(depth.values_m.size for depth in depths):,} measured pixels" in result.output
    assert (depths[3].dense() == KittiRaw(tree, ".jpg").eval_depth_m(refs[3])).all()


def test_gt_into_a_named_file(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "mine.npz"
    assert run("gt", "--data_path", tree, "--split", tree / "split", "--out", out).exit_code == 0
    assert out.is_file()


def late_split(folder: Path) -> Path:
    """A split of one frame of another date."""
    (folder / "late").mkdir()
    (folder / "late" / "test_files.txt").write_text("2011_09_28/2011_09_28_drive_0001_sync 7 l\n")
    return folder / "late"


def write_repeated(tree: Path, folder: Path, times: int) -> Path:
    """A split with the tree's test frames many times over."""
    folder.mkdir()
    (folder / "test_files.txt").write_text((tree / "split" / "test_files.txt").read_text() * times)
    return folder


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="sends Ctrl-C as a terminal does")
@pytest.mark.parametrize(
    ("wait_s", "number", "said"),
    [
        (0, signal.SIGINT, "Interrupted"),
        (0.5, signal.SIGINT, "Interrupted"),
        (0.5, signal.SIGTERM, "Terminated"),
        (0.5, signal.SIGHUP, "Terminated"),
    ],
)
def test_interrupt_ends_at_once_and_leaves_nothing(tree: Path, tmp_path: Path, wait_s: float, number: int, said: str) -> None:
    split = write_repeated(tree, tmp_path / "split", 4000)
    call = [
        sys.executable,
        "-c",
        "from dataload.commands.md_data import md_data; md_data()",
        "gt",
        "--data_path",
        str(tree),
        "--split",
        str(split),
    ]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(split.glob(".gt_depths.*.tmp*")):  # the file is begun before the depths are
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(wait_s)
    assert process.poll() is None
    os.killpg(process.pid, number)
    start = time.monotonic()
    output, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert (process.returncode, output) == (128 + number, "")
    assert said in errors
    assert "Traceback" not in errors
    assert [path.name for path in split.iterdir()] == ["test_files.txt"]


@pytest.mark.skipif(usable_cores() < 2, reason="one core renders without processes")
def test_ctrl_c_while_the_demos_processes_start_is_one_line(tmp_path: Path) -> None:
    program = "from dataload.commands.md_data import md_data; md_data(['demo', '--out', 'world'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not psutil.Process(process.pid).children():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.05)  # within the first lines that Python runs of its own
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "Interrupted"
    assert not (tmp_path / "world").exists()


def test_gt_faults(tree: Path, tmp_path: Path) -> None:
    wrong_path = run("gt", "--data_path", tmp_path / "nowhere", "--split", tree / "split")
    assert (wrong_path.exit_code, wrong_path.output.count("\n")) == (1, 1)
    assert wrong_path.output.startswith("Error: data_path ")
    typo = run("gt", "--data_path", tree, "--split", "eigne")
    assert typo.exit_code == 2
    assert "did you mean 'eigen'?" in typo.output
    no_path = run("gt", "--split", "eigen")
    assert no_path.exit_code == 2
    assert "--data_path is missing" in no_path.output
    no_scan = run("gt", "--data_path", tree, "--split", "eigen")
    assert no_scan.exit_code == 1
    assert no_scan.output.startswith(f"Error: 697 laser scans of 697 missing from {tree}: ")
    assert "2011_09_26_drive_0002_sync/velodyne_points/data/0000000069.bin, " in no_scan.output
    assert "unpack KITTI raw's 2011_09_26_drive_0002_sync.zip, 2011_09_26_drive_0009_sync.zip, " in no_scan.output
    assert "2011_09_28_calib.zip" in run("gt", "--data_path", tree, "--split", late_split(tmp_path)).output
    no_annotation = run("gt", "--data_path", tree, "--split", "eigen_benchmark")
    assert no_annotation.exit_code == 1
    assert no_annotation.output.startswith(f"Error: 652 annotated depths of 652 missing from {tree}: ")
    assert "proj_depth/groundtruth/image_02/0000000069.png, " in no_annotation.output
    assert "unpack KITTI's data_depth_annotated.zip" in no_annotation.output
    level_off = run("gt", "--data_path", tree / "2011_09_26", "--split", tree / "split")
    assert f"they lie under {tree}: give that as data_path" in level_off.output
    unwritable = run("gt", "--data_path", tree, "--split", tree / "split", "--out", tree / "split" / "test_files.txt" / "gt.npz")
    assert (unwritable.exit_code, unwritable.output.count("\n")) == (1, 1)
    assert "cannot be written" in unwritable.output
    anonymous = run("gt", "--data_path", tree, "--split", "benchmark")
    assert anonymous.exit_code == 1
    assert "whose ground truth only the benchmark's server has" in anonymous.output
    without_depth = run("gt", "--dataset", "kitti_odom", "--data_path", tree, "--split", tree / "split")
    assert without_depth.exit_code == 1
    assert "dataset kitti_odom has no ground-truth depth" in without_depth.output
    shutil.copytree(tree / "split", tmp_path / "split")
    (tmp_path / "split" / "test_files.txt").write_text("drive 0 l\ndrive one l\n")
    malformed = run("gt", "--data_path", tree, "--split", tmp_path / "split")
    assert malformed.exit_code == 1
    assert "test_files.txt, line 2: 'drive one l'" in malformed.output


def test_as_a_process_of_its_own(tree: Path) -> None:
    program = "from dataload.commands.md_data import md_data; md_data()"
    call = [sys.executable, "-c", program, "gt", "--data_path", str(tree / "nowhere"), "--split", "eigen"]
    result = subprocess.run(call, capture_output=True, text=True, cwd=tree, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: data_path ")
    assert len(result.stderr.splitlines()) == 1


FULL = "free some room on that disk, or name a place on another"


def command_raising(error: BaseException) -> Command:
    def body() -> None:
        raise error

    return Command("probe", callback=body)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("what, where, remedy"), 1, "Error: what, where, remedy\n"),
        (OSError(28, "No space left on device", "weights.pth"), 1, f"Error: weights.pth: No space left on device; {FULL}\n"),
        (OSError(28, "No space left on device", "/tmp/from", None, "full/to"), 1, f"Error: full/to: No space left on device; {FULL}\n"),
        (OSError("plain"), 1, "Error: plain\n"),
        (KeyboardInterrupt(), 130, "Interrupted\n"),
    ],
)
def test_faults_become_one_line(error: BaseException, status: int, line: str) -> None:
    for command in (command_raising(error), Group("group", commands={"probe": command_raising(error)})):
        result = CliRunner().invoke(command, ["probe"] if isinstance(command, Group) else [])
        assert (result.exit_code, result.output) == (status, line)


@pytest.mark.parametrize("error", [ValueError("a bug"), AssertionError("an invariant"), RuntimeError("a bug")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        CliRunner().invoke(command_raising(error), catch_exceptions=False)


def test_usage_errors_exit_with_2() -> None:
    def body() -> None:
        with usage_errors():
            raise InputError("height_px=190 must be a multiple of 32")

    result = CliRunner().invoke(Command("probe", callback=body))
    assert result.exit_code == 2
    assert "Error: height_px=190 must be a multiple of 32" in result.output


def test_a_callbacks_input_error_is_wrong_usage() -> None:
    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        raise InputError(f"value {value} is wrong")

    result = CliRunner().invoke(
        Command("probe", params=[click.Option(["--value"], callback=check)], callback=lambda value: None), ["--value", "3"]
    )
    assert result.exit_code == 2
    assert "Error: value 3 is wrong" in result.output
