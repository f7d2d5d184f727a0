"""Runs a part of ``gpu_proof`` as a process within its time, and ends it with all that it started where this run is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from benchmarks.row_process import PROJECT

# From the request to end until a process is killed: a benchmark ends at once, pytest writes its report first.
GRACE_S = 10
# How often a part is checked, and how soon a request to stop is answered.
LOOK_EVERY_S = 0.1
# Ctrl-C, an end by the system or a batch queue, a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """The first signal that asked to stop; None until one does."""

    number: int | None = None


@contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """Within the block a signal to stop is noted, and nothing else: what runs is ended in order, and no file is left half written.

    A signal that was ignored before, as by nohup, is not noted.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: FrameType | None) -> None:
        if stop.number is None and before[signal.Signals(number)] is not signal.SIG_IGN:
            stop.number = number

    # Of ignored ones, too: a process started here would ignore them as well, and could not be asked to end.
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_within(command: Sequence[str], limit_s: float, log: Any, environment: Mapping[str, str], stop: Stop) -> int | None:
    """The exit status of the command; None where it was ended, with all that it started: out of time, or asked to stop."""
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    end_s = time.monotonic() + limit_s
    try:
        while stop.number is None and time.monotonic() < end_s:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK_EVERY_S)
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
