"""Clean interruption: the first Ctrl-C or SIGTERM asks the loop to stop after its step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a stop was requested.

    Attributes:
        at_once: a request stops the work at once, as it may take minutes and loses nothing when interrupted.
    """

    requested = False
    at_once = False


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM set ``requested``; a second one, or one ``at_once``, raises KeyboardInterrupt.

    Only the main thread may say what signals do: in another they go on doing what they did.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.requested or stop.at_once:
            raise KeyboardInterrupt
        stop.requested = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
