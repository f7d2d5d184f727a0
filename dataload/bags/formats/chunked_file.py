"""The common part of files whose messages lie in chunks, which may be compressed: ROS 1's and MCAP's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import NamedTuple, cast

from dataload.bags.formats.container import IS_CUT_OFF, MOST_TOPICS, Damage, Entry, Expansion, Topic, garbled, join_faults, require_part
from splits.errors import InputError
from splits.reading import open_file

Read = Callable[[int, int], bytes]  # (where, how many bytes) to those bytes, fewer at the end


class Chunk(NamedTuple):
    """Where a chunk's content lies in the file, how it is packed, and what it says that it unpacks to: its size, its CRC-32 or 0."""

    data_at: int
    data_size: int
    compression: str
    unpacked_size: int
    crc: int = 0


class ChunkedFile(ABC):
    """A file that begins with ``magic``; ``InputError`` where it does not."""

    def __init__(self, path: Path, magic: bytes) -> None:
        with ExitStack() as stack:
            opened = stack.enter_context(open_file(path, "a recording", "copy it again, or leave it out"))
            self._file = BufferedReader(cast(RawIOBase, opened))
            start = self._file.read(len(magic))
            if start != magic:
                raise InputError(f"{path} is {self._name_other(start) if start else 'empty'}")
            self._opened = stack.pop_all()
        self._size = path.stat().st_size
        self._topics: dict[int, Topic] = {}
        self._chunks: dict[int, Chunk] = {}
        self._expansion = Expansion(self._size)
        self._last_unpacked: tuple[int, bytes] = (-1, b"")
        self._faults: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def entries(self, wanted: Callable[[Topic], bool]) -> Iterator[Entry]:
        """As ``Container.entries``."""
        self._faults = []
        self._expansion = Expansion(self._size)
        try:
            with garbled():
                yield from self._file_entries()
        except Damage as damage:
            self._faults.append(str(damage))
        if self._faults:
            raise Damage(join_faults(self._faults))

    @abstractmethod
    def _name_other(self, start: bytes) -> str:
        """What to call a file that begins otherwise."""

    @abstractmethod
    def _file_entries(self) -> Iterator[Entry]:
        """Every message that can be reached; ``Damage`` ends it, what else is wrong is added to ``_faults``."""

    @abstractmethod
    def _unpack(self, chunk: Chunk, packed: bytes) -> bytes:
        """A chunk's content; ``Damage`` where it does not unpack."""

    def _content(self, chunk_at: int) -> bytes:
        """The content of the chunk that is known by that place; the last one is kept, as messages are read in the order of the file."""
        if self._last_unpacked[0] != chunk_at:
            chunk = self._chunks[chunk_at]
            require_part(chunk.data_size)
            self._last_unpacked = (-1, b"")  # two at once would be twice the memory
            packed = self._read(chunk.data_at, chunk.data_size)
            if len(packed) < chunk.data_size:
                raise Damage(IS_CUT_OFF)
            self._last_unpacked = (chunk_at, self._unpack(chunk, packed))
        return self._last_unpacked[1]

    def _whole_content(self, chunk_at: int) -> bytes | None:
        """The same; None where it does not unpack, which is added to the faults unless the file ends within the chunk."""
        self._expansion.take_bytes(self._chunks[chunk_at].unpacked_size)
        try:
            return self._content(chunk_at)
        except Damage as damage:
            chunk = self._chunks[chunk_at]
            if chunk.data_at + chunk.data_size <= self._size:
                self._faults.append(str(damage))
            return None

    def _note(self, number: int, topic: Topic) -> None:
        """Keep a topic under the number that the file's messages call it by."""
        if len(self._topics) >= MOST_TOPICS and number not in self._topics:
            raise Damage(f"it names more than {MOST_TOPICS:,} topics")
        self._topics[number] = topic

    def _read_part(self, at: int, size: int) -> bytes:
        """A message in the open; ``Damage`` where it is larger than what is read at once."""
        require_part(size)
        return self._read(at, size)

    def _read(self, at: int, size: int) -> bytes:
        try:
            # Garbled lengths can be as large as 64 bits allow.
            self._file.seek(min(max(at, 0), self._size))
            return self._file.read(min(size, self._size))
        except OSError as error:  # of the disk; in reading it is a fault of this file
            raise Damage(f"the disk cannot read it ({error.strerror})") from error
