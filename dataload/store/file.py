"""The file of a frame store: one header, one record per frame, then the frames as they lie in memory.

=========  ==================================================================================================================
prefix     32 bytes: ``MDFRAMES``, format version, bytes of the header, checksum of the header
header     JSON: dataset, data_path, size_px, made_by (what decoded and resized), names of the source files
records    a row per frame: the source file's bytes and time of change (ns), checksum of the frame; zeros for one not there yet
frames     (N, H, W, 3) uint8
=========  ==================================================================================================================

All numbers are little-endian; records and frames begin at multiples of 4096 bytes. Checksums are XXH3 of 64 bits.

Frames are read with ``pread`` rather than through a mapping: that is as fast, does not count as this process's memory, and a file
that is cut off or cannot be read while in use is an error to report, not a signal that ends the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from splits.limits import IMAGE_PIXELS

MAGIC = b"MDFRAMES"
# Also raised when another picture is read from the same file: 2 since EXIF orientations are applied and 16 bits are scaled.
VERSION = 2
PREFIX = struct.Struct("<8sQQQ")
ALIGNMENT = 4096
# It holds the names of a million files; JSON of nothing but brackets takes twenty times its bytes, names have few of them.
MAX_HEADER_BYTES, MIN_BRACKETS, BYTES_PER_BRACKET = 2**27, 16, 8
RECORD = np.dtype([("bytes", "<i8"), ("mtime_ns", "<i8"), ("checksum", "<u8")])
SUFFIX, PARTIAL_SUFFIX, LOCK_SUFFIX = ".frames", ".frames.partial", ".frames.lock"


class StoreFault(Exception):
    """Why a file is no usable store; the text completes "<file> ..."."""


class StoreKey(NamedTuple):
    """What a store holds: frames of which files, made how.

    Attributes:
        data_path: the dataset's root folder, resolved.
        size_px: (height, width).
        made_by: the decoder and resizer; their pixels differ by a level here and there.
        names: the source files below ``data_path``; a frame's row is its file's place among them.
    """

    dataset: str
    data_path: str
    size_px: tuple[int, int]
    made_by: str
    names: list[str]

    @property
    def file_name(self) -> str:
        """``kitti-640x192-0123456789ab.frames``: the dataset and size to recognise it, and a hash of everything and of the format."""
        height, width = self.size_px
        dataset = re.sub(r"[^\w.+-]", "_", self.dataset)  # a colon, as of package.module:Class, is in no file's name on Windows
        return f"{dataset}-{width}x{height}-{hashlib.sha256(b'%d' % VERSION + self.to_json()).hexdigest()[:12]}{SUFFIX}"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.size_px[0] * self.size_px[1] * 3

    def to_json(self) -> bytes:
        """The header; equal for equal keys."""
        return json.dumps(self._asdict(), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> StoreKey:
        """The key that ``to_json`` wrote."""
        values = json.loads(data)
        height, width = values["size_px"]
        return cls(**{**values, "size_px": (int(height), int(width)), "names": [str(name) for name in values["names"]]})


class Layout(NamedTuple):
    """Where the parts of a file begin, and its length."""

    records: int
    frames: int
    end: int

    @classmethod
    def of(cls, key: StoreKey, header_bytes: int) -> Layout:
        """The layout of a key's file."""
        records = _align(PREFIX.size + header_bytes)
        frames = _align(records + len(key.names) * RECORD.itemsize)
        return cls(records, frames, frames + len(key.names) * key.frame_bytes)


