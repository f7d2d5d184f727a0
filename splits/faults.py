"""The disk's faults as a user reads them: which file, what the system says, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splits.errors import InputError, one_line

REMEDIES = {
    errno.ENOSPC: "free some room on that disk, or name a place on another",
    errno.EDQUOT: "your share of that disk is used up: remove something of yours, or name a place on another",
    errno.EFBIG: "the disk, or a limit (ulimit -f), takes no file that large: raise the limit, or name a place on another disk",
    errno.EROFS: "that disk can only be read: name a place on another",
    errno.EACCES: "you lack the permission: change its permissions, or name another place",
    errno.EPERM: "you lack the permission: change its permissions, or name another place",
    errno.ENAMETOOLONG: "no disk takes such a name: choose a shorter one",
    errno.ELOOP: "its links form a circle: name the file that they should lead to",
    errno.EEXIST: "something else of that name is there, perhaps a link to what is gone: remove it, or name another place",
    errno.ENOTDIR: "a part of that path is a file, not a folder: check it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk fails: read the system's log, and name a place on another",
}
# numpy raises no error number when a write is cut short.
CUT_SHORT = "is the disk full, or a limit on the size of files reached?"
# Of what an error says of a file's content, this many letters are shown.
MOST_SAID = 200


@contextmanager
def name_faults(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Give an ``OSError`` of writing ``path`` that name where it has none, as with a full disk.

    Where ``path`` is written as ``temporary``, a file or a folder, the name is that under which it is known.
    """
    try:
        yield
    except OSError as error:
        given = error.filename2 or error.filename
        place = path if given is None else _known(Path(_name(given)), path, temporary)
        if place is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error


def _known(given: Path, path: Path, temporary: Path | None) -> Path | None:
    """The final name of a file below ``temporary``; None where the given name is final already."""
    if temporary is None or not given.is_relative_to(temporary):
        return None
    return path / given.relative_to(temporary)


def describe_fault(error: Exception) -> str:
    """What a user can mend, in one line: of a disk's fault the path first, then what the system says, then the remedy; else its message."""
    if not isinstance(error, OSError):
        return str(error)
    if error.strerror is None:
        return one_line(str(error)) or type(error).__name__
    # With two files, as in copying, the second is the one that was to be written.
    path = error.filename2 or error.filename
    where = "" if path is None else f"{_name(path)}: "
    remedy = CUT_SHORT if error.errno is None else REMEDIES.get(error.errno)
    return one_line(f"{where}{error.strerror}{'' if remedy is None else f'; {remedy}'}")


def first_line(error: BaseException) -> str:
    """The first line of what any error says, or the name of its class: libraries say more than fits into a message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def parsing(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """The boundary of a parser: whatever the content of a file raises in the block becomes one line that names the file.

    A parser and the libraries below it may raise anything at bytes that they were not written for; a list of exceptions is never complete.
    So a bug in the block is shown as a damaged file: keep the block as small as the parser. ``InputError`` passes as it is, and so does
    ``ImportError``, which no content raises: a package is missing.

    Args:
        path: the file, or what to call it.
        what: what it should be, with its article: ``a split list``.
        remedy: what to do about it.

    Raises:
        InputError: it cannot be opened, its content is not ``what``, or there is too little memory.
    """
    try:
        yield
    except (InputError, ImportError):
        raise
    except MemoryError as error:
        # Sizes are compared with limits before: it may be the machine's fault as well as the file's.
        raise InputError(f"cannot read {path} ({said_of(error)}); free some memory, or if the file is damaged {remedy}") from error
    except OSError as error:
        # Libraries raise it of content too, then without the system's number.
        why = error.strerror if error.errno is not None and error.strerror else f"not {what}: {said_of(error)}"
        raise InputError(f"cannot read {path} ({why}); {remedy}") from error
    except Exception as error:
        raise InputError(f"{path} is not {what} ({said_of(error)}); {remedy}") from error


def said_of(error: BaseException) -> str:
    """What an error says of a file's content, short enough for a message."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:MOST_SAID] or type(error).__name__


def _name(given: str | bytes | int) -> str:
    """A file as the system was given it: some programs name theirs in bytes, and some by the number of an open one."""
    return os.fsdecode(given) if isinstance(given, bytes) else str(given)
