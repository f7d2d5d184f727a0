"""Locks that end with their process however it ends: one process holds an output while it writes it, and what all processes can use is made
by one of them.

The lock of an output is a hidden file beside it (``.<name>.lock``), or in it where its folder cannot be written (``.lock``). Its holder
writes into it who it is and removes the file at the end; one that a killed process has left is used again.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dataload.system.leftovers import clear_leftover, hidden_name, is_aside, is_leftover_of, output_of
from splits.errors import InputError
from splits.reading import read_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

ENDING = ".lock"
# How deep a folder is searched for outputs that others write in it: <run>/models/<weights>, <dataset>/<sequence>/<camera>.
LEVELS = 3
# A holder needs a moment to write who it is, and a process that gives up needs one to let go.
TRIES, PAUSE_S = 40, 0.025
# The outputs that this process holds, and by which thread, so that what holds a run folder can hold a checkpoint in it.
_held: dict[Path, int] = {}


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


@contextmanager
def hold(output: Path, remedy: str, *, folder: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an output while it is written, and first clear away what killed processes have left of it.

    Known by its real path, whatever name leads there. Where no lock can be taken (a disk without locks, a missing folder, one that
    only others may write) the work continues without one.

    Args:
        remedy: what to do where another process holds it.
        folder: hold all that lies in it as well; no folder above or below it may be held so. Missing folders above it are made, and removed
            again where they stay empty.
        waiting: wait for the other process or thread instead of being refused, after this was called.

    Raises:
        InputError: another process holds it, or a folder another thread of this one; names both.
    """
    path = output.resolve()
    is_elsewhere = _held.get(path, threading.get_ident()) != threading.get_ident()
    if folder and is_elsewhere and waiting is None:
        raise InputError(f"{output} is being written by another thread of this process; {remedy}")
    if (path in _held and not (is_elsewhere and waiting)) or not path.name:
        yield
        return
    with ExitStack() as stack:
        if _lock(path, output, remedy, folder, stack, waiting):
            _held[path] = threading.get_ident()
            stack.callback(_held.pop, path)
            if folder:
                _require_free(path, output, remedy)
            clear_leftovers(path, inside=folder)
        yield


def settle(folder: Path) -> None:
    """For readers, who hold nothing: put back what writers killed between two steps have left aside in a folder.

    A writer that is alive is waited for: it is done in a moment.
    """
    try:
        asides = [entry.name for entry in os.scandir(folder) if is_aside(entry.name)]
    except OSError:
        return
    for name in asides:
        output = folder / (output_of(name) or "")
        if not os.path.lexists(output):
            with hold(output, "", waiting=lambda: None):
                pass


def require_free_below(folder: Path, remedy: str) -> None:
    """``InputError`` naming what another process writes in a folder, and who; without holding anything.

    One that is done in a moment is waited for: of two that start together the inner one sees the outer, and goes.
    """
    busy = _busy_below(folder.resolve())
    for _ in range(TRIES):
        if busy is None:
            return
        time.sleep(PAUSE_S)
        busy = _busy_below(folder.resolve())
    if busy is not None:
        raise InputError(f"{folder}: {busy[0]} in it is being written by {busy[1]}; {remedy}")


def lock_of(path: Path) -> Path:
    """The lock file of an output, beside it."""
    return path.with_name(hidden_name(path.name, ENDING))


def _lock(path: Path, output: Path, remedy: str, folder: bool, stack: ExitStack, waiting: Callable[[], None] | None) -> bool:
    """Take the lock of an output until the stack ends; False where none can be taken."""
    try:
        if folder:
            _make_parents(path, stack)
        elif not path.parent.is_dir():
            return False
        files = [lock_of(path)]
        if path.is_dir():
            files.append(path / ENDING)
        for file in files:
            if _take(file, output, remedy, folder, stack, waiting):
                return True
    except OSError:  # a folder that cannot be made: the work itself says so
        pass
    return False


def _make_parents(path: Path, stack: ExitStack) -> None:
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in reversed(missing):
        stack.callback(_remove_empty, parent)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _take(file: Path, output: Path, remedy: str, folder: bool, stack: ExitStack, waiting: Callable[[], None] | None) -> bool:
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
        holder = _read_holder(file)
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


def _read_holder(file: Path) -> Holder | None:
    try:
        return Holder(**read_json(file, "a lock", ""))
    except (OSError, ValueError, TypeError):
        return None


def _holder_of(file: Path) -> Holder | None:
    """Who holds a lock file; None where it is not held, or its holder has not written who it is."""
    return _read_holder(file) if is_held(file) else None


def _require_free(path: Path, output: Path, remedy: str) -> None:
    """``InputError`` where a folder above or below ``path`` is held by another process."""
    for above in path.parents:
        if above in _held:
            break
        for lock in (lock_of(above), above / ENDING) if above.name else ():
            holder = _holder_of(lock)
            if holder is not None and holder.folder:
                raise InputError(f"{output} lies in {above}, which is being written by {holder}; {remedy}")
    require_free_below(output, remedy)


def _busy_below(folder: Path) -> tuple[Path, Holder] | None:
    """A folder that another process holds in ``folder``, relative to it, and who."""
    for parent, _, names in _walk(folder):
        for name in names:
            if not (name.startswith(".") and name.endswith(ENDING)):
                continue
            inside = parent if name == ENDING else parent / name.removesuffix(ENDING).removeprefix(".")
            holder = None if inside in _held or inside == folder else _holder_of(parent / name)
            if holder is not None and holder.folder:
                return inside.relative_to(folder), holder
    return None


def clear_leftovers(path: Path, *, inside: bool) -> None:
    """Clear what killed processes have left of an output that is held, and of what lies in it where that is held too."""
    try:
        beside = [entry.name for entry in os.scandir(path.parent) if entry.name.startswith(".")]
    except OSError:
        return
    for name in beside:
        if is_leftover_of(name, path):
            clear_leftover(path.with_name(name), path)
    if not inside:
        return
    for parent, folders, names in _walk(path):
        for name in [*folders, *names]:
            output = output_of(name) if name.startswith(".") else None
            if output is not None and not is_held(lock_of(parent / output)):
                clear_leftover(parent / name, parent / output)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As ``os.walk``, ``LEVELS`` deep."""
    for name, folders, names in os.walk(folder):
        parent = Path(name)
        yield parent, folders, names
        if len(parent.parts) - len(folder.parts) >= LEVELS:
            folders.clear()
