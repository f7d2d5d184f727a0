"""MCAP recordings from their first byte on.

A file is a row of records: a byte for the kind, the length, the content. Messages and the channels they belong to lie in chunks, which may
be compressed, or in the open; what follows the end of the data repeats where they are and is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataload.bags.formats.chunked_file import Chunk, ChunkedFile, Read
from dataload.bags.formats.container import (
    CDR,
    CUT_OFF,
    GARBLED,
    HEAD_BYTES,
    IS_CUT_OFF,
    MOST_NAME,
    ROS1,
    Damage,
    Entry,
    Place,
    checksum,
    topic_of,
    unpack,
)

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 3, 4, 5, 6, 15
MESSAGE_HEADER_BYTES = 22  # channel, sequence, two times
PEEK_BYTES = 64
NAMES_BYTES = 2**16
_uint16 = struct.Struct("<H").unpack_from
_uint32 = struct.Struct("<I").unpack_from
_uint64 = struct.Struct("<Q").unpack_from
_chunk_header = struct.Struct("<QQQI").unpack_from


class _Record(NamedTuple):
    op: int
    at: int
    size: int
    head: bytes  # the first bytes of the content


class McapFile(ChunkedFile):
    """An ``.mcap``; ``InputError`` where the file is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MAGIC)
        self._schemas: dict[int, str] = {}

    def read(self, place: Place) -> bytes:
        """As ``Container.read``."""
        chunk_at, at, size = place
        data = self._read_part(at, size) if chunk_at < 0 else self._content(chunk_at)[at : at + size]
        if len(data) < size:
            raise Damage(CUT_OFF)
        return data

    def _name_other(self, start: bytes) -> str:
        return "no MCAP recording"

    def _file_entries(self) -> Iterator[Entry]:
        for record in self._records(self._read, len(MAGIC), self._size):
            if record.op == DATA_END:
                if self._read(self._size - len(MAGIC), len(MAGIC)) != MAGIC:
                    raise Damage("it is cut off, though after all messages")
                return
            if record.op == CHUNK:
                yield from self._chunk_entries(record)
            elif record.at + record.size > self._size:
                raise Damage(IS_CUT_OFF)
            else:
                yield from self._message_or_topic(record, self._read, -1)
        raise Damage("it has no end: the recording was not closed properly")

    def _chunk_entries(self, record: _Record) -> Iterator[Entry]:
        head = self._read(record.at, 4096)
        if len(head) < 40 or len(head) < 40 + _uint32(head, 28)[0]:
            raise Damage(IS_CUT_OFF)
        _, _, unpacked_size, crc = _chunk_header(head)
        name_size = _uint32(head, 28)[0]
        data_size = _uint64(head, 32 + name_size)[0]
        compression = head[32 : 32 + name_size].decode("ascii", "replace")
        if 40 + name_size + data_size > record.size:
            raise Damage(GARBLED)
        chunk = Chunk(record.at + 40 + name_size, data_size, compression, unpacked_size, crc)
        self._chunks[record.at] = chunk
        if not compression:
            # What is there of a chunk that is cut off is as good as the rest.
            for inner in self._records(self._read, chunk.data_at, chunk.data_at + data_size):
                if inner.at + inner.size > self._size:
                    raise Damage(IS_CUT_OFF)
                yield from self._message_or_topic(inner, self._read, -1)
            return
        content = self._whole_content(record.at)
        if content is None:
            return
        data = content

        def read(at: int, size: int) -> bytes:
            return data[at : at + size]

        for inner in self._records(read, 0, len(data)):
            yield from self._message_or_topic(inner, read, record.at)

    def _message_or_topic(self, record: _Record, read: Read, chunk_at: int) -> Iterator[Entry]:
        if record.op == MESSAGE:
            if len(record.head) < min(record.size, MESSAGE_HEADER_BYTES) or record.size < MESSAGE_HEADER_BYTES:
                raise Damage(GARBLED)
            topic = self._topics.get(_uint16(record.head)[0])
            if topic is not None:
                place = (chunk_at, record.at + MESSAGE_HEADER_BYTES, record.size - MESSAGE_HEADER_BYTES)
                head = record.head[MESSAGE_HEADER_BYTES : MESSAGE_HEADER_BYTES + HEAD_BYTES]
                yield Entry(topic, _uint64(record.head, 6)[0], head, place)
        elif record.op in (SCHEMA, CHANNEL):
            # The names stand first; what follows, a schema's text or a channel's notes, is not needed.
            content = read(record.at, min(record.size, NAMES_BYTES))
            if record.op == SCHEMA:
                self._schemas[_uint16(content)[0]] = _string(content, 2)[0]
            else:
                name, after = _string(content, 4)
                encoding, _ = _string(content, after)
                msgtype = self._schemas.get(_uint16(content, 2)[0], "")
                self._note(_uint16(content)[0], topic_of(name, msgtype, ROS1 if encoding == ROS1 else CDR))

    def _records(self, read: Read, begin: int, end: int) -> Iterator[_Record]:
        """The records of a file or of a chunk; ``Damage`` where a header is cut off. Whether the content is complete is not checked."""
        at = begin
        while at < end:
            self._expansion.take_record()
            peek = read(at, PEEK_BYTES)
            if len(peek) < 9:
                raise Damage(IS_CUT_OFF)
            if not peek[0]:  # no kind has this number: a disk that failed leaves zeros
                raise Damage(GARBLED)
            size = _uint64(peek, 1)[0]
            yield _Record(peek[0], at + 9, size, peek[9 : 9 + size])
            at += 9 + size
        if at > end:
            raise Damage(IS_CUT_OFF)

    def _unpack(self, chunk: Chunk, packed: bytes) -> bytes:
        data = unpack(chunk.compression, packed, chunk.unpacked_size)
        if len(data) != chunk.unpacked_size or (chunk.crc and checksum(data) != chunk.crc):
            raise Damage("a compressed part does not match its checksum")
        return data


def _string(content: bytes, at: int) -> tuple[str, int]:
    """A string and where it ends; ``Damage`` where it is longer than names are."""
    size = _uint32(content, at)[0]
    if size > MOST_NAME:
        raise Damage(GARBLED)
    return content[at + 4 : at + 4 + size].decode(), at + 4 + size
