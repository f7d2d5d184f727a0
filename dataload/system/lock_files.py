"""Lock files that end with their process however it ends: who holds one, taking one and letting it go.

Its holder writes into it who it is and removes the file at the end; one that a killed process has left is used again.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from splits.errors import InputError
from splits.faults import parsing
from splits.reading import read_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

# A holder needs a moment to write who it is, and a process that gives up needs one to let go.
TRIES, PAUSE_S = 40, 0.025
MOST_PID = 2**31


class Holder(NamedTuple):
    """Who holds an output: the command, its process, since when; ``folder`` where all that lies in the output is held with it."""

    command: str
    pid: int
    host: str
    since: str
    folder: bool

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid} on {self.host}, since {self.since})"

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; of other machines nothing is known."""
        import psutil

        return self.host == socket.gethostname() and not psutil.pid_exists(self.pid)


@contextmanager
def one_process(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file, which goes at the end; ``waiting`` is called if another process holds it, before it is waited for."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        _let_go(lock, path)


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file; a lock file without a holder is removed."""
    from filelock import FileLock, Timeout

    if not path.is_file():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            path.unlink(missing_ok=True)
            return False
    except (Timeout, PermissionError):  # the second: another user's
        return True
    except (OSError, NotImplementedError):  # a disk that cannot be written, or knows no locks
        return False


def take(file: Path, output: Path, remedy: str, folder: bool, stack: ExitStack, waiting: Callable[[], None] | None) -> bool:
    """Take one lock file until the stack ends; False where it cannot be made or locked."""
    try:
        from filelock import FileLock
    except ImportError:  # where there is little more than onnxruntime
        return False
    lock = FileLock(file, thread_local=False)
    timeout_s, tries = 0.0, TRIES
    while True:
        taken = _try_to_take(lock, file, timeout_s)
        if taken:
            stack.callback(_let_go, lock, file)
            _say_who(file, folder)
            return True
        tries -= 1
        holder = read_holder(file)
        # Whoever looks whether a lock is held has it for a moment, under the name of the last holder or none.
        is_known = holder is not None and not holder.is_gone
        if taken is None and not is_known:
            return False
        if not is_known and tries:
            time.sleep(PAUSE_S)
            continue
        if waiting is None or taken is None:
            raise InputError(f"{output} is being written by {holder if is_known else 'another process'}; {remedy}")
        if timeout_s == 0:
            waiting()
        timeout_s = -1  # until it is free


def _try_to_take(lock: BaseFileLock, file: Path, timeout_s: float) -> bool | None:
    """Whether a lock was free, or became so in time.

    None where it cannot be taken at all: on a disk that is full, cannot be written or has no locks.
    """
    from filelock import Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)  # whoever has made it may have taken it away again
        lock.acquire(timeout=timeout_s)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        return False if isinstance(error, FileNotFoundError) else None
    return True


def _let_go(lock: BaseFileLock, file: Path) -> None:
    # Taken away while it is held: whoever has opened it meanwhile finds that it has no name any more, and tries again.
    with suppress(OSError):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        lock.release()


def _say_who(file: Path, folder: bool) -> None:
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    holder = Holder(_command(), os.getpid(), socket.gethostname(), since, folder)
    with suppress(OSError):  # on a full disk, or a system where nobody else reads a locked file
        file.write_text(json.dumps(holder._asdict()), encoding="utf-8")


def _command() -> str:
    import click

    context = click.get_current_context(silent=True)
    return context.command_path if context is not None else Path(sys.argv[0]).name or "a process"


def read_holder(file: Path) -> Holder | None:
    """Who has written into a lock file last; None where that is nobody, or nothing that a holder writes."""
    with suppress(InputError), parsing(file, "a lock", ""):
        holder = Holder(**read_json(file, "a lock", ""))
        if tuple(map(type, holder)) == (str, int, str, str, bool) and 0 < holder.pid < MOST_PID:
            return holder
    return None


def holder_of(file: Path) -> Holder | None:
    """Who holds a lock file; None where it is not held, or its holder has not written who it is."""
    return read_holder(file) if is_held(file) else None