class StoreFile:
    """An open store file, whole or still being built.

    Safe to use from several threads, as long as no two of them write the same row.

    Attributes:
        key: what it holds.
        records: of ``RECORD``, a row per frame.

    Raises:
        StoreFault: it is no store, of another version, damaged in its header, or cut off.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        # A pipe in its place would wait for its other end.
        self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_NONBLOCK", 0))
        try:
            self.key, self._layout = self._read_header()
            records = os.pread(self._fd, len(self.key.names) * RECORD.itemsize, self._layout.records)
            if len(records) < len(self.key.names) * RECORD.itemsize:
                raise StoreFault("changed while it was read")
        except BaseException:
            os.close(self._fd)
            raise
        self.records = np.frombuffer(bytearray(records), RECORD)

    @classmethod
    def create(cls, path: Path, key: StoreKey) -> StoreFile:
        """A file without frames yet; takes the place of one that is there. Its blocks are taken up as frames are written."""
        header = key.to_json()
        with path.open("wb") as file:
            file.write(PREFIX.pack(MAGIC, VERSION, len(header), xxhash.xxh3_64_intdigest(header)) + header)
            file.truncate(Layout.of(key, len(header)).end)
        return cls(path, writable=True)

    def close(self) -> None:
        """Closes the file; no frame can be read afterwards."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, row: int, out: NDArray[np.uint8]) -> bool:
        """Fills ``out`` (H, W, 3), contiguous; False where it cannot be read, or is not what was written."""
        assert self._fd >= 0, "the file has been closed"
        try:
            read = os.preadv(self._fd, [out.reshape(-1).data], self._offset(row))
        except OSError:
            return False
        return read == self.key.frame_bytes and _checksum(out) == int(self.records["checksum"][row])

    def write(self, row: int, frame: NDArray[np.uint8], source: tuple[int, int]) -> None:
        """Keeps a frame (H, W, 3), contiguous, made from a ``source`` (its bytes and time of change, ns).

        The record follows the frame, so a process that is killed in between leaves no record of half a frame.
        """
        _write_all(self._fd, frame.reshape(-1).data, self._offset(row))
        record = np.array([(*source, _checksum(frame))], RECORD)
        _write_all(self._fd, record.tobytes(), self._layout.records + row * RECORD.itemsize)
        self.records[row] = record[0]

    def sync(self) -> None:
        """Returns when all that was written is on the disk."""
        os.fsync(self._fd)

    def taken_bytes(self) -> int:
        """What the file takes up of the disk."""
        status = os.fstat(self._fd)
        return min(status.st_blocks * 512, status.st_size)

    def _offset(self, row: int) -> int:
        return self._layout.frames + row * self.key.frame_bytes

    def _read_header(self) -> tuple[StoreKey, Layout]:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise StoreFault("is no file")
        size = status.st_size
        prefix = os.pread(self._fd, PREFIX.size, 0)
        if len(prefix) < PREFIX.size or not prefix.startswith(MAGIC):
            raise StoreFault("is no frame store")
        _, version, header_bytes, checksum = PREFIX.unpack(prefix)
        if version != VERSION:
            raise StoreFault(f"is of version {version}, not {VERSION}")
        header = os.pread(self._fd, header_bytes, PREFIX.size) if header_bytes <= min(size, MAX_HEADER_BYTES) else b""
        if xxhash.xxh3_64_intdigest(header) != checksum:
            raise StoreFault("has a damaged header")
        try:
            key = _key_of(header)
            layout = Layout.of(key, header_bytes)
        except Exception as error:  # whatever its content brings about
            raise StoreFault("has a header that is none of ours") from error
        if size != layout.end:
            raise StoreFault(f"is cut off: {size} bytes of {layout.end}" if size < layout.end else "is longer than it should be")
        return key, layout


def _key_of(header: bytes) -> StoreKey:
    """The key in a header of anybody's; raises what its content brings about."""
    if header.count(b"[") + header.count(b"{") > MIN_BRACKETS + len(header) // BYTES_PER_BRACKET:
        raise ValueError("it is nested, not a list of names")
    key = StoreKey.from_json(header)
    if not all(isinstance(text, str) for text in (key.dataset, key.data_path, key.made_by)):
        raise TypeError("its fields are no texts")
    if min(key.size_px) <= 0 or key.size_px[0] * key.size_px[1] > IMAGE_PIXELS.most:
        raise ValueError("its frames are of no size that is read")
    return key


def required_bytes(key: StoreKey) -> int:
    """The length of a key's file."""
    return Layout.of(key, len(key.to_json())).end


def _checksum(frame: NDArray[np.uint8]) -> int:
    return xxhash.xxh3_64_intdigest(frame.reshape(-1).data)


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """As ``pwrite``, which may write less where the disk fills up; the next try says why."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
