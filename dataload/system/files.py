"""Files and folders that appear whole or not at all; a check that a file can be written, before the work whose result it will hold;
and the cache folder."""

from __future__ import annotations

import ctypes
import difflib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dataload.system.disk import nearest_folder
from dataload.system.home import is_home_known, temporary_cache
from dataload.system.leftovers import aside_of, remove_temporary, temporary_of
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
def whole_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, which is renamed to ``path`` when the block succeeds and removed when not.

    What is no file of a disk (``/dev/stdout``) is written to as it is; where ``path`` is a link, the file that it leads to is replaced. An
    ``OSError`` in the block that names no file, or the temporary one, leaves it with the name of ``path``.

    Args:
        flush: wait until it is on the disk before it gets its name, so that after a power cut the old or the new file is there. Not for
            thousands of files that the same command would make again.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    place = path.resolve() if path.is_symlink() else path
    temporary = temporary_of(place)
    try:
        with name_faults(path, temporary):
            yield temporary
            if flush:
                _flush(temporary)
            temporary.replace(place)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_files(paths: Sequence[Path], *, stale: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """As ``whole_file`` for files that belong together: a reader finds some or all of the old ones, or of the new ones, never of both.

    All are on the disk before the first one is published. What is there of the others is removed then, and they follow in their order: so
    the first is always there, old or new, and whoever needs all of them has to read the last.

    Args:
        paths: one or more files.
        stale: files of an earlier set that the new one lacks; they are removed too.
    """
    with ExitStack() as stack:
        # Published in the reverse order of this.
        temporaries = [stack.enter_context(whole_file(path, flush=False)) for path in reversed(paths)]
        yield temporaries[::-1]
        for temporary in temporaries:
            _flush(temporary)
        for path in (*stale, *reversed(paths[1:])):
            path.resolve().unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, is_new: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling to fill; publish it as ``folder`` when the block succeeds, else remove it. The folder is held throughout.

    Args:
        is_new: do not replace what another process has put there meanwhile.

    Raises:
        InputError: another process writes there.
        OSError: the disk is full or cannot be written; with ``is_new``, the folder is not empty.
    """
    place = folder.resolve()
    temporary = temporary_of(place)
    with hold(folder, "wait until it has ended", folder=True):
        try:
            with name_faults(folder, temporary):
                temporary.mkdir(parents=True)
                yield temporary
            publish_folder(temporary, place, is_new=is_new)
        except BaseException:
            remove_temporary(temporary)
            raise


def publish_folder(whole: Path, folder: Path, *, is_new: bool = False) -> None:
    """Give a complete folder its final name beside it, once all of it is on the disk; the caller holds ``folder``.

    What is there is replaced in one step where the system can. Where it cannot, it is moved aside first, and what a kill between the two
    steps has left aside is put back by the next that holds or looks for ``folder``.

    Args:
        is_new: ``folder`` is not there, or empty, and stays so if it has been filled meanwhile.

    Raises:
        OSError: the disk is full or cannot be written; what was there is kept.
    """
    with name_faults(folder, whole):
        for name, _, files in os.walk(whole):
            for path in (*(os.path.join(name, file) for file in files), name):
                _flush(Path(path))
    old = None
    if is_new or not os.path.lexists(folder):
        whole.rename(folder)
    elif _exchange(whole, folder):
        old = whole
    else:
        old = _replace_in_two_steps(whole, folder)
    _flush(folder.parent)
    if old is not None:
        remove_temporary(old)


def _replace_in_two_steps(whole: Path, folder: Path) -> Path:
    """Returns where the old one is now."""
    old = aside_of(folder)
    folder.rename(old)
    try:
        whole.rename(folder)
    except BaseException:
        if not os.path.lexists(folder):
            old.rename(folder)
        raise
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the disk cannot."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_working_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return swap is not None and not swap(at_working_folder, os.fsencode(one), at_working_folder, os.fsencode(other), exchange)


def remove_whole(path: Path) -> None:
    """Remove a file or folder that is known under its name, if it is there, so that nothing torn is ever found under that name.

    A folder gets a temporary name first. It is held meanwhile.

    Raises:
        InputError: another process writes there.
        OSError: its name cannot be taken away.
    """
    if not os.path.lexists(path):
        return
    with hold(path, "wait until it has ended", folder=True):
        if path.is_dir() and not path.is_symlink():
            temporary = temporary_of(path)
            path.rename(temporary)
            remove_temporary(temporary)
        else:
            path.unlink()


def _flush(path: Path) -> None:
    """Return when a file or folder is on the disk; some network disks cannot tell of folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
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
