"""Outputs held while they are written: one process holds each, and what killed processes have left of it is cleared away.

The lock of an output is a hidden file beside it (``.<name>.lock``), or in it where its folder cannot be written (``.lock``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dataload.system.leftovers import clear_leftover, hidden_name, is_aside, is_leftover_of, output_of
from dataload.system.lock_files import PAUSE_S, TRIES, Holder, holder_of, is_held, take
from splits.errors import InputError

ENDING = ".lock"
# How deep a folder is searched for outputs that others write in it: <run>/models/<weights>, <dataset>/<sequence>/<camera>.
LEVELS = 3
# The outputs that this process holds, and by which thread, so that what holds a run folder can hold a checkpoint in it.
_held: dict[Path, int] = {}


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
            if take(file, output, remedy, folder, stack, waiting):
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


def _require_free(path: Path, output: Path, remedy: str) -> None:
    """``InputError`` where a folder above or below ``path`` is held by another process."""
    for above in path.parents:
        if above in _held:
            break
        for lock in (lock_of(above), above / ENDING) if above.name else ():
            holder = holder_of(lock)
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
            holder = None if inside in _held or inside == folder else holder_of(parent / name)
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
