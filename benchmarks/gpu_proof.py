"""Everything that only a GPU can show, within ten minutes and on one page: ``make gpu-proof``, or ``python -m benchmarks.gpu_proof``.

The parts are this project's GPU tests and benchmarks, in the order of their worth, each a process of its own. Each writes its results at
once. One that fails is recorded with its error, and the next one runs; so does one that takes too long, which is ended, and its results so
far are kept. What is not installed here is left out, by name. Without a GPU this is a rehearsal: the same parts run on the CPU, at small
sizes, and write elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

from benchmarks.gpu_targets import INFERENCE, LOADER, STEP, TRAIN, compare, page
from benchmarks.harness import REHEARSAL_VARIABLE, RESULTS, RESULTS_VARIABLE, gpu_model, save
from benchmarks.row_process import PROJECT
from benchmarks.table import fill_pages
from engine.training.compiling import keep_compiled

BUDGET_S = 540
# For this process's own start, and the page.
OWN_S = 15
# A part may take so many times what was planned for it, before it is ended.
OVERRUN = 1.5
# From the request to end until a process is killed: a benchmark ends at once, pytest writes its report first.
GRACE_S = 10
REHEARSAL_FOLDER = PROJECT / "build" / "gpu_rehearsal"
NAME, LOG = "gpu_proof", "gpu_proof.log"
# Whole files of tests come in this order, and all others that have tests for a GPU after them.
FIRST_TESTS = ("tests/engine/training/test_update.py", "tests/engine/loss/test_photometric_triton.py", "tests/dataload/test_loader.py")
# The other parts run all that these try.
NOT_TESTED = "tests/benchmarks"
LAST_LINES = 12
SMALL = ("--height=64", "--width=96", "--batch_size=2")


class Part(NamedTuple):
    """A part.

    Attributes:
        estimate_s: what it takes on an H200 with 16 cores; ``why`` adds it up.
        needs: modules without which it cannot run.
        command: what Python runs.
        small: options, which override those of the command, in a rehearsal.
        result: the name of the result that it writes; None of the tests.
    """

    name: str
    estimate_s: int
    why: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    small: tuple[str, ...]
    result: str | None


PLAN = (
    Part(
        "tests",
        70,
        "at small sizes: 15 s of imports and CUDA, 25 s of updates, 20 s for Triton to compile the kernels, 10 s of loading",
        ("pytest", "hypothesis"),
        ("-m", "pytest", "-m", "gpu", "-q"),
        (),
        None,
    ),
    Part(
        "step",
        200,
        "15 s of start; compiling takes 20 s for the plain loss, 10 s for ours, 80 s for the plain step, 50 s for ours; "
        "15 s of cuDNN's search, 10 s of timing",
        ("torchvision",),
        ("-m", "benchmarks.bench_step", "--gpu", "--rounds=20", "--save"),
        (*SMALL, "--rounds=1"),
        STEP,
    ),
    Part(
        "loader",
        60,
        "10 s of frames and start, three rounds of 10 s of the plain loader and 6 s of ours; with DALI no round begins after 25 s",
        ("torchvision", "psutil"),
        ("-m", "benchmarks.bench_loader", "--gpu", "--rounds=2", "--seconds=25", "--save"),
        (*SMALL, "--rounds=1", "--seconds=1"),
        LOADER,
    ),
    Part(
        "train",
        105,
        "three trainings, each 30 s of start and of what the step's part has compiled, 800 steps in 5 s",
        ("tensorboard",),
        ("-m", "benchmarks.bench_train", "--gpu", "--steps=800", "--save"),
        (*SMALL, "--steps=4"),
        TRAIN,
    ),
    Part(
        "inference",
        90,
        "for each of two batch sizes 8 s of start for each of three ways, 15 s of compiling, 5 s of timing",
        ("onnxruntime",),
        ("-m", "benchmarks.bench_inference", "--gpu", "--sizes=640x192", "--rounds=15", "--save"),
        ("--sizes=96x64", "--batch_sizes=2", "--rounds=1"),
        INFERENCE,
    ),
)


@click.command()
@click.option("--budget", "budget_s", default=BUDGET_S, show_default=True, metavar="SECONDS", help="For all parts together.")
@click.option("--parts", default=" ".join(part.name for part in PLAN), show_default=True, metavar="NAME...", help="In the plan's order.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder of the results [default: benchmarks/results; of a rehearsal {REHEARSAL_FOLDER.relative_to(PROJECT)}].",
)
@click.option("--plan", "show_plan", is_flag=True, help="Show what is planned, with the seconds of each part, and end.")
def main(budget_s: int, parts: str, out: Path | None, show_plan: bool) -> None:
    """Runs the tests and benchmarks that need a GPU and writes results, tables and one page (exit status 1 where a part failed)."""
    started_s = time.monotonic()
    if show_plan:
        click.echo("\n".join(f"{part.name:<12}{part.estimate_s:>4} s  {part.why}" for part in PLAN))
        click.echo(f"{'start, page':<12}{OWN_S:>4} s\n{'together':<12}{planned_s():>4} s")
        return
    unknown = set(parts.split()) - {part.name for part in PLAN}
    if unknown:
        raise click.ClickException(f"--parts: there is no {', '.join(sorted(unknown))}; the parts are {', '.join(p.name for p in PLAN)}")
    is_rehearsal = gpu_model() is None
    folder = (out or (REHEARSAL_FOLDER if is_rehearsal else RESULTS)).resolve()
    if is_rehearsal and folder == RESULTS.resolve():
        raise click.ClickException(f"--out {folder}: a rehearsal's figures must not take the place of results; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    # Before any part, so that what one compiles is there for the others, and where md-train keeps it.
    keep_compiled()
    click.echo(f"{'rehearsal: no CUDA device' if is_rehearsal else gpu_model()}; {budget_s} s at most; results in {folder}")
    proof = Proof(folder, budget_s, started_s, is_rehearsal=is_rehearsal)
    chosen = [part for part in PLAN if part.name in parts.split()]
    for number, part in enumerate(chosen):
        proof.take(part, later_s=sum(later.estimate_s for later in chosen[number + 1 :]))
    click.echo(f"\n{(folder / f'{NAME}.md').read_text(encoding='utf-8')}")
    if folder == RESULTS.resolve():
        fill_pages()
    if proof.failed:
        raise SystemExit(1)


def planned_s() -> int:
    """Seconds of the whole plan on an H200."""
    return OWN_S + sum(part.estimate_s for part in PLAN)


class Proof:
    """A run: what its parts came to, kept in ``gpu_proof.json`` and on its page after each."""

    def __init__(self, folder: Path, budget_s: float, started_s: float, *, is_rehearsal: bool) -> None:
        self.folder, self.budget_s, self.is_rehearsal = folder, budget_s, is_rehearsal
        self._started_s, self._began = started_s, time.time()
        self._log = folder / LOG
        self._log.write_text("", encoding="utf-8")
        self.parts: list[dict[str, Any]] = []
        self.failed = False

    def take(self, part: Part, *, later_s: float) -> None:
        """Run the part within its time, or leave it out, and keep what became of it.

        Args:
            later_s: what is planned for the parts after it, which get what it does not use.
        """
        left_s = self.budget_s - OWN_S - (time.monotonic() - self._started_s)
        missing = [module for module in part.needs if find_spec(module) is None]
        begin_s = time.monotonic()
        left_out: list[str] = []
        if missing:
            outcome = f"left out: {', '.join(missing)} is not installed"
        elif part.estimate_s > left_s:
            outcome = f"left out: about {part.estimate_s} s are planned for it, and {max(0, left_s):.0f} s are left"
        else:
            limit_s = time_for(part, left_s, later_s)
            click.echo(f"{part.name}: about {part.estimate_s} s on an H200, at most {limit_s:.0f} s")
            outcome, left_out = self._run(part, limit_s)
        seconds = time.monotonic() - begin_s
        click.echo(f"{part.name}: {outcome} ({seconds:.0f} s)")
        self.failed |= not outcome.startswith(("ok", "left out"))
        kept = {"name": part.name, "outcome": outcome, "seconds": seconds, "estimate_s": part.estimate_s, "left_out": left_out}
        self.parts.append(kept)
        self._keep()

    def _run(self, part: Part, limit_s: float) -> tuple[str, list[str]]:
        """The part's outcome, and what it left out."""
        environment = {**os.environ, RESULTS_VARIABLE: str(self.folder), "PYTHONUNBUFFERED": "1"}
        if self.is_rehearsal:
            # Without the real frames, which are many.
            environment |= {REHEARSAL_VARIABLE: "1", "MD_SHARED": str(self.folder / "none")}
        command = [sys.executable, *part.command, *(part.small if self.is_rehearsal else ())]
        with TemporaryDirectory() as name, self._log.open("a", encoding="utf-8") as log:
            report = Path(name) / "tests.xml"
            command += [] if part.result else [f"--junitxml={report}", *gpu_tests()]
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            begin = log.tell()
            status = run_within(command, limit_s, log, environment)
            said = self._log.read_bytes()[begin:].decode(errors="replace")
            tests, left_out = read_report(report) if report.is_file() else ("", left_out_in(said))
        if status is None:
            return f"ended: it took longer than {limit_s:.0f} s{tests}", left_out
        return (f"ok{tests}" if status == 0 else f"failed{tests}: {complaint(said)}"), left_out

    def _keep(self) -> None:
        """Write what there is so far."""
        results = {}
        for part in PLAN:
            path = self.folder / f"{part.result}.json"
            # Not what an earlier run has left.
            if part.result and path.is_file() and path.stat().st_mtime >= self._began:
                results[part.result] = json.loads(path.read_text(encoding="utf-8"))
        rows = compare(results, gpu_model())
        proof = {"setting": {"budget_s": self.budget_s}, "is_rehearsal": self.is_rehearsal, "parts": self.parts, "rows": rows}
        kept = json.loads(save(NAME, proof, self.folder).read_text(encoding="utf-8"))
        (self.folder / f"{NAME}.md").write_text(page(kept, results), encoding="utf-8")


