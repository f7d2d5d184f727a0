"""Checksums beside what we write: ``SHA256SUMS`` in a folder of weights, ``model.onnx.sha256`` beside a file that may lie among others.

``sha256sum -c`` reads them too. The last line of a list, a comment, is the checksum of the lines above it. So a flipped bit is noticed in a
file and in its checksum alike.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from dataload.system.console import console
from splits.errors import InputError
from splits.reading import read_text

SUMS_FILE = "SHA256SUMS"
OWN_SUFFIX = ".sha256"
# Before the digest of a name that is not written as it is, as sha256sum has it.
ESCAPED = "\\"
LINE = re.compile(r"\\?([0-9a-f]{64}) [ *]([^\n]+)")
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
    """The content of a list for the digests of files by their names."""
    names = {name: _listed(name) for name in sorted(digests)}
    lines = "".join(f"{'' if name == shown else ESCAPED}{digests[name]}  {shown}\n" for name, shown in names.items())
    return f"{lines}# {digest_of(lines.encode())}\n"


def own_sums(path: Path) -> Path:
    """The list of one file alone, beside it."""
    return path.parent / (path.name + OWN_SUFFIX)


def require_undamaged(path: Path, *, among_others: bool = False) -> bool:
    """Compare a file with the checksum that was written beside it, where one was; returns whether one was.

    A list without our last line is another program's: of such a one, only what it names is compared.

    Args:
        path: the file.
        among_others: it may lie in a folder of anything. Its own list counts before that of the folder, which need not name it.

    Raises:
        InputError: the file has changed since, our list does not name it, or the list is damaged.
        OSError: the file cannot be read.
    """
    own = own_sums(path)
    has_own = among_others and os.path.isfile(own)  # a name that is too long for a list is no fault
    sums = own if has_own else path.parent / SUMS_FILE
    if not sums.is_file():
        console.debug("%s has no %s beside it: whether it is as it was written is not known", path, sums.name)
        return False
    what = "file" if has_own else "folder"
    remedy = f"copy the {what} again, or take another; where you changed it yourself, remove its {sums.name}"
    lines, is_ours = _lines(read_text(sums, "a list of checksums", remedy, MOST_BYTES), sums, remedy)
    listed = lines.get(_listed(path.name))
    if listed is None:
        if is_ours and (has_own or not among_others):
            raise InputError(f"{path} is not in the list {sums.name} beside it, so it was put there later; {remedy}")
        console.debug("%s is not in %s: whether it is as it was written is not known", path, sums)
    elif digest_of_file(path) != listed:
        raise InputError(f"{path} is damaged: it is not what was written, by the checksum in {sums.name} beside it; {remedy}")
    return listed is not None


def _listed(name: str) -> str:
    """A file's name on one line, as sha256sum writes it; bytes that are not UTF-8 stand there as ``\\udce9``."""
    for letter, shown in (("\\", r"\\"), ("\n", r"\n"), ("\r", r"\r")):
        name = name.replace(letter, shown)
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _lines(text: str, path: Path, remedy: str) -> tuple[dict[str, str], bool]:
    """The digests by name, and whether the list is ours."""
    above, mark, last = text.rpartition("# ")
    if mark and last != f"{digest_of(above.encode())}\n":
        raise InputError(f"{path} is damaged: its last line is not the checksum of the lines above it; {remedy}")
    found = {}
    for line in (above if mark else text).removesuffix("\n").split("\n"):
        match = LINE.fullmatch(line.removesuffix("\r"))
        if match is None:
            raise InputError(f"{path} is damaged: {line[:80]!r} is no checksum with a file's name; {remedy}")
        found[match[2]] = match[1]
    return found, bool(mark)
