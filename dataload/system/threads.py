"""Work in threads with its results in order: enough is begun ahead to keep the cores busy, and nothing more once the caller leaves.

For decoding and arithmetic, which release the interpreter lock; ``side_by_side`` is for what waits for a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Condition
from typing import TypeVar

from dataload.system.machine import usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")
AHEAD_PER_THREAD = 2


class Room:
    """Bytes that may be held at a time: whoever has more to hold waits until others have given theirs back."""

    def __init__(self, num_bytes: int) -> None:
        self._free = self._all = num_bytes
        self._changed = Condition()

    def take(self, num_bytes: int) -> None:
        """Wait until there is room; more than there is in all is let in alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= min(num_bytes, self._all))
            self._free -= num_bytes

    def give(self, num_bytes: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._free += num_bytes
            self._changed.notify_all()


@contextmanager
def thread_pool(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """``number`` threads, by default one per core; when the block is left, what has begun is finished and the rest is cancelled."""
    pool = ThreadPoolExecutor(number or usable_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(begun: Iterable[tuple[Job, Sequence[Future[Result]]]], *, ahead: int) -> Generator[tuple[Job, list[Result]], None, None]:
    """Yields each job with the results of its parts when all are done, in order; when it is left, what has not begun is cancelled.

    Args:
        begun: begins one more job each time it is asked for one.
        ahead: jobs that are begun beyond the one waited for.
    """
    pending: deque[tuple[Job, Sequence[Future[Result]]]] = deque()
    try:
        for job in begun:
            pending.append(job)
            if len(pending) > ahead:
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        for _, parts in pending:
            for part in parts:
                part.cancel()


def in_threads(
    jobs: Iterable[Callable[[], Result]], *, number: int | None = None, ahead: int | None = None
) -> Generator[Result, None, None]:
    """The results of jobs, in order.

    Args:
        number: threads, by default one per core.
        ahead: jobs that are begun beyond the one waited for, by default two per thread.
    """
    number = number or usable_cores()
    ahead = AHEAD_PER_THREAD * number if ahead is None else ahead
    with thread_pool(number) as pool, closing(in_order(((None, [pool.submit(job)]) for job in jobs), ahead=ahead)) as done:
        for _, (result,) in done:
            yield result


def _first(pending: deque[tuple[Job, Sequence[Future[Result]]]]) -> tuple[Job, list[Result]]:
    """The first job, done; if one of its parts fails it stays, for the others to be cancelled."""
    job, parts = pending[0]
    results = [part.result() for part in parts]
    pending.popleft()
    return job, results
