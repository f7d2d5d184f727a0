"""make gpu-proof as it is called: what is refused, and its rehearsal where there is no GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu_plan import PLAN
from benchmarks.gpu_proof import main
from benchmarks.harness import RESULTS
from benchmarks.row_process import PROJECT

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device this is no rehearsal")


@NO_CUDA
def test_a_rehearsal_never_writes_to_the_results():
    done = CliRunner().invoke(main, ["--out", str(RESULTS)])
    assert done.exit_code == 1
    assert "a rehearsal's figures must not take the place of results" in done.output


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--parts", "steps"], "--parts: there is no steps; the parts are tests, step"),
        (["--parts", " "], "--parts: no part is named; the parts are tests, step"),
        (["--parts", "tests", "--out", ""], "'--out': an empty path"),
        (["--parts", "tests", "--out", "{file}"], "is a file."),
        (["--parts", "tests", "--out", "{file}/below"], "a/below: Not a directory"),
        (["--parts", "tests", "--out", "/proc/none/below"], "/proc/none"),
        (["--budget", "0"], "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(tmp_path, options, error):
    (tmp_path / "a").write_text("")
    done = CliRunner().invoke(main, [option.format(file=tmp_path / "a") for option in options])
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit), done.exception
    assert error in done.output.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["gpu-proof", "test-gpu"])
def test_an_interpreter_without_the_packages_is_told_in_one_line(target):
    done = subprocess.run(["make", target, f"RUN={sys.executable} -S"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    told, failed = done.stderr.splitlines()
    assert told == f"{sys.executable} -S has no click, jaxtyping, numpy, psutil, torch, tqdm"
    assert failed.startswith("make")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_passes_on_what_is_chosen():
    words = ["make", "--no-print-directory", "-n", "gpu-proof", "PARTS=step train", "OUT=a b", "BUDGET=9", f"RUN={sys.executable}"]
    given = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert given.splitlines()[-1].endswith('-m benchmarks.gpu_proof --out "a b" --budget 9 --parts "step train"')


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which no process finds what the first machine with a GPU may lack."""
    hidden = ["nvidia.dali", "simplejpeg", "pooch", "platformdirs", "beartype"]
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "def other(cls, name, path=None, target=None):\n"
        f"    return None if name in {hidden} else find(name, path, target)\n"
        "PathFinder.find_spec = classmethod(other)\n"
    )
    return {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def rehearse(folder: Path, *options: str, environment: dict[str, str] | None = None) -> dict[str, dict]:
    """What became of the parts of a rehearsal in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gpu_proof", "--out", str(folder), "--budget", "5400", *options]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rehearsal: no CUDA device" in done.stdout
    return {kept["name"]: kept for kept in json.loads((folder / "gpu_proof.json").read_text())["parts"]}


@NO_CUDA
def test_tests_for_a_gpu_are_found_and_say_what_they_need(tmp_path, bare):
    parts = rehearse(tmp_path, "--parts", "tests", environment=bare)
    assert list(parts) == ["tests"]
    assert parts["tests"]["outcome"].startswith("ok; tests: 0 passed, 0 failed, ")
    assert len([line for line in parts["tests"]["left_out"] if line.endswith(" CUDA device")]) == 1
    assert sum(int(line.split()[0]) for line in parts["tests"]["left_out"]) > 30


@NO_CUDA
@pytest.mark.slow
def test_loading_and_training_are_rehearsed_without_what_may_be_missing(tmp_path, bare):
    parts = rehearse(tmp_path / "out", "--parts", "loader train", environment=bare)
    assert [kept["outcome"] for kept in parts.values()] == ["ok", "ok"]
    assert any(line.endswith("NVIDIA DALI is not installed") for line in parts["loader"]["left_out"])
    assert parts["train"]["left_out"] == ["frame store on the GPU: there is no GPU"]


@NO_CUDA
@pytest.mark.slow
def test_every_part_is_rehearsed_and_writes_only_where_it_is_asked_to(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()}
    parts = rehearse(tmp_path / "out")
    assert list(parts) == [each.name for each in PLAN]
    assert all(kept["outcome"].startswith("ok") for kept in parts.values())
    assert {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()} == before
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {*(f"{each.result}.json" for each in PLAN if each.result), "gpu_proof.json", "gpu_proof.md", "gpu_proof.log"}
    shown = (tmp_path / "out" / "gpu_proof.md").read_text()
    for row in ("plain half precision, channels_last, compiled", "loss alone, ours as md-train runs it", "frame store on disk"):
        assert f"| {row}" in shown
    assert "Where the time goes: ours as md-train runs it" in shown
    assert "onnxruntime, tensorrt, fp16: provider=tensorrt is not available" in shown
