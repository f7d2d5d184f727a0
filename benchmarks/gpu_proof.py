"""Everything that only a GPU can show, within ten minutes and on one page: ``make gpu-proof``, or ``python -m benchmarks.gpu_proof``.

The parts are this project's GPU tests and benchmarks, in the order of their worth, each a process of its own. Each writes its results at
once. One that fails is recorded with its error, and the next one runs; so does one that takes too long, which is ended, and its results so
far are kept. A signal to stop ends the part that runs in the same way. What is not installed here is left out, by name. Without a GPU this
is a rehearsal: the same parts run on the CPU, at small sizes, and write elsewhere.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.gpu_plan import BUDGET_S, OWN_S, PLAN, Part, gpu_tests, planned_s, time_for
from benchmarks.gpu_targets import LOG, compare, page
from benchmarks.harness import REHEARSAL_VARIABLE, RESULTS, RESULTS_VARIABLE, are_alike, circumstances, gpu_model, load, save
from benchmarks.part_process import Stop, asked_to_stop, run_within
from benchmarks.part_report import complaint, left_out_in, read_report
from benchmarks.row_process import PROJECT
from benchmarks.table import fill_pages
from dataload.commands.command import Command, folder_path
from dataload.system.files import whole_file
from engine.training.compiling import keep_compiled
from splits.errors import InputError

REHEARSAL_FOLDER = PROJECT / "build" / "gpu_rehearsal"
NAME = "gpu_proof"


@click.command(cls=Command)
@click.option(
    "--budget",
    "budget_s",
    type=click.IntRange(min=1),
    default=BUDGET_S,
    show_default=True,
    metavar="SECONDS",
    help="For all parts together.",
)
@click.option("--parts", default=" ".join(part.name for part in PLAN), show_default=True, metavar="NAME...", help="In the plan's order.")
@click.option(
    "--out",
    type=folder_path(file_okay=False),
    help=f"Folder of the results [default: benchmarks/results; of a rehearsal {REHEARSAL_FOLDER.relative_to(PROJECT)}].",
)
@click.option("--plan", "show_plan", is_flag=True, help="Show what is planned, with the seconds of each part, and end.")
def main(budget_s: int, parts: str, out: Path | None, show_plan: bool) -> None:
    """Runs the tests and benchmarks that need a GPU and writes results, tables and one page (exit status 1 where a part failed).

    The page keeps what an earlier run in the same folder has measured in other parts, if code, GPU and versions are the same.
    """
    started_s = time.monotonic()
    if show_plan:
        click.echo("\n".join(f"{part.name:<12}{part.estimate_s:>4} s  {part.why}" for part in PLAN))
        click.echo(f"{'start, page':<12}{OWN_S:>4} s\n{'together':<12}{planned_s():>4} s")
        return
    chosen = chosen_parts(parts)
    is_rehearsal = gpu_model() is None
    folder = (out or (REHEARSAL_FOLDER if is_rehearsal else RESULTS)).resolve()
    if is_rehearsal and folder == RESULTS.resolve():
        raise InputError(f"--out {folder}: a rehearsal's figures must not take the place of results; name another folder")
    # Before any part, so that what one compiles is there for the others, and where md-train keeps it.
    keep_compiled()
    with asked_to_stop() as stop:
        proof = Proof(folder, budget_s, started_s, stop, is_rehearsal=is_rehearsal)
        click.echo(f"{'rehearsal: no CUDA device' if is_rehearsal else gpu_model()}; {budget_s} s at most; results in {folder}")
        for number, part in enumerate(chosen):
            if stop.number is None:
                proof.take(part, later_s=sum(later.estimate_s for later in chosen[number + 1 :]))
    if proof.parts:
        click.echo(f"\n{(folder / f'{NAME}.md').read_text(encoding='utf-8')}")
    if folder == RESULTS.resolve():
        fill_pages()
    if stop.number is not None:
        click.echo("Interrupted", err=True)
        raise SystemExit(128 + stop.number)
    if proof.failed:
        raise SystemExit(1)


def chosen_parts(names: str) -> list[Part]:
    """The parts of these names, in the plan's order."""
    chosen = [part for part in PLAN if part.name in names.split()]
    unknown = set(names.split()) - {part.name for part in chosen}
    if unknown or not chosen:
        lack = f"there is no {', '.join(sorted(unknown))}" if unknown else "no part is named"
        raise InputError(f"--parts: {lack}; the parts are {', '.join(part.name for part in PLAN)}")
    return chosen


