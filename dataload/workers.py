"""Threads that make frames side by side: decoding, resizing and arithmetic all let go of the interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

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
        """Yields each job when all its parts are done, in order, the next ``ahead`` begun; when it is left, the rest is let be."""
        pending: deque[tuple[Job, list[Future[object]]]] = deque()
        try:
            for job in jobs:
                pending.append((job, [future for part in parts(job) if (future := self._begin(part))]))
                if len(pending) > (ahead if self.pool else 0):
                    yield self._first(pending)
            while pending:
                yield self._first(pending)
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """Ends the threads; what is being done is finished."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _begin(self, part: Callable[[], object]) -> Future[object] | None:
        if self.pool is not None:
            return self.pool.submit(part)
        part()
        return None

    @staticmethod
    def _first(pending: deque[tuple[Job, list[Future[object]]]]) -> Job:
        """The first job, done; if one of its parts fails it stays, for the others to be cancelled."""
        job, futures = pending[0]
        for future in futures:
            future.result()
        pending.popleft()
        return job
