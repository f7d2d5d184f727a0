"""Files and folders that appear whole or not at all; a check that a file can be written, before the work whose result it will hold;
and the cache folder."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dataload.system.disk import nearest_folder
from dataload.system.home import is_home_known, temporary_cache
from dataload.system.leftovers import aside_of, temporary_of
from dataload.system.locks import hold
from splits.errors import InputError
from splits.faults import name_faults


def find_like_named(path: Path) -> Path | None:
    """What the folder of a path that is not there holds of the nearest name; None without one."""
    folder = path.parent
    near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1) if folder.is_dir() else []
    return folder / near[0] if near else None


def cache_folder() -> Path:
    """The cache folder: ``md-engine`` in $XDG_CACHE_HOME or ~/.cache, or the usual place on other systems.

    Where that place is unknown, or is not there and cannot be made, it is one below the temporary folder.
    """
    if not os.environ.get("XDG_CACHE_HOME") and not is_home_known():
        return temporary_cache("The home folder is unknown (HOME is not set)")
    folder = _usual_cache_folder()
    if not folder.exists() and not os.access(nearest_folder(folder), os.W_OK):
        return temporary_cache(f"{folder} cannot be made")
    return folder


def _usual_cache_folder() -> Path:
    try:
        import platformdirs
    except ImportError:  # not where there is little more than onnxruntime
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "md-engine"
    return Path(platformdirs.user_cache_dir("md-engine", appauthor=False))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, which is renamed to ``path`` when the block succeeds and removed when not.

    What is no file of a disk (``/dev/stdout``) is written to as it is. An ``OSError`` in the block that names no file, or the temporary
    one, leaves it with the name of ``path``.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = temporary_of(path)
    try:
        with name_faults(path, temporary):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, is_new: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling to fill; rename it to ``folder`` when the block succeeds, else remove it. The folder is held throughout.

    An existing ``folder`` is moved aside until the new one is in place, so an interruption leaves the old or the new one whole; what a
    kill between the two has left aside is put back by the next that holds the folder.

    Args:
        is_new: do not replace what another process has put there meanwhile.

    Raises:
        InputError: another process writes there.
        OSError: the disk is full or cannot be written; with ``is_new``, the folder is not empty.
    """
    temporary, old = temporary_of(folder), aside_of(folder)
    with hold(folder, "wait until it has ended", folder=True):
        try:
            with name_faults(folder, temporary):
                temporary.mkdir(parents=True)
                yield temporary
                _flush_folder(temporary)
            if folder.exists():
                folder.rmdir() if is_new else folder.rename(old)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        _flush_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable_folder(folder: Path, remedy: str) -> None:
    """Make a folder where there is none; ``InputError`` with the remedy where that or a file in it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder} ({error.strerror}); {remedy}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"folder {folder} is not writable; {remedy}")


def require_writable_file(path: Path, option: str) -> None:
    """``InputError`` naming the option where the folder of a file is missing, or the file cannot be written."""
    if not path.parent.is_dir():
        raise InputError(f"{option}: no folder {path.parent} to write {path.name} to; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option}: {path} is not writable; name another file")