class Proof:
    """A run: what its parts came to, kept in ``gpu_proof.json`` and on its page after each.

    Attributes:
        parts: what became of each, by name; those of an earlier run like this one in the same folder included.
    """

    def __init__(self, folder: Path, budget_s: float, started_s: float, stop: Stop, *, is_rehearsal: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.budget_s, self.is_rehearsal = folder, budget_s, is_rehearsal
        self._started_s, self._stop = started_s, stop
        self.parts: dict[str, dict[str, Any]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self.failed = False
        self._take_over()
        self._log = folder / LOG
        self._log.open("a" if self.parts else "w", encoding="utf-8").close()

    def _take_over(self) -> None:
        """Take over what an earlier run says, if it is of the same code, GPU and versions; one that cannot be read says nothing."""
        here = circumstances()
        with suppress(InputError):
            earlier = load(NAME, self.folder)
            if earlier is None:
                return
            if earlier.get("is_rehearsal") != self.is_rehearsal or not are_alike(earlier["circumstances"], here):
                click.echo(
                    "the page starts empty: this folder's earlier run is of other code or changed code, another GPU or other versions"
                )
                return
            self.parts = {kept["name"]: kept for kept in earlier.get("parts", [])}
        for part in PLAN:
            with suppress(InputError):
                result = load(part.result, self.folder) if part.result and part.name in self.parts else None
                if part.result and result and are_alike(result["circumstances"], here):
                    self._results[part.result] = result

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
            outcome = f"left out: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        elif part.estimate_s > left_s:
            outcome = f"left out: about {part.estimate_s} s are planned for it, and {max(0, left_s):.0f} s are left"
        else:
            limit_s = time_for(part, left_s, later_s)
            click.echo(f"{part.name}: about {part.estimate_s} s on an H200, at most {limit_s:.0f} s")
            outcome, left_out = self._run(part, limit_s)
        seconds = time.monotonic() - begin_s
        is_left_out = outcome.startswith("left out")
        self.failed |= not (outcome.startswith("ok") or is_left_out)
        # What is left out now may have been measured before.
        if part.name not in self.parts or not is_left_out:
            kept = {"name": part.name, "outcome": outcome, "seconds": seconds, "estimate_s": part.estimate_s, "left_out": left_out}
            self.parts[part.name] = kept
        self._keep()
        click.echo(f"{part.name}: {outcome} ({seconds:.0f} s)")

    def _run(self, part: Part, limit_s: float) -> tuple[str, list[str]]:
        """The part's outcome, and what it left out."""
        command = [sys.executable, *part.command, *(part.small if self.is_rehearsal else ())]
        before = self._written_ns(part)
        # Temporary files of a part that had to be killed go with the folder.
        with TemporaryDirectory(ignore_cleanup_errors=True) as temporary, self._log.open("a", encoding="utf-8") as log:
            environment = {**os.environ, RESULTS_VARIABLE: str(self.folder), "PYTHONUNBUFFERED": "1", "TMPDIR": temporary}
            if self.is_rehearsal:
                # Without the real frames, which are many.
                environment |= {REHEARSAL_VARIABLE: "1", "MD_SHARED": str(self.folder / "none")}
            report = Path(temporary) / "tests.xml"
            command += [] if part.result else [f"--junitxml={report}", *gpu_tests()]
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            begin = log.tell()
            status = run_within(command, limit_s, log, environment, self._stop)
            said = self._log.read_bytes()[begin:].decode(errors="replace")
            tests = read_report(report)
        fault = self._take_result(part, before)
        counts = f"; {tests.counts}" if tests else ""
        why = list(tests.failures) if tests else []
        left_out = tests.left_out if tests else left_out_in(said)
        if status is None:
            number = self._stop.number
            end = f"ended: it took longer than {limit_s:.0f} s" if number is None else f"interrupted by {signal.Signals(number).name}"
            return "\n".join([f"{end}{counts}", *why, *fault]), left_out
        if status == 0 and not fault:
            return f"ok{counts}", left_out
        killed = f" ({signal.strsignal(-status)})" if status < 0 else ""
        if status != 0 and not why:
            why.append(complaint(said))
        return f"failed{killed}{counts}: " + "\n".join([*why, *fault]), left_out

    def _written_ns(self, part: Part) -> int | None:
        """When the part's result was written; None where there is none."""
        path = self.folder / f"{part.result}.json"
        return path.stat().st_mtime_ns if part.result and path.is_file() else None

    def _take_result(self, part: Part, before_ns: int | None) -> list[str]:
        """Take what the part has written, not what was there before; returns what is wrong with it."""
        if part.result is None:
            return []
        self._results.pop(part.result, None)
        if self._written_ns(part) == before_ns:
            return []
        try:
            result = load(part.result, self.folder)
        except InputError as error:
            return [str(error)]
        if result is not None:
            self._results[part.result] = result
        return []

    def _keep(self) -> None:
        """Write what there is so far."""
        results = {part.result: self._results[part.result] for part in PLAN if part.result in self._results}
        rows = compare(results, gpu_model())
        setting = {"budget_s": self.budget_s}
        proof = {"setting": setting, "is_rehearsal": self.is_rehearsal, "parts": list(self.parts.values()), "rows": rows}
        save(NAME, proof, self.folder)
        kept = load(NAME, self.folder)
        assert kept is not None
        with whole_file(self.folder / f"{NAME}.md") as path:
            path.write_text(page(kept, results), encoding="utf-8")


if __name__ == "__main__":
    main()
