"""Signals that end a command: SIGTERM and SIGHUP become an exception as Ctrl-C does, so that whatever ends tidies up; and Ctrl-C in the
processes of a pool: the terminal sends it to all of them, and the parent alone is to handle it."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# A scheduler or ``kill`` sends the first; a terminal that is closed, or a connection that is lost, the second, which Windows has not.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: whatever tidies up after Ctrl-C does so after these.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that raised it."""
    return error.number if isinstance(error, Terminated) else signal.SIGINT


def interrupt_for(number: int) -> KeyboardInterrupt:
    """What a signal of that number raises."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def exit_status(number: int) -> int:
    """The exit status of a command that a signal has ended, as shells count it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + number


@contextmanager
def ending_raises() -> Iterator[None]:
    """Within the block the first SIGTERM or SIGHUP raises ``Terminated``; what comes while that is tidied up changes nothing.

    A signal that is ignored already, as SIGHUP is under ``nohup``, or that the caller's program handles, keeps its meaning; so do all of
    them outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]

    def end(number: int, _frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        leave_lost_terminal()
        raise Terminated(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def leave_lost_terminal() -> None:
    """Send what is still printed to nowhere where standard output or error is a terminal that is gone: writing there is an error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, or no file of the operating system
            if _is_lost(stream.fileno()):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _is_lost(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def ignore_interrupts() -> None:
    """What a process of a pool does first; SIGHUP comes from the terminal too."""
    for number in {signal.SIGINT, *ENDING} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Within the block Ctrl-C waits for its end; processes that start there do not get it, from their first moment.

    In a thread, or on Windows, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))  # other threads may get it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which new processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
