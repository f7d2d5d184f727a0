"""Files from anybody, read whole within a limit: never a pipe that waits, never more than was said, always one line of what is wrong."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from splits.errors import InputError
from splits.faults import parsing
from splits.limits import TEXT_BYTES, TEXT_LINES, Limit

# Opening a pipe would wait for its other end.
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
# JSON of nothing but brackets takes a hundred times as much memory as its text; what we write is a few kilobytes.
JSON_BYTES = 2**23
# Of a zip; what lists a hundred thousand entries has fewer.
ZIP_LIST_BYTES = 2**24
# Where ``str.splitlines`` ends a line.
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def open_file(path: Path, what: str, remedy: str) -> Iterator[BinaryIO]:
    """An open file of the disk, unbuffered; ``InputError`` where it cannot be opened, or is a pipe, a folder or a device.

    Args:
        path: the file.
        what: what it should be, with its article: ``a split list``.
        remedy: what to do about it.
    """
    with parsing(path, what, remedy):
        file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | NO_WAIT))  # noqa: SIM115
    with file:
        kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
        if kind != stat.S_IFREG:
            raise InputError(f"{path} is {KINDS.get(kind, 'no file')}, not {what}; {remedy}")
        yield file


class _Portions:
    """A file that gives no more than ``ZIP_LIST_BYTES`` at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable, self._file = file.seek, file.tell, file.seekable, file

    def read(self, number: int = -1) -> bytes:
        data = self._file.read(number if 0 <= number <= ZIP_LIST_BYTES else ZIP_LIST_BYTES + 1)
        if len(data) > ZIP_LIST_BYTES:
            raise ValueError("its list of entries is longer than any")
        return data


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The zip in an open file, to read: zipfile reads the list of its entries at once, and makes an object of each.

    Raises:
        ValueError: the list is longer than any.
        Exception: whatever zipfile raises of damage.
    """
    return zipfile.ZipFile(cast(BinaryIO, _Portions(file)))


def read_bytes(path: Path, what: str, remedy: str, most: Limit | int) -> bytes:
    """The bytes of a file.

    Args:
        path: the file.
        what: what it should be, with its article: ``a split list``.
        remedy: what to do about it.
        most: how many bytes it may have: a limit that users can change, or a number far above what such files have.

    Raises:
        InputError: as ``open_file``; it is larger, or it changes while it is read.
    """
    with open_file(path, what, remedy) as file, parsing(path, what, remedy):
        size = os.fstat(file.fileno()).st_size
        if isinstance(most, Limit):
            most.require(size, path)
        elif size > most:
            raise InputError(f"{path} has {size:,} bytes, far more than {what} has; is it another file? {remedy}")
        parts, left = [], size + 1
        while left > 0 and (part := file.read(left)):  # the system may give less than is asked for
            parts.append(part)
            left -= len(part)
        if left != 1:
            raise InputError(f"{path} changed while it was read; wait until it is written, and start again")
        return b"".join(parts)


def read_text(path: Path, what: str, remedy: str, most: Limit | int = TEXT_BYTES) -> str:
    """The text of a file in UTF-8, with or without its mark; arguments and errors as ``read_bytes``."""
    data = read_bytes(path, what, remedy, most)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}), as {what} is; {remedy}") from error


def read_lines(path: Path, what: str, remedy: str) -> list[str]:
    """The lines of a text, without their ends; arguments and errors as ``read_bytes``, and where there are too many lines."""
    text = read_text(path, what, remedy)
    # Counted before they are made, as a short line takes twenty times its bytes.
    TEXT_LINES.require(max(map(text.count, LINE_ENDS)), path)
    lines = text.splitlines()
    TEXT_LINES.require(len(lines), path)
    return lines


def read_json(path: Path, what: str, remedy: str) -> Any:
    """What a file of JSON holds; arguments and errors as ``read_bytes``."""
    text = read_text(path, what, remedy, JSON_BYTES)
    with parsing(path, what, remedy):
        return json.loads(text)
