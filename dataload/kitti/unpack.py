"""Unpacking of KITTI raw's archives: checked, and whole or not at all under their names."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from dataload.kitti.archives import Archive, write_benchmark_marker, write_marker
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.leftovers import remove_temporary, temporary_of
from dataload.system.locks import hold
from splits.errors import InputError, one_line
from splits.faults import first_line
from splits.limits import ARCHIVE_ENTRIES, UNPACKED_BYTES
from splits.reading import open_file

# The folder around everything in the odometry benchmark's archives; the dataset looks for sequences/ and poses/ without it.
ODOMETRY_ROOT = "dataset/"
CHUNK_BYTES = 2**20
# KITTI's scans, which shrink most, unpack to less than twice their bytes.
EXPANSION = 20
# How a zip file ends: with where its table of contents is, and a remark of at most 64 KB; sizes above four gigabytes stand before that.
END_OF_TABLE, END_OF_LARGE_TABLE, END_BYTES, MOST_END_BYTES, NOT_SAID = b"PK\x05\x06", b"PK\x06\x06", 22, 2**17, b"\xff" * 4
BYTES_PER_ENTRY, ENCRYPTED = 300, 1
MOST_NAME, MOST_DEPTH = 200, 20


class NoRoom(InputError):
    """The disk is full, or too small for what is left; other archives will not fit either."""


class Damaged(InputError):
    """An archive that is not what it should be; another copy may be."""


def unpack(archive: Archive, zipped: Path, data_path: Path, proceed: Callable[[], None]) -> None:
    """Unpack into a hidden folder of the date's, or of the dataset's root, then move what it holds into place.

    An existing folder of a drive is completed.

    Args:
        proceed: called often; may raise to stop, which leaves nothing.

    Raises:
        Damaged: no zip, cut off, a wrong checksum, or an entry that is no plain file of this archive's own folder.
        NoRoom: the disk cannot hold it.
        OSError: it cannot be written for another reason.
    """
    date_folder = data_path / archive.date
    date_folder.mkdir(parents=True, exist_ok=True)
    # Beside where it goes, which may be a link to another disk.
    place = date_folder.resolve() / archive.stem
    temporary = temporary_of(place)
    with hold(place, "wait until it has ended", folder=True):
        _unpack(archive, zipped, date_folder, temporary, proceed)


def _unpack(archive: Archive, zipped: Path, date_folder: Path, temporary: Path, proceed: Callable[[], None]) -> None:
    try:
        _require_few_entries(zipped)
        with zipfile.ZipFile(zipped) as opened:
            files = _checked_files(archive, opened.infolist())
            _require_room(archive, files, date_folder)
            for name, entry in files.items():
                _extract(opened, entry, temporary / name, proceed)
        if archive.is_benchmark:
            write_benchmark_marker(temporary, archive, files)
        elif archive.drive is not None:
            write_marker(temporary / archive.stem, [name.partition("/")[2] for name in files])
        # Before the archive is deleted: a power cut would else lose both.
        if hasattr(os, "sync"):
            os.sync()
        _move(temporary, date_folder)
    except (InputError, KeyboardInterrupt):
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL) and error.filename is None:  # of bzip2, or damage that makes zipfile seek before the start
            raise Damaged("cannot be unpacked (its table of contents or its content is wrong)") from error
        raise
    except Exception as error:  # whatever zipfile and zlib make of damage, of encryption and of names that are none
        raise Damaged(f"cannot be unpacked ({one_line(first_line(error))})") from error
    finally:
        remove_temporary(temporary)


def _require_few_entries(zipped: Path) -> None:
    """``Damaged`` where there is no file, or its table of contents says more than an archive of KITTI's: zipfile makes an object of each.

    An entry of the table takes 46 bytes and its name, so that the table's length bounds their number, whatever number the file says.
    """
    with open_file(zipped, "an archive", "fetch it again") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - MOST_END_BYTES)
        file.seek(start)
        end = file.read(MOST_END_BYTES)
    # As zipfile looks for it: at the very end, else before the last remark.
    place = len(end) - END_BYTES if end[-END_BYTES:].startswith(END_OF_TABLE) else end.rfind(END_OF_TABLE)
    if place < 0:
        raise Damaged("cannot be unpacked (File is not a zip file)")
    large = end.rfind(END_OF_LARGE_TABLE, 0, place)
    said = [end[place + 12 : place + 16], end[large + 40 : large + 48] if large >= 0 else b""]
    table_bytes = max(int.from_bytes(number, "little") for number in said if number != NOT_SAID)
    if table_bytes > BYTES_PER_ENTRY * ARCHIVE_ENTRIES.most:
        raise Damaged(f"is not unpacked: its table of contents has {table_bytes:,} bytes ({ARCHIVE_ENTRIES.variable} takes longer ones)")


def _checked_files(archive: Archive, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their name below the date's folder; ``Damaged`` where one would lie elsewhere or is no plain file."""
    files = {}
    root = ODOMETRY_ROOT if archive.is_benchmark else f"{archive.date}/"
    own = "" if archive.is_benchmark else root if archive.drive is None else f"{root}{archive.stem}/"
    if len(entries) > ARCHIVE_ENTRIES.most:
        raise Damaged(
            f"is not unpacked: it has {len(entries):,} entries, more than {ARCHIVE_ENTRIES.most:,} ({ARCHIVE_ENTRIES.variable} takes more)"
        )
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir() and own.startswith(name):
            continue
        parts = name.removesuffix("/").split("/")
        named = name.isprintable() and max(map(len, parts)) < MOST_NAME and len(parts) < MOST_DEPTH
        plain = named and not {"", ".", ".."} & set(parts) and not set("\\:") & set(name) and kind in (0, stat.S_IFREG, stat.S_IFDIR)
        if not plain or not name.startswith(own):
            raise Damaged(f"is not unpacked: its entry {name!r} would lie outside {own or 'the folder'} or is no plain file")
        if entry.flag_bits & ENCRYPTED:
            raise Damaged("is not unpacked: it is encrypted")
        if not entry.is_dir() and name.removeprefix(root) in files:
            raise Damaged(f"is not unpacked: its entry {name!r} stands there twice")
        if not entry.is_dir():
            files[name.removeprefix(root)] = entry
    if not files:
        raise Damaged("is not unpacked: it holds no files")
    return files


def _require_room(archive: Archive, files: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    size, packed = (sum(getattr(entry, name) for entry in files.values()) for name in ("file_size", "compress_size"))
    if size > UNPACKED_BYTES.most + EXPANSION * packed:
        raise Damaged(f"is not unpacked: it says that its {packed:,} bytes unpack to {size:,} ({UNPACKED_BYTES.variable} takes more)")
    free = free_bytes(folder)
    if size > free:
        raise NoRoom(f"{archive.name} takes {gigabytes(size)} unpacked, but the disk of {folder} has only {gigabytes(free)} left")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, proceed: Callable[[], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, path.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):  # its checksum is compared at the end
            file.write(chunk)
            proceed()
        proceed()


def _move(source: Path, target: Path) -> None:
    """Move what a folder holds into another: at once where the name is free, else file by file, the marker last."""
    for path in sorted(source.iterdir(), key=lambda path: path.name.startswith(".")):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            path.replace(place)
