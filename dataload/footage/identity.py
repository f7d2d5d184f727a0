"""The identity of recordings and videos by their content, not by their names: a copy elsewhere or under another name is the same one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from splits.faults import parsing
from splits.reading import open_file

# Places of a file that are hashed, spread from its first byte to its last: a megabyte in all, however large the file. Two recordings of
# one camera share neither noise nor stamps, so any of these places differs; what is cut off or not yet copied shows in the size or at
# the end.
PLACES, PLACE_BYTES = 16, 2**16
COPY = "copy it again, or leave it out"
MOST_PATH = 300  # letters that a message shows
SAME, GROWN, OTHER = "same", "grown", "other"


class Fingerprint(NamedTuple):
    """The size of a file, and a hash of places all over it."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, num_bytes: int | None = None) -> Fingerprint:
        """The fingerprint of a file, or of its first ``num_bytes``."""
        digest = hashlib.sha256()
        with (
            open_file(path, "a recording or a video", "name the file itself") as file,
            parsing(path, "a file that can be read", "copy it again"),
        ):
            size = os.fstat(file.fileno()).st_size if num_bytes is None else num_bytes
            for place in range(PLACES):
                start = max(0, size - PLACE_BYTES) * place // (PLACES - 1)
                file.seek(start)
                digest.update(file.read(min(PLACE_BYTES, size - start)))
        return cls(size, digest.hexdigest())

    def is_beginning_of(self, path: Path) -> bool:
        """Whether the file that this was taken of was the whole or the beginning of ``path``."""
        return self.bytes <= path.stat().st_size and Fingerprint.of(path, self.bytes) == self


def identify(path: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What is kept of a recording to know it again: where it lay, and the fingerprints of its files in their order."""
    return {"path": str(path.absolute()), "files": [Fingerprint.of(file)._asdict() for file in files]}


def compare(known: object, files: Sequence[Path]) -> str:
    """Whether files are ``SAME`` as ``identify`` saw, ``GROWN`` from them (then cut off, or still being written), or ``OTHER``."""
    before = _fingerprints(known)
    if not before or len(before) > len(files):
        return OTHER
    if len(before) == len(files) and all(map(_is_whole, before, files)):
        return SAME
    return GROWN if all(map(Fingerprint.is_beginning_of, before, files)) else OTHER


def _fingerprints(known: object) -> list[Fingerprint]:
    """What ``identify`` kept of the files; none where an earlier version kept it, or somebody has edited it."""
    entries = known.get("files") if isinstance(known, Mapping) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, Mapping) and entry.keys() == set(Fingerprint._fields) for entry in entries
    ):
        return []
    found = [Fingerprint(entry["bytes"], entry["sha256"]) for entry in entries]
    return found if all(type(one.bytes) is int and one.bytes >= 0 and isinstance(one.sha256, str) for one in found) else []


def describe(known: object) -> str:
    """The recording that ``identify`` saw, for messages."""
    return str((known.get("path") if isinstance(known, Mapping) else None) or "a recording that it does not name")[:MOST_PATH]


def _is_whole(known: Fingerprint, file: Path) -> bool:
    return known.bytes == file.stat().st_size and known.is_beginning_of(file)
