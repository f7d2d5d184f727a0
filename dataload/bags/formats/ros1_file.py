"""ROS 1 recordings (``.bag``, version 2.0) from their first byte on.

A file is a row of records: a header of ``name=value`` fields, then data, each after its length. Messages and the topics they belong to
lie in chunks, which may be compressed; what follows the chunks repeats where they are and is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dataload.bags.formats.chunked_file import Chunk, ChunkedFile, Read
from dataload.bags.formats.container import (
    CUT_OFF,
    GARBLED,
    HEAD_BYTES,
    IS_CUT_OFF,
    MOST_NAME,
    ROS1,
    Damage,
    Entry,
    Place,
    garbled,
    named,
    topic_of,
    unpack,
)

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, CHUNK, CONNECTION = 2, 3, 5, 7
PEEK_BYTES = 256  # a record's header and the start of its data
# Headers have some dozen bytes; a topic comes with the text of its type, which is some kilobytes.
MOST_HEADER_BYTES, MOST_TOPIC_BYTES = 2**16, 2**22
_uint32 = struct.Struct("<I").unpack_from
_time = struct.Struct("<II").unpack_from


class _Record(NamedTuple):
    fields: dict[bytes, bytes]
    data_at: int
    data_size: int
    head: bytes  # the first bytes of the data

    @property
    def op(self) -> int:
        return (self.fields.get(b"op") or b"\0")[0]


class Ros1File(ChunkedFile):
    """A ``.bag``; ``InputError`` where the file is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MAGIC)

    def read(self, place: Place) -> bytes:
        """As ``Container.read``."""
        chunk_at, offset, size = place
        chunk = self._chunks[chunk_at]
        plain = chunk.compression == "none"
        data = self._read_part(chunk.data_at + offset, size) if plain else self._content(chunk_at)[offset : offset + size]
        if len(data) < size:
            raise Damage(CUT_OFF)
        return data

    def _name_other(self, start: bytes) -> str:
        version = start.decode("ascii", "replace").strip() if start.startswith(b"#ROSBAG") else ""
        return f"of another version ({named(version)}); rosbag migrate makes it one of 2.0" if version else "not a ROS 1 recording"

    def _file_entries(self) -> Iterator[Entry]:
        indexed = False
        for number, record in enumerate(self._records(self._read, len(MAGIC), self._size)):
            # The first record alone, as the index may be read once.
            if record.op == BAG_HEADER and not number:
                index_at = int.from_bytes(record.fields.get(b"index_pos", b""), "little")
                indexed = index_at > 0
                self._read_topics(index_at)
            elif record.op == CHUNK:
                yield from self._chunk_entries(record)
        if not indexed and not self._faults:
            raise Damage("it has no index: the recording was not closed properly")

    def _chunk_entries(self, record: _Record) -> Iterator[Entry]:
        compression = record.fields.get(b"compression", b"none").decode("ascii", "replace")
        says = int.from_bytes(record.fields.get(b"size", b""), "little")
        chunk = Chunk(record.data_at, record.data_size, compression, says)
        self._chunks[chunk.data_at] = chunk
        if compression == "none":
            # What is there of a chunk that is cut off is as good as the rest.
            records = self._records(lambda at, size: self._read(chunk.data_at + at, size), 0, chunk.data_size)
        else:
            data = self._whole_content(chunk.data_at)
            if data is None:
                return
            records = self._records(lambda at, size: data[at : at + size], 0, len(data))
        for inner in records:
            entry = self._message_or_topic(inner, chunk)
            if entry is not None:
                yield entry

    def _read_topics(self, index_at: int) -> None:
        """The topics as the index repeats them: they lie in chunks once each, and the chunk may be one that cannot be read."""
        if not 0 < index_at < self._size:
            return
        with suppress(Damage):
            for record in self._records(self._read, index_at, self._size):
                if record.op != CONNECTION:
                    break
                self._note_topic(record, self._read(record.data_at, min(record.data_size, MOST_TOPIC_BYTES)))

    def _note_topic(self, record: _Record, data: bytes) -> None:
        if record.data_size > MOST_TOPIC_BYTES or len(record.fields.get(b"topic", b"")) > MOST_NAME:
            raise Damage(GARBLED)
        with garbled():
            name = "/".join(part for part in record.fields[b"topic"].decode().split("/") if part)
            kind = _fields(data)[b"type"].decode()
            self._note(_uint32(record.fields[b"conn"])[0], topic_of("/" + name, kind, ROS1))

    def _message_or_topic(self, record: _Record, chunk: Chunk) -> Entry | None:
        """The message of a record; None where it is none, but a topic, which is noted down."""
        place = (chunk.data_at, record.data_at, record.data_size)
        if record.op == CONNECTION:
            self._note_topic(record, record.head if len(record.head) == record.data_size else self.read(place))
            return None
        if record.op != MESSAGE:
            return None
        if chunk.compression == "none" and chunk.data_at + record.data_at + record.data_size > self._size:
            raise Damage(IS_CUT_OFF)
        topic = self._topics.get(_uint32(record.fields[b"conn"])[0])
        seconds, nanoseconds = _time(record.fields[b"time"])
        if topic is None:
            return None
        return Entry(topic, seconds * 10**9 + nanoseconds, record.head[:HEAD_BYTES], place)

    def _records(self, read: Read, begin: int, end: int) -> Iterator[_Record]:
        """The records of a file or of a chunk; ``Damage`` where one does not fit into what there is."""
        at = begin
        while at < end:
            self._expansion.take_record()
            peek = read(at, PEEK_BYTES)
            size = _uint32(peek)[0] if len(peek) >= 4 else 0
            if size > MOST_HEADER_BYTES or (not size and len(peek) >= 4):  # a disk that failed leaves zeros
                raise Damage(GARBLED)
            if size + 8 > len(peek):
                peek = read(at, size + 8 + PEEK_BYTES)
            if len(peek) < size + 8:
                raise Damage(IS_CUT_OFF)
            data_size = _uint32(peek, 4 + size)[0]
            record = _Record(_fields(peek[4 : 4 + size]), at + size + 8, data_size, peek[size + 8 : size + 8 + data_size])
            yield record
            at = record.data_at + data_size
        if at > end or (begin < at and not read(at - 1, 1)):
            raise Damage(IS_CUT_OFF)

    def _unpack(self, chunk: Chunk, packed: bytes) -> bytes:
        return unpack(chunk.compression, packed, chunk.unpacked_size)


def _fields(header: bytes) -> dict[bytes, bytes]:
    """The ``name=value`` fields of a header; ``Damage`` where it is none."""
    fields, at = {}, 0
    while at < len(header):
        if at + 4 > len(header):
            raise Damage(GARBLED)
        size = _uint32(header, at)[0]
        name, equals, value = header[at + 4 : at + 4 + size].partition(b"=")
        if not equals or at + 4 + size > len(header):
            raise Damage(GARBLED)
        fields[name] = value
        at += 4 + size
    return fields
