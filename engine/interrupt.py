"""Clean interruption: the first Ctrl-C, SIGTERM or SIGHUP asks a loop to stop after its step, the second stops at once; SIGUSR1 asks it to
save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dataload.system.interrupts import ENDING, interrupt_for, leave_lost_terminal
from dataload.system.launch import launch

# Under a launcher, signals that come this soon after the first are the same request: the scheduler sends one, the launcher passes it on.
# So they are where a terminal is closed: the system and the shell both send SIGHUP, and a session's manager SIGTERM too.
SAME_REQUEST_S = 5.0


class Stopped(Exception):
    """What was requested to stop has left its work undone."""


class Stop:
    """What was requested of a loop.

    Attributes:
        number: of the signal that requested to stop; 0 before.
        at_once: a request stops the work at once, as it may take minutes and loses nothing when interrupted.
        save_requested: to save a checkpoint after the present step, and to continue.
    """

    number = 0
    at_once = False
    save_requested = False

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self.number != 0

    def take_save_request(self) -> bool:
        """Whether a save is requested; from then on it is not, until the next request."""
        # Cleared where it was seen alone: a request that comes in between is not lost.
        if self.save_requested:
            self.save_requested = False
            return True
        return False


@contextmanager
def ending_restored() -> Iterator[None]:
    """After the block SIGTERM and SIGHUP do what they did before, whatever the block has made of them."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def save_requests_ignored() -> Iterator[None]:
    """Within the block SIGUSR1 does nothing, where it would end the process: before the first step there is nothing to save."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (hasattr(signal, "SIGUSR1") and is_main and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL):
        yield
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


@contextmanager
def graceful_stop(*, then_deaf: bool = False) -> Iterator[Stop]:
    """Within the block SIGINT, SIGTERM and SIGHUP request to stop; a second one, or one ``at_once``, raises KeyboardInterrupt.

    Under torchrun a second one within 5 s of the first is the same request, as schedulers and launchers both send one; so is SIGHUP, and
    what follows it. SIGHUP that is ignored already, as under ``nohup``, stays ignored.

    SIGUSR1 sets ``save_requested`` from the beginning of the block to its end, whatever runs in it. Windows has no such signal.

    Only the main thread may say what signals do: in another they go on doing what they did.

    Args:
        then_deaf: SIGTERM and SIGHUP do nothing after the block, until ``ending_restored`` ends: torchrun sends them when one process has
            died, while the others still find out which, to say so.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    comes_twice = _is_launched()
    first_s: float | None = None

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal first_s, comes_twice
        if number != signal.SIGINT and number != signal.SIGTERM:
            comes_twice = True
            leave_lost_terminal()
        now_s = time.monotonic()
        if comes_twice and first_s is not None and now_s - first_s < SAME_REQUEST_S:
            return
        first_s = now_s if first_s is None else first_s
        if stop.requested or stop.at_once:
            raise interrupt_for(number)
        stop.number = number

    def ask_to_save(_number: int, _frame: FrameType | None) -> None:
        stop.save_requested = True

    heard = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys([signal.SIGINT, *heard], ask)
    if hasattr(signal, "SIGUSR1"):
        handlers[signal.SIGUSR1] = ask_to_save
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if then_deaf and number in ENDING else handler)


def _is_launched() -> bool:
    """Whether torchrun, or another launcher that sets its variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or launch().world > 1
