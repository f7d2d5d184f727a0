"""Starts the rows of ``bench_loader``, lets them run in turn, and measures their memory."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks.harness import Timing, timing_of
from benchmarks.loader_row import PILLOW_SIMD, Row

PROJECT = Path(__file__).resolve().parent.parent
# From one measurement of a running row's memory to the next.
LOOK_EVERY_S = 0.1


class RowFault(Exception):
    """A row's process has failed; the text is the last line it wrote."""


class Measurement(NamedTuple):
    """A row's seconds per epoch, its samples per epoch, and the most memory that was seen while it warmed up."""

    timing: Timing
    samples: int
    peak_mib: float


class RowProcess:
    """A row's process, started; ``ready`` waits until it can run."""

    def __init__(self, row: Row, *, simd: Path | None = None) -> None:
        path = [str(simd.resolve())] if row.resizer == PILLOW_SIMD and simd is not None else []
        path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        self.peak_mib = 0.0
        self._errors = TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.loader_row", json.dumps(row._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )

    def __enter__(self) -> RowProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()  # Its standard input ends, and so does it.
        self._errors.close()

    def ready(self) -> None:
        """Returns when the row is prepared; ``RowFault`` where it cannot be."""
        self._answer()

    def epoch(self, *, watch: bool = False) -> dict[str, Any]:
        """Samples and seconds of complete epochs; ``watch`` measures the memory meanwhile, which takes a little time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        while watch and not select.select([self._process.stdout], [], [], LOOK_EVERY_S)[0]:
            self.peak_mib = max(self.peak_mib, memory_mib(self._process.pid))
        answer: dict[str, Any] = self._answer()
        if watch:
            self.peak_mib = max(self.peak_mib, memory_mib(self._process.pid))
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        raise RowFault(next((text.strip() for text in reversed(lines) if text.strip()), f"ended with {self._process.returncode}"))


def measure(processes: Mapping[str, RowProcess], *, rounds: int, seconds: float) -> tuple[dict[str, Measurement], dict[str, str]]:
    """What the rows measured, and the faults of those that failed.

    Every row goes through an epoch per round, in turn, so that a busy spell of the machine falls on all of them. A round to warm up comes
    first; after it and one more, none begins that would begin later than ``seconds`` from here.
    """
    start = time.monotonic()
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    faults: dict[str, str] = {}
    for round_number in range(1 + rounds):
        if round_number > 1 and time.monotonic() - start > seconds:
            break
        for name in [name for name in processes if name not in faults]:
            try:
                if round_number == 0:
                    processes[name].ready()
                answer = processes[name].epoch(watch=round_number == 0)
            except RowFault as fault:
                faults[name] = str(fault)
                continue
            if round_number > 0:
                answers[name].append(answer)
    measured = {name: _measurement(answers[name], processes[name].peak_mib) for name in processes if name not in faults}
    return measured, faults


def _measurement(answers: list[dict[str, Any]], peak_mib: float) -> Measurement:
    seconds = [answer["seconds"] / answer["epochs"] for answer in answers]
    (samples,) = {answer["samples"] // answer["epochs"] for answer in answers}
    return Measurement(timing_of(seconds), samples, peak_mib)


def memory_mib(pid: int) -> float:
    """Memory of a process and all it started, MiB: each page counted once, the code of libraries, which all rows share, left out.

    Only Linux can separate these; elsewhere it is all resident memory, with libraries.
    """
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_own_bytes(member) for member in family) / 2**20


def _own_bytes(process: Any) -> int:
    import psutil

    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    except OSError:
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
