"""numpy's files, ``.npy`` and ``.npz``: nothing is made room for before the file is known to hold it, and nothing in it is unpickled.

A header of a hundred bytes may claim any shape, and an archive of megabytes unpacks to gigabytes. An array in a file may be as large as
the file: that is on the disk already.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError
from splits.faults import parsing
from splits.limits import ARCHIVE_ENTRIES, ARRAY_BYTES, UNPACKED_BYTES
from splits.reading import open_file, open_zip

ARCHIVE_START = b"PK"
# As numpy bounds a header that it evaluates; before it stand the version and the length.
MAX_HEADER_BYTES, EDGE_BYTES = 10_000, 12
# The kinds of numbers, truth values and texts; all others are objects, or fields of several.
PLAIN_KINDS = "biufSU"
# What numpy writes; other ways of packing need more memory than they say.
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
READ_BYTES = 2**22  # at a time


class PickledError(ValueError):
    """An array of Python objects, which would have to be unpickled; the cause of the ``InputError`` that a user sees."""


class _Form(NamedTuple):
    """What the header of an array says."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    header_bytes: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_array(path: Path, what: str, remedy: str) -> NDArray[Any]:
    """The array of a ``.npy`` file, in memory.

    Args:
        path: the file.
        what: what it should be, with its article: ``a depth map``.
        remedy: what to do about it.

    Raises:
        InputError: it cannot be opened, is no such file, holds fewer bytes than its header says, or more than are read; or it holds Python
            objects, and then the cause is a ``PickledError``.
    """
    with open_file(path, what, remedy) as file, parsing(path, what, remedy):
        form = _read_form(file)
        ARRAY_BYTES.require(form.bytes, path)
        _require_whole(file, form, path, remedy)
        return _read(file, form)


def map_array(path: Path, what: str, remedy: str) -> NDArray[Any]:
    """The array of a ``.npy`` file, left on the disk until parts of it are used; arguments and errors as ``read_array``."""
    with open_file(path, what, remedy) as file, parsing(path, what, remedy):
        form = _read_form(file)
        _require_whole(file, form, path, remedy)
        if not form.bytes:  # of which there is no map
            return np.empty(form.shape, form.dtype)
        order = "F" if form.is_fortran else "C"
        return np.memmap(file, form.dtype, "r", form.header_bytes, form.shape, order)  # type: ignore[call-overload]


def is_archive(path: Path, what: str, remedy: str) -> bool:
    """Whether a file begins as a ``.npz`` does, whatever its name says; ``InputError`` where it cannot be opened."""
    with open_file(path, what, remedy) as file:
        return file.read(len(ARCHIVE_START)) == ARCHIVE_START


class Archive:
    """An open ``.npz`` file; ``names`` are those of its arrays, in the order in which they were saved."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._path, self._archive, self._file_bytes = path, archive, file_bytes
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist() if entry.filename.endswith(".npy")}
        self.names = list(self._entries)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array, in memory."""
        entry = self._entries[name]
        self._require(entry.file_size)
        if entry.compress_type not in PACKED:
            raise ValueError(f"{entry.filename} is packed in a way that numpy does not write")
        with self._archive.open(entry) as file:
            form = _read_form(file)
            if form.bytes != entry.file_size - form.header_bytes:
                raise ValueError(f"{entry.filename} holds {entry.file_size - form.header_bytes:,} bytes, and says {form.bytes:,}")
            return _read(file, form)

    def arrays(self) -> list[NDArray[Any]]:
        """All arrays, in memory together."""
        self._require(sum(entry.file_size for entry in self._entries.values()))
        return [self[name] for name in self.names]

    def _require(self, unpacked_bytes: int) -> None:
        if unpacked_bytes > self._file_bytes:
            ARRAY_BYTES.require(unpacked_bytes, self._path)


@contextmanager
def open_archive(path: Path, what: str, remedy: str) -> Iterator[Archive]:
    """The arrays of a ``.npz`` file, each read when it is asked for; arguments and errors, in the block too, as ``read_array``."""
    with open_file(path, what, remedy) as file, parsing(path, what, remedy), open_zip(file) as archive:
        ARCHIVE_ENTRIES.require(len(archive.infolist()), path)
        unpacked, file_bytes = sum(entry.file_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
        if unpacked > file_bytes:
            UNPACKED_BYTES.require(unpacked, path)
        yield Archive(path, archive, file_bytes)


def _read_form(file: IO[bytes]) -> _Form:
    """What a header says; ``file`` stands at its end afterwards."""
    start = file.read(EDGE_BYTES)
    version = np.lib.format.read_magic(BytesIO(start))
    length_bytes = 2 if version == (1, 0) else 4
    header_bytes = 8 + length_bytes + int.from_bytes(start[8 : 8 + length_bytes], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"its header of {header_bytes:,} bytes is longer than any")
    header = BytesIO(start + file.read(max(0, header_bytes - len(start))))
    header.seek(8)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(header)
    if dtype.hasobject:
        raise PickledError("it holds Python objects, which are not unpacked because they can run code")
    if dtype.kind not in PLAIN_KINDS or not dtype.itemsize or min(shape, default=1) < 0:
        raise ValueError(f"it is {dtype} of shape {shape}, not numbers")
    return _Form(dtype, shape, is_fortran, header_bytes)


def _require_whole(file: IO[bytes], form: _Form, path: Path, remedy: str) -> None:
    """``InputError`` where a file of one array is shorter than its header says."""
    size = os.fstat(file.fileno()).st_size
    if form.bytes > size - form.header_bytes:
        raise InputError(f"{path} is cut off: {size:,} bytes of {form.header_bytes + form.bytes:,}; {remedy}")


def _read(file: IO[bytes], form: _Form) -> NDArray[Any]:
    array = np.empty(math.prod(form.shape), form.dtype)
    view, filled = array.view(np.uint8).data if array.size else memoryview(b""), 0
    while filled < form.bytes and (part := file.read(min(READ_BYTES, form.bytes - filled))):
        view[filled : filled + len(part)] = part
        filled += len(part)
    if filled < form.bytes:
        raise ValueError(f"it is cut off: {filled:,} bytes of {form.bytes:,}")
    return array.reshape(form.shape, order="F" if form.is_fortran else "C")
