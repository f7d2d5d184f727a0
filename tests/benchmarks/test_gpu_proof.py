"""make gpu-proof: its parts fit into its budget, what fails or overruns is recorded and the next one runs, and all of it is rehearsed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_proof
from benchmarks.gpu_proof import BUDGET_S, FIRST_TESTS, OWN_S, PLAN, Part, Proof, gpu_tests, main, planned_s, read_report, time_for
from benchmarks.gpu_targets import INFERENCE, STEP, TARGETS, TRAIN, compare, page
from benchmarks.harness import RESULTS
from benchmarks.row_process import PROJECT
from benchmarks.table import TABLES

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device this is no rehearsal")
WHERE = {
    "cpu": "c",
    "gpu": "NVIDIA H200",
    "cores": 16,
    "python": "3",
    "versions": {"torch": "2", "triton": "1"},
    "commit": "abc",
    "command": "python -m x",
}
WRITTEN = {"circumstances": WHERE, "rows": {"plain fp32": {"ms": 1.0}}}
WRITES = f"import json, os, pathlib; pathlib.Path(os.environ['MD_RESULTS'], '{STEP}.json').write_text(json.dumps({WRITTEN}))"


def part(name: str, code: str, *, result: str | None = STEP, estimate_s: int = 5, needs: tuple[str, ...] = ()) -> Part:
    return Part(name, estimate_s, "", needs, ("-c", code), (), result)


def proof_of(folder: Path, *parts: Part, budget_s: float = 300) -> dict[str, dict]:
    """What became of the parts, by name, as the JSON tells it."""
    proof = Proof(folder, budget_s, time.monotonic(), is_rehearsal=True)
    for each in parts:
        proof.take(each, later_s=0)
    return {kept["name"]: kept for kept in json.loads((folder / "gpu_proof.json").read_text())["parts"]}


def test_the_plan_fits_into_nine_minutes_and_is_shown():
    assert planned_s() == OWN_S + sum(each.estimate_s for each in PLAN) <= BUDGET_S == 540
    shown = CliRunner().invoke(main, ["--plan"], catch_exceptions=False).output
    for each in PLAN:
        assert f"{each.estimate_s} s  {each.why}" in shown
    assert shown.splitlines()[-1].split() == ["together", str(planned_s()), "s"]
    assert [each.name for each in PLAN] == ["tests", "step", "loader", "train", "inference"]
    assert {each.result for each in PLAN if each.result} <= set(TABLES)


def test_tests_of_the_most_worth_come_first_and_none_is_missing():
    found = gpu_tests()
    assert found[: len(FIRST_TESTS)] == list(FIRST_TESTS)
    assert all((PROJECT / name).is_file() for name in found)
    assert "tests/dataload/pipeline/test_device_graph.py" in found
    assert not any(name.startswith("tests/benchmarks") for name in found)


def test_a_part_that_fails_is_recorded_with_its_error_and_the_next_one_finds_what_was_written(tmp_path):
    there = f"import json, os; assert json.load(open(os.environ['MD_RESULTS'] + '/{STEP}.json'))['rows']"
    parts = proof_of(
        tmp_path,
        part("fails", f"{WRITES}; import sys; print('Error: no such thing\\nat all'); sys.exit(1)"),
        part("raises", "print('left out: a row: no provider'); 1 / 0", result=None),
        part("next", f"{there}; assert json.load(open(os.environ['MD_RESULTS'] + '/gpu_proof.json'))['parts']", result=TRAIN),
    )
    assert parts["fails"]["outcome"] == "failed: Error: no such thing\nat all"
    assert parts["raises"]["outcome"] == "failed: ZeroDivisionError: division by zero"
    assert parts["raises"]["left_out"] == ["a row: no provider"]
    assert parts["next"]["outcome"] == "ok"
    shown = (tmp_path / "gpu_proof.md").read_text()
    assert "| fails | failed: Error: no such thing<br>at all |" in shown
    assert "- a row: no provider" in shown
    assert "| plain fp32 | 1.00 |" in shown
    assert "ZeroDivisionError" in (tmp_path / "gpu_proof.log").read_text()


def test_a_part_that_takes_too_long_is_ended_with_all_it_started_and_its_results_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_proof, "GRACE_S", 1)
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    child = f"child = subprocess.Popen([sys.executable, '-c', {stubborn + '; time.sleep(600)'!r}]); print('child', child.pid, flush=True)"
    code = f"{WRITES}; {stubborn}; {child}; time.sleep(600)"
    parts = proof_of(tmp_path, part("endless", code, estimate_s=2), part("next", "pass"), budget_s=OWN_S + 8)
    assert parts["endless"]["outcome"].startswith("ended: it took longer than ")
    assert "plain fp32" in (tmp_path / "gpu_proof.md").read_text()
    (pid,) = [int(line.split()[1]) for line in (tmp_path / "gpu_proof.log").read_text().splitlines() if line.startswith("child")]
    assert parts["next"]["outcome"].startswith("left out: about 5 s are planned for it, and ")
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the part had started still runs")


def test_what_is_not_installed_or_has_no_time_left_is_left_out_by_name(tmp_path):
    parts = proof_of(tmp_path, part("a", "pass", needs=("json", "no_such_module")), part("b", "pass", estimate_s=400), part("c", "pass"))
    assert parts["a"]["outcome"] == "left out: no_such_module is not installed"
    assert parts["b"]["outcome"].startswith("left out: about 400 s are planned for it, and ")
    assert parts["c"]["outcome"] == "ok"


def test_time_that_one_part_leaves_is_for_the_next_and_no_part_takes_all():
    step = part("step", "pass", estimate_s=100)
    assert time_for(step, left_s=500, later_s=200) == 300
    assert time_for(step, left_s=300, later_s=200) == 150
    assert time_for(step, left_s=120, later_s=200) == 120


def test_results_of_an_earlier_run_are_not_shown(tmp_path):
    old = tmp_path / f"{STEP}.json"
    old.write_text(json.dumps({"rows": {"plain fp32": {"ms": 1.0}}}))
    os.utime(old, (1, 1))
    proof_of(tmp_path, part("fails", "1 / 0"))
    assert "plain fp32" not in (tmp_path / "gpu_proof.md").read_text().split("## Parts")[1]


def test_a_report_of_tests_is_counted_and_names_what_failed(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip(reason='no x')\ndef test_c(): pass\n"
        "@pytest.fixture\ndef broken(): 1 / 0\ndef test_d(broken): pass\n"
    )
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", str(tmp_path)], cwd=tmp_path, capture_output=True, check=False
    )
    assert read_report(report) == (", 1 tests passed, 2 failed, 1 skipped (test_b; test_d)", ["1 tests: no x"])


def results() -> dict[str, dict]:
    rows = {
        "plain fp32": {"ms": 30.0},
        "plain half precision, channels_last, compiled, bfloat16": {"ms": 12.0},
        "ours as md-train runs it, bfloat16": {"ms": 6.0, "times_plain": 5.0},
        "loss alone, plain": {"ms": 9.0},
        "loss alone, ours as md-train runs it": {"ms": 0.8},
    }
    train = {"from files": {"samples_per_s": 1.0, "wait_share": 0.9}, "frame store on disk": {"samples_per_s": 1700.0, "wait_share": 0.04}}
    one, many = "640x192, batch 1: ", "640x192, batch 16: "
    inference = {
        one + "a": {"ms": 0.3, "samples_per_s": 3333.0},
        one + "b": {"ms": 0.5, "samples_per_s": 2000.0},
        one + "absent": {},
        many + "a": {"ms": 3.0, "samples_per_s": 5333.0},
    }
    profiles = {
        STEP: {"loss alone, ours as md-train runs it": [["kernel_of_loss", 3.0, 0.5, 0.7]]},
        INFERENCE: {many + "a": [["conv", 1, 1, 1]]},
    }
    found = {STEP: rows, TRAIN: train, INFERENCE: inference}
    return {name: {"circumstances": WHERE, "rows": found[name], "profiles": profiles.get(name, {})} for name in found}


def test_goals_are_compared_on_the_gpu_they_are_for():
    rows = compare(results(), "NVIDIA H200")
    assert [row["met"] for row in rows.values()] == ["yes", "yes", "yes", "no", "yes", "no", "yes", "no"]
    assert rows["losses and their gradients"] == {"goal": "at most 0.60 ms", "measured": "0.80 ms", "met": "no"}
    assert rows["training step, times plain half precision, compiled"]["measured"] == "2.00"
    assert rows["prediction of one image of 640x192"]["measured"] == "0.30 ms"
    other = compare(results(), "NVIDIA A100")
    assert {row["met"] for row in other.values()} == {"–"}
    assert [row["measured"] for row in other.values()] == [row["measured"] for row in rows.values()]
    nothing = compare({}, "NVIDIA H200")
    assert {row["measured"] for row in nothing.values()} == {row["met"] for row in nothing.values()} == {"–"}
    assert len(TARGETS) == 8


def test_the_page_shows_where_the_time_of_a_missed_goal_goes():
    found = results()
    proof = {"circumstances": found[STEP]["circumstances"], "is_rehearsal": False, "parts": [], "rows": compare(found, "NVIDIA H200")}
    shown = page(proof, found)
    assert "| `kernel_of_loss` | 3.0 | 0.500 | 70% |" in shown
    assert "`conv`" in shown
    assert "NVIDIA H200, 16 cores; Python 3, torch 2, triton 1" in shown
    found[STEP]["rows"]["loss alone, ours as md-train runs it"]["ms"] = 0.5
    assert "kernel_of_loss" not in page(proof | {"rows": compare(found, "NVIDIA H200")}, found)


@NO_CUDA
def test_a_rehearsal_never_writes_to_the_results():
    done = CliRunner().invoke(main, ["--out", str(RESULTS)])
    assert done.exit_code == 1
    assert "a rehearsal's figures must not take the place of results" in done.output
    assert "--parts: there is no steps; the parts are tests, step" in CliRunner().invoke(main, ["--parts", "steps"]).output


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
    assert parts["tests"]["outcome"].startswith("ok, 0 tests passed, 0 failed, ")
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
