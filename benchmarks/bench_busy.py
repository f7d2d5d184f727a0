"""Training steps on a CPU whose cores other programs take, by a thread per core and by one: ``python -m benchmarks.bench_busy``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.harness import save
from dataload.system.machine import usable_cores

PROJECT = Path(__file__).resolve().parent.parent
# As the demo trains.
HEIGHT_PX, WIDTH_PX, BATCH_SIZE = 96, 320, 8
# Variables of OpenMP. GNU's spins 300,000 times at a barrier before it lets another thread have the core.
WAYS = {
    "a thread per core (default)": {},
    "a thread per core, `GOMP_SPINCOUNT=10000`": {"GOMP_SPINCOUNT": "10000"},
    "a thread per core, `OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
    "`--threads 1`": {"OMP_NUM_THREADS": "1"},
}
OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")
# Busy programs per core.
LOADS = (0, 1, 2)
BUSY = "while True: pass"


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Turns of every way at each load.")
@click.option("--seconds", default=2.0, show_default=True, help="Of a turn; one step at least.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_busy.json.")
def main(rounds: int, seconds: float, save_result: bool) -> None:
    """Times steps of the demo's size beside none, one and two programs per core that do nothing but compute; the ways take turns."""
    with ExitStack() as stack:
        processes = {way: stack.enter_context(started(variables)) for way, variables in WAYS.items()}
        rows: dict[str, dict[str, float]] = {way: {} for way in WAYS}
        for load in LOADS:
            with busy_programs(load * usable_cores()):
                answers = [{way: answer(process, seconds) for way, process in processes.items()} for _ in range(rounds)]
            for way in WAYS:
                turns = [turn[way] for turn in answers]
                paces = [BATCH_SIZE * steps / clock_s for steps, clock_s, _ in turns]
                of_cores_ms = [1e3 * core_s / (BATCH_SIZE * steps) for steps, _, core_s in turns]
                rows[way] |= {f"samples_per_s_{load}": median(paces), f"core_ms_{load}": median(of_cores_ms)}
                click.echo(f"{load} per core  {way:<48}{median(paces):>8.2f} samples/s, from {min(paces):.2f} to {max(paces):.2f}")
    if save_result:
        setting = {"size_px": [HEIGHT_PX, WIDTH_PX], "batch_size": BATCH_SIZE, "turns": rounds, "seconds per turn": seconds}
        click.echo(f"wrote {save('bench_busy', {'setting': setting, 'rows': rows})}")


@contextmanager
def started(variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to make steps, with these of OpenMP's variables and no others."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OPENMP)} | variables
    command = [sys.executable, "-m", "benchmarks.busy_row", *map(str, (HEIGHT_PX, WIDTH_PX, BATCH_SIZE))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environ) as process:
        try:
            _read(process)
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str], seconds: float) -> Any:
    """Steps that a process made in that time, and what they took of the clock and of cores, in seconds."""
    assert process.stdin is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return _read(process)


def _read(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise click.ClickException(f"a row ended with {process.wait()}; its own output above says why")
    return json.loads(line)


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """So many programs that compute and nothing else, within the block."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
