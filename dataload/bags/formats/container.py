"""The interface of the file formats of recordings: where each message lies, and what cannot be read.

Each file is walked from its beginning, never from its index: a file that was cut off has no index, and is read to the cut the same way.
Only the first bytes of a message are read at first, which hold its stamp; the rest is read when it is wanted.
"""

from __future__ import annotations

import bz2
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, Protocol

from splits.errors import InputError, one_line
from splits.faults import first_line
from splits.limits import CHUNK_BYTES

# Enough for the stamp of a std_msgs/Header, which begins every message that we read: in both serialisations it ends at byte 12.
HEAD_BYTES = 12
ROS1, CDR = "ros1", "cdr"
CUT_OFF, GARBLED, GARBLED_MESSAGE, IS_CUT_OFF = "a message is cut off", "a record is garbled", "a message is garbled", "it is cut off"
# Cameras and scanners pack to a half or a tenth; beyond a hundredth there is nothing in a file but itself repeated.
EXPANSION = 100
# A message with its header takes 31 bytes at least, packed no less than this in the mean; so many are read of any file.
LEAST_RECORD_BYTES, FREE_RECORDS = 16, 250_000
# Of topics and their types: real robots have some hundreds, with names of some dozen letters.
MOST_TOPICS, MOST_NAME = 10_000, 256
MOST_SHOWN = 120  # letters of a text out of a recording that a message shows
# Programs pack a part in one piece, a file in one per core or per some megabytes. Each piece costs a copy of what is left.
MOST_PIECES, PIECE_BYTES = 256, 2**16
BLOCK_BYTES = 2**20
Place = tuple[int, ...]


class Damage(Exception):
    """Part of a recording cannot be read; says what, in a few words."""


class Topic(NamedTuple):
    """A topic of a recording: its name, the type in ROS 2's spelling (``sensor_msgs/msg/Image``), ``ROS1`` or ``CDR``."""

    name: str
    msgtype: str
    encoding: str


class Entry(NamedTuple):
    """A message in the file: when it was recorded, its first ``HEAD_BYTES`` bytes, and where it lies, for ``Container.read``."""

    topic: Topic
    log_ns: int
    head: bytes
    place: Place


class Container(Protocol):
    """One file of a recording."""

    def entries(self, wanted: Callable[[Topic], bool]) -> Iterator[Entry]:
        """Every message that can be reached, in the order of the file; of topics that are not wanted ``head`` may be empty.

        Raises:
            Damage: at the end, where the file is cut off or part of it could not be read.
        """

    def read(self, place: Place) -> bytes:
        """A message, serialised; ``Damage`` where it cannot be read."""

    def close(self) -> None:
        """Close the file."""


def msgtype_of(name: str) -> str:
    """A type's name in the spelling of ROS 2; ROS 1 leaves ``msg`` out."""
    package, _, rest = name.partition("/")
    return name if not rest or rest.startswith("msg/") else f"{package}/msg/{rest}"


