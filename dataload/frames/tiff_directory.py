"""The directories of fields that TIFF files and EXIF notes have, walked field by field without following what the fields point to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

# Bytes of one value of each type.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
# How whole numbers of so many bytes are written.
WHOLE = {1: "B", 2: "H", 4: "L", 8: "Q"}


class Field(NamedTuple):
    """A field of a directory.

    Attributes:
        value: its first number, or where its values lie elsewhere the place of the first.
        elsewhere_bytes: how many bytes its values take elsewhere in the file, none where they lie in the field itself.
    """

    tag: int
    value: int
    elsewhere_bytes: int


class Directories:
    """The directories of a file's bytes; every method raises ``struct.error`` where these end before."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.is_big = data[2:4] in (b"+\0", b"\0+")
        self.count, self.field, self.link = ("Q", "HHQ8s", "Q") if self.is_big else ("H", "HHL4s", "L")
        self.count_bytes, self.field_bytes, self.link_bytes = (
            struct.calcsize(self.order + form) for form in (self.count, self.field, self.link)
        )

    def start(self) -> int:
        """Where the first directory begins."""
        return int(self._unpack(self.link, 8 if self.is_big else 4)[0])

    def next(self, place: int) -> int:
        """Where the directory after the one at ``place`` begins; 0 for none."""
        number = int(self._unpack(self.count, place)[0])
        return int(self._unpack(self.link, place + self.count_bytes + number * self.field_bytes)[0])

    def fields(self, place: int) -> Iterator[Field]:
        """The fields of the directory at ``place``."""
        number = int(self._unpack(self.count, place)[0])
        for at in range(place + self.count_bytes, place + self.count_bytes + number * self.field_bytes, self.field_bytes):
            tag, kind, count, raw = self._unpack(self.field, at)
            one = VALUE_BYTES.get(kind, 0)
            if one * count > self.link_bytes:
                yield Field(tag, int(struct.unpack(self.order + self.link, raw)[0]), min(one * count, len(self.data)))
            elif one and count:
                yield Field(tag, int(struct.unpack_from(self.order + WHOLE[one], raw)[0]), 0)

    def _unpack(self, form: str, place: int) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + form, self.data, place)
