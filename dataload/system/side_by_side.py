"""Work in threads that mostly wait for a server or a disk, without making Ctrl-C wait with them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
TICK_S = 0.1
# How long threads may take to stop when asked; one that waits for a server for longer ends with the process.
GRACE_S = 2.0


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], number: int, stop: Event
) -> Generator[tuple[Item, Result] | None, None, None]:
    """Yields each item with its result as soon as it is done, and None every ``TICK_S`` in between; what ``work`` raises is raised here.

    When the iteration ends, for whatever reason, ``stop`` is set, which ``work`` must check.
    """
    waiting = deque(items)
    done: Queue[tuple[Item, Future[Result]]] = Queue()

    def run() -> None:
        while waiting and not stop.is_set():
            try:
                item = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            future: Future[Result] = Future()
            try:
                future.set_result(work(item))
            except BaseException as error:  # for whoever asks for the result
                future.set_exception(error)
            done.put((item, future))

    threads = [Thread(target=run, daemon=True) for _ in range(min(number, len(items)))]
    for thread in threads:
        thread.start()
    left = len(items)
    try:
        while left:
            try:
                item, future = done.get(timeout=TICK_S)
            except Empty:
                yield None
                continue
            left -= 1
            yield item, future.result()
    finally:
        stop.set()
        deadline = time.monotonic() + GRACE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
