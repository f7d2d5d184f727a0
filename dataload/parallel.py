"""Jobs over processes, from the moment on when that pays: what is soon done is done here."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from splits.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

# A spawned process imports numpy and the rooms before its first job.
START_S = 1.0
# The time left is judged from jobs done here, the first of which are slow.
TRIAL_S = 0.3


def results_of(make: Callable[[Job], Result], jobs: Sequence[Job], *, processes: int | None = None) -> Iterator[Result]:
    """``make`` of every job, in order; what a job raises comes through, and the jobs after it are not begun.

    The first jobs are done here, and tell how long the rest would take; processes are started where each has more to do than its start
    costs. Threads would not help: most jobs here are made of short array operations, which wait for the interpreter.

    Args:
        make: a function of a module's top level, or a ``functools.partial`` of one.
        jobs: picklable, each a good part of a second's work at most, so that Ctrl-C is answered at once.
        processes: how many, from the first job on; by default as many as pay, up to one a CPU.

    Raises:
        InputError: the system ended a process.
    """
    if processes is not None and processes > 1:
        yield from _results_of_processes(make, jobs, processes)
        return
    start = time.perf_counter()
    for done, job in enumerate(jobs):
        if processes is None and (number := _worth(time.perf_counter() - start, done, len(jobs))) > 1:
            yield from _results_of_processes(make, jobs[done:], number)
            return
        yield make(job)


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worth(seconds: float, done: int, total: int) -> int:
    """How many processes pay for the jobs left; ``seconds`` went by for those done."""
    if not done or seconds < TRIAL_S:
        return 1
    return min(cpus(), int(seconds / done * (total - done) / START_S))


def _results_of_processes(make: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    # Spawned, not forked: the caller may hold CUDA or threads, which a fork would cut off.
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent)
    try:
        with _interrupts_held():
            futures = [pool.submit(make, job) for job in jobs]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError("a worker process was ended by the system, most likely for want of memory; free some and try again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: half started, they would answer it with a traceback.

    They inherit this thread's blocked signal. It reaches this process by its other threads nevertheless, so it is noted here and raised
    again at the end.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
        if noted:
            signal.raise_signal(signal.SIGINT)
