"""Clean interruption: the first Ctrl-C or SIGTERM asks a loop to stop after its step, the second stops at once; SIGUSR1 asks it to save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dataload.system.launch import launch

# Under a launcher, signals that come this soon after the first are the same request: the scheduler sends one, the launcher passes it on.
SAME_REQUEST_S = 5.0


class Stop:
    """What was requested of a loop.

    Attributes:
        requested: to stop.
        at_once: a request stops the work at once, as it may take minutes and loses nothing when interrupted.
        save_requested: to save a checkpoint after the present step, and to continue.
    """

    requested = False
    at_once = False
    save_requested = False

    def take_save_request(self) -> bool:
        """Whether a save is requested; from then on it is not, until the next request."""
        # Cleared where it was seen alone: a request that comes in between is not lost.
        if self.save_requested:
            self.save_requested = False
            return True
        return False


@contextmanager
def sigterm_restored() -> Iterator[None]:
    """After the block SIGTERM does what it did before, whatever the block has made of it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def graceful_stop(*, then_deaf: bool = False) -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM set ``requested``; a second one, or one ``at_once``, raises KeyboardInterrupt.

    Under torchrun a second one within 5 s of the first is the same request, as schedulers and launchers both send one.

    SIGUSR1 sets ``save_requested`` from the beginning of the block to its end, whatever runs in it; outside it ends the process, as it does
    any that did not ask for it. Windows has no such signal.

    Only the main thread may say what signals do: in another they go on doing what they did.

    Args:
        then_deaf: SIGTERM does nothing after the block, until ``sigterm_restored`` ends: torchrun sends it when one process has died, while
            the others still find out which, to say so.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    is_launched = _is_launched()
    first_s: float | None = None

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        now_s = time.monotonic()
        if is_launched and first_s is not None and now_s - first_s < SAME_REQUEST_S:
            return
        first_s = now_s if first_s is None else first_s
        if stop.requested or stop.at_once:
            raise KeyboardInterrupt
        stop.requested = True

    def ask_to_save(_number: int, _frame: FrameType | None) -> None:
        stop.save_requested = True

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask}
    if hasattr(signal, "SIGUSR1"):
        handlers[signal.SIGUSR1] = ask_to_save
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if then_deaf and number == signal.SIGTERM else handler)


def _is_launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or launch().world > 1
