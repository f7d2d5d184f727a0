"""The interface of the file formats of recordings: where each message lies, and what cannot be read.

Each file is walked from its beginning, never from its index: a file that was cut off has no index, and is read to the cut the same way.
Only the first bytes of a message are read at first, which hold its stamp; the rest is read when it is wanted.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from splits.errors import InputError

# Enough for the stamp of a std_msgs/Header, which begins every message that we read: in both serialisations it ends at byte 12.
HEAD_BYTES = 12
ROS1, CDR = "ros1", "cdr"
CUT_OFF, GARBLED, IS_CUT_OFF = "a message is cut off", "a record is garbled", "it is cut off"
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


def join_faults(faults: Sequence[str]) -> str:
    """What is wrong with a file in one line, each fault once, with how often it was met."""
    return "; ".join(f"{fault} ({n} times)" if n > 1 else fault for fault, n in Counter(faults).items())


def unpack(compression: str, data: bytes) -> bytes:
    """A chunk as it was before it was packed.

    Raises:
        Damage: the bytes are not what they are said to be.
        InputError: an unknown way of packing.
    """
    import bz2

    import lz4.frame

    if compression in ("", "none"):
        return data
    if compression not in ("bz2", "lz4", "zstd"):
        raise InputError(f"the recording is compressed by {compression!r}, not none, bz2, lz4 or zstd; convert it with ROS's own tools")
    try:
        if compression == "bz2":
            return bz2.decompress(data)
        return lz4.frame.decompress(data) if compression == "lz4" else unpack_zstd(data)
    except (OSError, ValueError, RuntimeError, EOFError) as error:  # lz4 raises RuntimeError
        raise Damage(f"a compressed part does not unpack ({error})") from error


def unpack_zstd(data: bytes) -> bytes:
    """Bytes packed by zstd; ``Damage`` where they are not."""
    zstd = zstd_module()
    try:
        return zstd.decompress(data)
    except (zstd.ZstdError, EOFError) as error:
        raise Damage(f"a compressed part does not unpack ({error})") from error


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
