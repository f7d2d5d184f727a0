"""What files may hold at most: one table of limits, each of which an environment variable changes.

A file from a stranger may claim a picture of 50,000 x 50,000 pixels in 600 bytes. Every reader compares what a file says of itself with
these limits before it makes room for it, so that nothing takes more than 2 GiB of memory or 10 s of time.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from splits.errors import InputError

PREFIX = "MD_MAX_"


class Limit(NamedTuple):
    """One limit.

    Attributes:
        name: the variable that changes it is ``MD_MAX_<name>``.
        default: the most where that is not set.
        unit: what is counted.
        of: what is limited, in words.
    """

    name: str
    default: int
    unit: str
    of: str

    @property
    def variable(self) -> str:
        """The environment variable that changes it."""
        return PREFIX + self.name

    @property
    def most(self) -> int:
        """The limit in force; ``InputError`` where the variable holds no whole number above 0."""
        given = os.environ.get(self.variable, "").strip()
        if not given:
            return self.default
        if not (given.isascii() and given.isdigit() and 0 < len(given) < 19 and int(given)):
            raise InputError(f"{self.variable} is {given[:40]!r}; give a whole number of {self.unit} above 0, or unset it")
        return int(given)

    def require(self, count: int, where: object) -> None:
        """``InputError`` where ``count`` is above the limit.

        Args:
            count: what the file says it holds.
            where: the file, and the place in it if that is known.
        """
        if count > self.most:
            raise InputError(
                f"{where}: {self.of} of {count:,} {self.unit} is not read, at most {self.most:,} are; "
                f"where it is meant, set {self.variable} to more"
            )


# What a machine with 2 GiB to spare reads, and far more than what people have.
IMAGE_PIXELS = Limit("IMAGE_PIXELS", 3 * 2**24, "pixels", "an image")
ARRAY_BYTES = Limit("ARRAY_BYTES", 2**30, "bytes", "an array, unpacked,")
TEXT_BYTES = Limit("TEXT_BYTES", 2**26, "bytes", "a text")
TEXT_LINES = Limit("TEXT_LINES", 1_000_000, "lines", "a text")
CHUNK_BYTES = Limit("CHUNK_BYTES", 2**28, "bytes", "a part of a recording, unpacked,")
UNPACKED_BYTES = Limit("UNPACKED_BYTES", 2**31, "bytes", "an archive's content")
ARCHIVE_ENTRIES = Limit("ARCHIVE_ENTRIES", 100_000, "entries", "an archive")
MODEL_SECONDS = Limit("MODEL_SECONDS", 5, "seconds", "one run of a model on one image")
MODEL_BYTES = Limit("MODEL_BYTES", 5 * 2**28, "bytes", "the memory of a model")
# A decoder keeps up to two dozen pictures; one of 8K in 8 bits has 50 MB, in 10 bits twice as many.
VIDEO_FRAME_BYTES = Limit("VIDEO_FRAME_BYTES", 2**26, "bytes", "a decoded picture of a video")
LIMITS = (
    IMAGE_PIXELS,
    ARRAY_BYTES,
    TEXT_BYTES,
    TEXT_LINES,
    CHUNK_BYTES,
    UNPACKED_BYTES,
    ARCHIVE_ENTRIES,
    MODEL_SECONDS,
    MODEL_BYTES,
    VIDEO_FRAME_BYTES,
)
