"""The logger by which every room reports what it does. Long-running commands show it on standard error; elsewhere only warnings show."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dataload.system.launch import launch
from splits.errors import printable

console = logging.getLogger("md")
# What the console's handlers and level were before the calls that are under way, once for each of them.
_before: list[tuple[list[logging.Handler], int]] = []
_changing = threading.Lock()


@contextmanager
def shown_console() -> Iterator[None]:
    """Within the block the messages are shown on standard error, above the progress bar; afterwards logging is as it was before.

    Where the program that makes the call logs to the terminal itself, they go there alone. Of calls in several threads the last to end
    puts it back. Of processes that work together rank 0 speaks for all; others show warnings alone, with their rank.
    """
    rank = launch().rank
    with _changing:
        _before.append(_before[0] if _before else (list(console.handlers), console.level))
        if not console.handlers:
            console.setLevel(logging.WARNING if rank else logging.INFO)
            if not any(getattr(handler, "stream", None) in (sys.stdout, sys.stderr) for handler in logging.getLogger().handlers):
                console.addHandler(_BarHandler(rank))
    try:
        yield
    finally:
        with _changing:
            handlers, level = _before.pop()
            if not _before:
                console.handlers[:] = handlers
                console.setLevel(level)


@contextmanager
def said_by_first() -> Iterator[None]:
    """Within the block rank 0 alone warns, of what all processes that work together find alike."""
    level = console.level
    if launch().rank:
        console.setLevel(logging.ERROR)
    try:
        yield
    finally:
        console.setLevel(level)


def _make_arguments_printable(record: logging.LogRecord) -> bool:
    """Let a message be shown, whoever shows it, with names and values of files that reach no terminal as commands of their own."""
    if isinstance(record.args, tuple):
        record.args = tuple(argument if str(argument).isprintable() else printable(str(argument)) for argument in record.args)
    return True


console.addFilter(_make_arguments_printable)


class _BarHandler(logging.Handler):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # A terminal that was closed, or a reader that has ended, loses messages; the work continues.
        with suppress(OSError):
            if "tqdm" not in sys.modules:  # no bar to stay above, and md-predict does without that package
                print(self.format(record), file=sys.stderr)
                return
            from tqdm import tqdm

            tqdm.write(self.format(record), file=sys.stderr)