def named(text: str) -> str:
    """A name out of a recording as it can be shown: in one line, not too long, without what a terminal acts on."""
    return one_line(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def topic_of(name: str, msgtype: str, encoding: str) -> Topic:
    """A topic as a recording names it; ``Damage`` where no topic has such a name."""
    if max(len(name), len(msgtype)) > MOST_NAME:
        raise Damage(GARBLED)
    return Topic(one_line(name), one_line(msgtype_of(msgtype)), encoding)


@contextmanager
def garbled(what: str = GARBLED) -> Iterator[None]:
    """Whatever bytes that are not what they should be bring about in the block becomes ``Damage``, saying ``what``."""
    try:
        yield
    except (Damage, InputError, ImportError):  # the last: a package is missing
        raise
    except Exception as error:
        raise Damage(what) from error


def join_faults(faults: Sequence[str]) -> str:
    """What is wrong with a file in one line, each fault once, with how often it was met."""
    return "; ".join(f"{fault} ({n} times)" if n > 1 else fault for fault, n in Counter(faults).items())


def require_part(num_bytes: int) -> None:
    """``Damage`` where a chunk or a message is larger than what is read at once."""
    if num_bytes > CHUNK_BYTES.most:
        raise Damage(f"a part of more than {CHUNK_BYTES.most:,} bytes is left out ({CHUNK_BYTES.variable} takes larger ones)")


class Expansion:
    """Counts what a file unpacks to: a few bytes of a packed part can stand for gigabytes, and a recording has any number of parts.

    Args:
        file_bytes: of the file as it lies on the disk.
    """

    def __init__(self, file_bytes: int) -> None:
        self._most_bytes = CHUNK_BYTES.most + EXPANSION * file_bytes
        self._most_records = FREE_RECORDS + file_bytes // LEAST_RECORD_BYTES
        self._bytes = self._records = 0

    def take_bytes(self, num_bytes: int) -> None:
        """``Damage`` where all parts together unpack to more than a recording of that size does."""
        self._bytes += num_bytes
        if self._bytes > self._most_bytes:
            raise Damage(
                f"it unpacks to more than {self._most_bytes:,} bytes, more than {EXPANSION} times its own ({CHUNK_BYTES.variable} adds)"
            )

    def take_record(self) -> None:
        """``Damage`` where there are more records than a recording of that size has: a file can repeat empty ones for ever."""
        self._records += 1
        if self._records > self._most_records:
            raise Damage(f"it holds more than {self._most_records:,} records, too many for its size")


def unpack(compression: str, data: bytes, most_bytes: int) -> bytes:
    """A chunk as it was before it was packed.

    Args:
        most_bytes: what the recording says that it unpacks to; more is not unpacked.

    Raises:
        Damage: an unknown way of packing; the bytes are not what they are said to be, unpack to more, or are more than is read at once.
    """
    if compression in ("", "none"):
        return data
    if compression not in ("bz2", "lz4", "zstd"):
        raise Damage(f"a part is compressed by {named(compression)!r}, not none, bz2, lz4 or zstd; ROS's own tools convert it")
    require_part(max(len(data), most_bytes))
    return _unpack_by(_decompressor(compression), data, most_bytes)


def unpack_zstd(data: bytes) -> bytes:
    """A message that was packed by zstd; ``Damage`` where it was not, or is larger than what is read at once."""
    require_part(len(data))
    return _unpack_by(_decompressor("zstd"), data, CHUNK_BYTES.most)


def head_of_zstd(read: Callable[[], bytes]) -> bytes:
    """The first ``HEAD_BYTES`` of a message that was packed by zstd.

    None where it cannot be read or does not unpack, which is found again, and said, when it is converted: the messages behind it are sound.
    """
    with suppress(Damage), garbled():
        return bytes(_decompressor("zstd")().decompress(read(), HEAD_BYTES))
    return b""


def _decompressor(compression: str) -> Callable[[], Any]:
    if compression == "bz2":
        return bz2.BZ2Decompressor
    if compression == "zstd":
        return zstd_module().ZstdDecompressor
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor


def _unpack_by(decompressor: Callable[[], Any], data: bytes, most_bytes: int) -> bytes:
    """What packed bytes hold, in one piece or several behind each other; no more than a byte above ``most_bytes`` is ever unpacked."""
    parts, left = [], most_bytes + 1
    try:
        while data:
            one = decompressor()
            parts.append(one.decompress(data, left))
            left -= len(parts[-1])
            if left and not one.eof:
                raise EOFError("it is cut off")
            data = one.unused_data if left else b""
            if data and len(parts) == MOST_PIECES:
                raise ValueError("it comes in too many pieces")
    except Exception as error:  # whatever the libraries make of garbled bytes
        raise Damage(f"a compressed part does not unpack ({first_line(error)})") from error
    if not left:
        raise Damage("a compressed part unpacks to more than it says, or than is read at once")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def stream_zstd(packed: BinaryIO, file_bytes: int) -> Iterator[bytes]:
    """What a file of so many bytes that was packed by zstd holds, part by part; ``Damage`` where it does not unpack, or is cut off."""
    one, pieces = _decompressor("zstd")(), 1
    while block := (one.unused_data if one.eof else b"") or packed.read(BLOCK_BYTES):
        if one.eof:
            one, pieces = _decompressor("zstd")(), pieces + 1
        if pieces > MOST_PIECES + file_bytes // PIECE_BYTES:
            raise Damage("it comes in too many pieces")
        with garbled("it does not unpack"):
            yield one.decompress(block, BLOCK_BYTES)
            while not (one.eof or one.needs_input):
                yield one.decompress(b"", BLOCK_BYTES)
    if not one.eof:
        raise Damage(IS_CUT_OFF)


def zstd_module():  # type: ignore[no-untyped-def]
    """Python's own zstd, or what rosbags brings for Python below 3.14."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd
    return zstd


def checksum(data: bytes) -> int:
    """The CRC-32 that MCAP writes beside its chunks."""
    return zlib.crc32(data)
