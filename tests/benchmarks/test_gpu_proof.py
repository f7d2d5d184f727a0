"""make gpu-proof: its parts fit into its budget, and what fails, overruns or is interrupted is recorded and the next one runs."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpu_results import WHERE

from benchmarks import gpu_proof, harness, part_process
from benchmarks.gpu_plan import BUDGET_S, FIRST_TESTS, OWN_S, PLAN, Part, gpu_tests, planned_s, time_for
from benchmarks.gpu_proof import Proof, main
from benchmarks.gpu_targets import STEP, TRAIN
from benchmarks.harness import circumstances, load
from benchmarks.part_process import Stop
from benchmarks.part_report import complaint, read_report
from benchmarks.row_process import PROJECT
from benchmarks.table import TABLES
from dataload.system import machine
from splits.errors import InputError

WRITTEN = {"circumstances": WHERE, "rows": {"plain fp32": {"ms": 1.0}}}
WRITES = f"import json, os, pathlib; pathlib.Path(os.environ['MD_RESULTS'], '{STEP}.json').write_text(json.dumps({WRITTEN}))"


def part(name: str, code: str, *, result: str | None = STEP, estimate_s: int = 5, needs: tuple[str, ...] = ()) -> Part:
    return Part(name, estimate_s, "", needs, ("-c", code), (), result)


def proof_of(folder: Path, *parts: Part, budget_s: float = 300) -> dict[str, dict]:
    """What became of the parts, by name, as the JSON tells it."""
    proof = Proof(folder, budget_s, time.monotonic(), Stop(), is_rehearsal=True)
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
    assert parts["raises"]["outcome"] == 'failed: File "<string>", line 1, in <module>\nZeroDivisionError: division by zero'
    assert parts["raises"]["left_out"] == ["a row: no provider"]
    assert parts["next"]["outcome"] == "ok"
    shown = (tmp_path / "gpu_proof.md").read_text()
    assert "| fails | failed: Error: no such thing<br>at all |" in shown
    assert "- a row: no provider" in shown
    assert "| plain fp32 | 1.00 |" in shown
    assert shown.endswith("\nThe whole output: `gpu_proof.log`.\n")
    assert "ZeroDivisionError" in (tmp_path / "gpu_proof.log").read_text()


def test_a_part_that_takes_too_long_is_ended_with_all_it_started_and_its_results_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(part_process, "GRACE_S", 1)
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    child = f"child = subprocess.Popen([sys.executable, '-c', {stubborn + '; time.sleep(600)'!r}]); print('child', child.pid, flush=True)"
    code = f"{WRITES}; {stubborn}; {child}; time.sleep(600)"
    parts = proof_of(tmp_path, part("endless", code, estimate_s=2), part("next", "pass"), budget_s=OWN_S + 8)
    assert parts["endless"]["outcome"].startswith("ended: it took longer than ")
    assert "plain fp32" in (tmp_path / "gpu_proof.md").read_text()
    (pid,) = [int(line.split()[1]) for line in (tmp_path / "gpu_proof.log").read_text().splitlines() if line.startswith("child")]
    assert parts["next"]["outcome"].startswith("left out: about 5 s are planned for it, and ")
    assert has_ended(pid)


def has_ended(pid: int) -> bool:
    """Whether the process is gone, within ten seconds."""
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.1)
    return False


ENDLESS = (
    "import json, os, pathlib, tempfile, time\n"
    "pathlib.Path(os.environ['MD_RESULTS'], 'part.json').write_text(json.dumps([os.getpid(), tempfile.mkdtemp()]))\n"
    "try: time.sleep(600)\n"
    "except KeyboardInterrupt: print('asked', flush=True)\n"
    "time.sleep(600)\n"  # it has to be killed
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_part_and_its_page_and_results_are_kept(tmp_path, number):
    program = (
        "from benchmarks import gpu_plan, gpu_proof, part_process\n"
        f"gpu_proof.PLAN = tuple(gpu_plan.Part(name, 5, '', (), ('-c', {ENDLESS!r}), (), None) for name in ('endless', 'next'))\n"
        "gpu_proof.gpu_tests = list\n"
        "part_process.GRACE_S = 0.5\n"
        f"gpu_proof.main(['--parts', 'endless next', '--out', {str(tmp_path / 'out')!r}])\n"
    )
    started = tmp_path / "out" / "part.json"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs the tests by nohup ignores SIGHUP, and so would the proof.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as proof:
        while not (started.is_file() and started.read_text()) and proof.poll() is None:
            time.sleep(0.05)
        proof.send_signal(number)
        said, _ = proof.communicate(timeout=120)
    assert proof.returncode == 128 + number, said
    pid, temporary = json.loads(started.read_text())
    assert has_ended(pid)
    assert not Path(temporary).exists()
    assert "\nasked\n" in (tmp_path / "out" / "gpu_proof.log").read_text()
    (kept,) = json.loads((tmp_path / "out" / "gpu_proof.json").read_text())["parts"]
    assert (kept["name"], kept["outcome"]) == ("endless", f"interrupted by {number.name}")
    assert f"| endless | interrupted by {number.name} |" in (tmp_path / "out" / "gpu_proof.md").read_text()
    assert said.endswith("Interrupted\n")


def test_a_signal_that_was_ignored_stays_so_but_not_for_the_parts(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from benchmarks.part_process import asked_to_stop, run_within\n"
        "with asked_to_stop() as stop, open(os.devnull, 'w') as log:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    code = 'import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)'\n"
        "    sys.exit(run_within([sys.executable, '-c', code], 60, log, os.environ, stop))\n"
    )
    ignoring = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program]
    assert subprocess.run(ignoring, cwd=PROJECT, check=False).returncode == 0


@pytest.mark.parametrize("text", ['{"circumstances": {', "[]", "{}", ""])
def test_a_result_cut_short_is_its_parts_failure(tmp_path, text):
    cut = f"import os, pathlib; pathlib.Path(os.environ['MD_RESULTS'], '{STEP}.json').write_text({text!r})"
    parts = proof_of(tmp_path, part("cut", cut), part("next", "pass", result=None))
    assert parts["cut"]["outcome"] == f"failed: {STEP}.json is no result of a benchmark, or not all of it; run that benchmark again"
    assert parts["next"]["outcome"] == "ok"


def test_a_result_is_saved_whole_or_not_at_all(tmp_path):
    harness.save("it", {"rows": {}}, tmp_path)
    with pytest.raises(TypeError):
        harness.save("it", {"rows": {}, "later": object()}, tmp_path)
    link = tmp_path / "held"
    link.hardlink_to(tmp_path / "it.json")
    harness.save("it", {"rows": {"new": {}}}, tmp_path)
    # The old file was replaced, never opened for writing.
    assert json.loads(link.read_text())["rows"] == {}
    saved = load("it", tmp_path)
    assert saved is not None
    assert saved["rows"] == {"new": {}}
    assert load("other", tmp_path) is None
    (tmp_path / "it.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"it\.json is no result"):
        load("it", tmp_path)


def test_what_is_not_installed_or_has_no_time_left_is_left_out_by_name(tmp_path):
    parts = proof_of(tmp_path, part("a", "pass", needs=("json", "no_such")), part("b", "pass", estimate_s=400), part("c", "pass"))
    assert parts["a"]["outcome"] == "left out: no_such is not installed"
    assert proof_of(tmp_path / "more", part("a", "", needs=("no_a", "no_b")))["a"]["outcome"] == "left out: no_a, no_b are not installed"
    assert parts["b"]["outcome"].startswith("left out: about 400 s are planned for it, and ")
    assert parts["c"]["outcome"] == "ok"


def test_time_that_one_part_leaves_is_for_the_next_and_no_part_takes_all():
    step = part("step", "pass", estimate_s=100)
    assert time_for(step, left_s=500, later_s=200) == 300
    assert time_for(step, left_s=300, later_s=200) == 150
    assert time_for(step, left_s=120, later_s=200) == 120


def kept_result(commit: str, **others: object) -> str:
    """Code of a part that writes a result of that commit."""
    found = {"circumstances": circumstances() | {"commit": commit} | others, "rows": {"plain fp32": {"ms": 1.0}}}
    return f"import os, pathlib; pathlib.Path(os.environ['MD_RESULTS'], '{STEP}.json').write_text({json.dumps(found)!r})"


def test_parts_that_run_again_complete_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "source_commit", lambda: "abc")
    monkeypatch.setattr(gpu_proof, "PLAN", (part("step", ""), part("train", "", result=TRAIN)))
    proof_of(tmp_path, part("step", kept_result("abc")), part("train", "1 / 0", result=TRAIN))
    parts = proof_of(tmp_path, part("train", "pass", result=TRAIN), part("step", "pass", needs=("no_such",)))
    assert {name: kept["outcome"] for name, kept in parts.items()} == {"step": "ok", "train": "ok"}
    shown = (tmp_path / "gpu_proof.md").read_text()
    assert "| plain fp32 | 1.00 |" in shown
    log = (tmp_path / "gpu_proof.log").read_text()
    assert "1 / 0" in log
    assert log.count("$ ") == 3
    # What ran again and wrote nothing has no result.
    proof_of(tmp_path, part("step", "1 / 0"))
    assert "| plain fp32 | 1.00 |" not in (tmp_path / "gpu_proof.md").read_text()


@pytest.mark.parametrize(("commit", "others"), [("abc", {}), ("abc + changes", {}), ("def", {"gpu": "NVIDIA A100"}), (None, {})])
def test_results_of_other_code_or_another_gpu_are_not_shown(tmp_path, monkeypatch, capsys, commit, others):
    now = None if commit is None else commit if "+" in commit else "def"
    monkeypatch.setattr(harness, "source_commit", lambda: commit)
    monkeypatch.setattr(harness, "gpu_model", lambda: others.get("gpu"))
    proof_of(tmp_path, part("step", kept_result(commit)))
    assert "| plain fp32 | 1.00 |" in (tmp_path / "gpu_proof.md").read_text()
    monkeypatch.setattr(harness, "source_commit", lambda: now)
    monkeypatch.setattr(harness, "gpu_model", lambda: None)
    assert list(proof_of(tmp_path, part("train", "pass", result=TRAIN))) == ["train"]
    assert "| plain fp32 | 1.00 |" not in (tmp_path / "gpu_proof.md").read_text()
    assert "the page starts empty" in capsys.readouterr().out


def test_an_earlier_proof_cut_short_says_nothing(tmp_path):
    (tmp_path / "gpu_proof.json").write_text('{"parts": [')
    assert proof_of(tmp_path, part("a", "pass"))["a"]["outcome"] == "ok"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_commit_tells_whether_the_code_was_changed(tmp_path, monkeypatch):
    source = tmp_path / "a" / "b" / "machine.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(machine, "__file__", str(source))
    assert machine.source_commit() is None
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm a"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    commit = machine.source_commit()
    assert commit
    assert " " not in commit
    (tmp_path / "page.md").write_text("a table")
    assert machine.source_commit() == commit
    new = source.with_name("new.py")
    new.write_text("")
    assert machine.source_commit() == f"{commit} + changes"
    new.unlink()
    source.write_text("1")
    assert machine.source_commit() == f"{commit} + changes"


def test_failed_tests_are_counted_and_say_why_and_none_keeps_the_others_from_running(tmp_path, monkeypatch):
    """By the command of the plan, on files of which two cannot be read."""
    files = {
        "test_a.py": "def :",
        "test_b.py": "import no_such_module",
        "test_c.py": "import pytest\npytestmark = pytest.mark.gpu\ndef test_a(): pass\ndef test_b(): assert 1 + 1 == 3\n"
        "@pytest.mark.skip(reason='no x')\ndef test_c(): pass\n@pytest.fixture\ndef broken(): 1 / 0\ndef test_d(broken): pass\n"
        "@pytest.mark.parametrize('x', range(3))\ndef test_e(x): assert not x + 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(gpu_proof, "gpu_tests", lambda: [str(tmp_path / name) for name in files])
    kept = proof_of(tmp_path / "out", PLAN[0])["tests"]
    # A file's name begins with folders where it and the project lie below the same one.
    lines = re.sub(r"[\w.-]+\.(test_[abc])\b", r"\1", kept["outcome"]).splitlines()
    assert lines[0].startswith("failed; tests: 1 passed, 7 failed, 1 skipped: test_a: File ")
    assert lines[0].endswith('test_a.py", line 1 SyntaxError: invalid syntax')
    assert lines[1] == "test_b: ModuleNotFoundError: No module named 'no_such_module'"
    assert lines[2].startswith("test_c::test_b: assert (1 + 1) == 3")
    assert lines[3].startswith('test_c::test_d: failed on setup with "ZeroDivisionError: division by zero"')
    assert lines[5:] == ["failed, too: test_c::test_e[1], test_c::test_e[2]"]
    assert kept["left_out"] == ["1 test: no x"]


def test_a_report_that_is_cut_short_counts_nothing(tmp_path):
    (tmp_path / "tests.xml").write_text("<testsuites><testsuite>")
    assert read_report(tmp_path / "tests.xml") is None
    assert read_report(tmp_path / "none.xml") is None


def test_a_complaint_is_an_error_a_tracebacks_last_place_or_the_last_line():
    assert complaint("one\nError: it fails\nfor this\n") == "Error: it fails\nfor this"
    trace = f'Traceback:\n  File "a.py", line 1, in f\n    g()\n  File "{PROJECT}/b.py", line 2, in g\n    h(\n    ^^\nE: no\n  at'
    assert complaint(trace) == 'File "b.py", line 2, in g\nE: no\nat'
    assert complaint("one\n\ntwo\n\n") == "two"
    assert complaint("") == "it wrote nothing"


def test_a_part_that_was_killed_says_so(tmp_path):
    outcome = proof_of(tmp_path, part("a", "import os; os.kill(os.getpid(), 9)"))["a"]["outcome"]
    assert outcome == "failed (Killed): it wrote nothing"
    code = "import faulthandler; faulthandler.enable(); faulthandler._sigsegv()"
    outcome = proof_of(tmp_path, part("b", code))["b"]["outcome"]
    assert outcome.startswith("failed (Segmentation fault): Fatal Python error: Segmentation fault")