def time_for(part: Part, left_s: float, later_s: float) -> float:
    """Seconds that the part may take: what the later ones leave of what is left, and in any case half as much again as was planned."""
    return min(left_s, max(OVERRUN * part.estimate_s, left_s - later_s))


def gpu_tests() -> list[str]:
    """The files that hold tests for a GPU, those of the most worth first."""
    files = (
        path.relative_to(PROJECT).as_posix() for path in sorted((PROJECT / "tests").rglob("test_*.py")) if b"mark.gpu" in path.read_bytes()
    )
    others = [name for name in files if name not in FIRST_TESTS and not name.startswith(NOT_TESTED)]
    return [*FIRST_TESTS, *others]


def run_within(command: Sequence[str], limit_s: float, log: Any, environment: dict[str, str]) -> int | None:
    """The exit status of the command; None where it took longer than it may and was ended, with all that it started."""
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_report(path: Path) -> tuple[str, list[str]]:
    """How many tests passed, failed and were skipped, with the names of those that failed; and why others were skipped."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    reasons = [skipped.get("message", "") for case in cases if (skipped := case.find("skipped")) is not None]
    counts = f", {len(cases) - len(failed) - len(reasons)} tests passed, {len(failed)} failed, {len(reasons)} skipped"
    names = f" ({'; '.join(failed)})" if failed else ""
    return counts + names, [f"{reasons.count(reason)} tests: {reason}" for reason in dict.fromkeys(reasons)]


def left_out_in(said: str) -> list[str]:
    """What a benchmark says that it leaves out."""
    return [line.removeprefix("left out: ") for line in said.splitlines() if line.startswith("left out: ")]


def complaint(said: str) -> str:
    """Why a part failed, in its own words: from the command's error on, or the last line."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), len(lines) - 1)
    return "\n".join(lines[start:][:LAST_LINES]) or "it wrote nothing"


if __name__ == "__main__":
    main()
