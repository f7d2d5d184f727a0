"""Checksums beside weights: the file ``SHA256SUMS``, which ``sha256sum -c SHA256SUMS`` reads too.

Its last line, a comment, is the checksum of the lines above it. So a flipped bit is noticed in the weights and in the checksums alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from dataload.system.console import console
from splits.errors import InputError
from splits.reading import read_text

SUMS_FILE = "SHA256SUMS"
REMEDY = f"copy the folder again, or take another; where you changed it yourself, remove its {SUMS_FILE}"
LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\n]+)")
# Far above the few hundred of ours.
MOST_BYTES = 2**20
CHUNK_BYTES = 2**20


def digest_of(content: bytes | memoryview) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file, read in parts."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK_BYTES):
            found.update(part)
    return found.hexdigest()


def sums_text(digests: Mapping[str, str]) -> str:
    """The content of ``SHA256SUMS`` for the digests of files by their names."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return f"{lines}# {digest_of(lines.encode())}\n"


def require_undamaged(path: Path) -> bool:
    """Compare a file with the checksum that was written beside it, where one was; returns whether one was.

    A list without our last line is another program's: of such a one, only what it names is compared.

    Raises:
        InputError: the file has changed since, our list does not name it, or the list is damaged.
        OSError: the file cannot be read.
    """
    sums = path.parent / SUMS_FILE
    if not sums.is_file():
        console.debug("%s has no %s beside it: whether it is as it was written is not known", path, SUMS_FILE)
        return False
    text = read_text(sums, "a list of checksums", REMEDY, MOST_BYTES)
    lines, is_ours = _lines(text, sums)
    listed = lines.get(path.name)
    if listed is None:
        if is_ours:
            raise InputError(f"{path} is not in the list {SUMS_FILE} of its folder, so it was put there later; {REMEDY}")
        console.debug("%s is not in %s: whether it is as it was written is not known", path, sums)
    elif digest_of_file(path) != listed:
        raise InputError(f"{path} is damaged: it is not what was written, by the checksum in {SUMS_FILE} beside it; {REMEDY}")
    return listed is not None


def _lines(text: str, path: Path) -> tuple[dict[str, str], bool]:
    """The digests by name, and whether the list is ours."""
    above, mark, last = text.rpartition("# ")
    if mark and last != f"{digest_of(above.encode())}\n":
        raise InputError(f"{path} is damaged: its last line is not the checksum of the lines above it; {REMEDY}")
    found = {}
    for line in (above if mark else text).splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{path} is damaged: {line[:80]!r} is no checksum with a file's name; {REMEDY}")
        found[match[2]] = match[1]
    return found, bool(mark)
