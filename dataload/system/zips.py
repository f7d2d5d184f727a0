"""Zip files from anybody: none takes the memory with its list of entries, and no entry leaves the folder that it is unpacked into."""

from __future__ import annotations

import stat
import zipfile
from io import BufferedReader, RawIOBase
from typing import BinaryIO, cast

from splits.limits import ARCHIVE_ENTRIES

# Other ways of packing need more memory than they say.
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The list has 46 bytes for an entry, and its name; zipfile reads it at once, of whatever length that claims to be.
BYTES_PER_ENTRY, LEAST_AT_ONCE = 300, 2**24
MOST_NAME, MOST_DEPTH, ENCRYPTED = 200, 20, 1


class Refused(ValueError):
    """Why a zip that need not be damaged is not unpacked; the text completes "<file> is not unpacked: "."""


class _Portions:
    """A file that gives as much as it is asked for, where there is as much, but no more than a list of entries may have."""

    def __init__(self, unbuffered: BinaryIO) -> None:
        self._file = file = BufferedReader(cast(RawIOBase, unbuffered))
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._most = max(LEAST_AT_ONCE, BYTES_PER_ENTRY * ARCHIVE_ENTRIES.most)

    def read(self, number: int = -1) -> bytes:
        data = self._file.read(number if 0 <= number <= self._most else self._most + 1)
        if len(data) > self._most:
            raise Refused(f"its list of entries has more than {self._most:,} bytes ({ARCHIVE_ENTRIES.variable} takes longer ones)")
        return data


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The zip in a file as ``splits.reading.open_file`` opens it.

    Raises:
        Refused: it has more entries than are read.
        Exception: whatever zipfile raises of damage.
    """
    opened = zipfile.ZipFile(cast(BinaryIO, _Portions(file)))
    number = len(opened.infolist())
    if number > ARCHIVE_ENTRIES.most:
        raise Refused(f"it has {number:,} entries, more than {ARCHIVE_ENTRIES.most:,} ({ARCHIVE_ENTRIES.variable} takes more)")
    return opened


def plain_files(opened: zipfile.ZipFile, own: str = "") -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by their names, in its order.

    Args:
        own: the folder within the zip that all must lie in, with a slash at its end; any where none is given.

    Raises:
        Refused: an entry would lie elsewhere, is no plain file (a link, a pipe), is encrypted, packed in a rare way, or there twice.
    """
    files: dict[str, zipfile.ZipInfo] = {}
    for entry in opened.infolist():
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir() and own.startswith(name):
            continue
        parts = name.removesuffix("/").split("/")
        is_name = name.isprintable() and max(map(len, parts)) < MOST_NAME and len(parts) < MOST_DEPTH and not set("\\:") & set(name)
        is_plain = is_name and not {"", ".", ".."} & set(parts) and kind in (0, stat.S_IFREG, stat.S_IFDIR)
        if not is_plain or not name.startswith(own):
            raise Refused(f"its entry {name!r} would lie outside {own or 'the folder'} or is no plain file")
        if entry.flag_bits & ENCRYPTED:
            raise Refused("it is encrypted")
        if entry.compress_type not in PACKED:
            raise Refused(f"its entry {name!r} is packed in a way that is not read; pack it again")
        if name in files:
            raise Refused(f"its entry {name!r} stands there twice")
        if not entry.is_dir():
            files[name] = entry
    return files
