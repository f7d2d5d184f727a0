"""Threads that make frames side by side: decoding, resizing and arithmetic all release the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch

from dataload.system.threads import in_order

Job = TypeVar("Job")


class Workers:
    """Worker threads with one core each; none of them if ``number`` is 0: then the caller does the work."""

    def __init__(self, number: int) -> None:
        # Each worker keeps to one core: without this every worker would start a team of as many threads as there are cores. The
        # setting belongs to the thread, but a thread that has not asked for its own yet would take over the last one made: so the
        # caller's is asked for first, or training would run on one core or all, whichever came first.
        torch.get_num_threads()
        self.number = number
        self.pool = ThreadPoolExecutor(number, "loader", initializer=torch.set_num_threads, initargs=(1,)) if number else None

    def run(self, jobs: Iterable[Job], parts: Callable[[Job], Iterable[Callable[[], object]]], *, ahead: int) -> Iterator[Job]:
        """Yields each job when all its parts are done, in order, the next ``ahead`` begun; when it is left, the rest is cancelled."""
        pool = self.pool
        if pool is None:
            for job in jobs:
                for part in parts(job):
                    part()
                yield job
            return
        with closing(in_order(((job, [pool.submit(part) for part in parts(job)]) for job in jobs), ahead=ahead)) as done:
            for job, _ in done:
                yield job

    def close(self) -> None:
        """Ends the threads; what is being done is finished."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
