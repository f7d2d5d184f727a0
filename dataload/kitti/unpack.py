"""Unpacking of KITTI raw's archives: checked, and whole or not at all under their names."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dataload.kitti.archives import Archive, write_benchmark_marker, write_marker
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.leftovers import remove_temporary, temporary_of
from dataload.system.locks import hold
from splits.errors import InputError
from splits.faults import said_of
from splits.reading import open_file

# The folder around everything in the odometry benchmark's archives; the dataset looks for sequences/ and poses/ without it.
ODOMETRY_ROOT = "dataset/"
CHUNK_BYTES = 2**20
# Letters of an entry's name in a message.
MOST_SHOWN = 200


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
        with open_file(zipped, "an archive", "fetch it again") as file, ExitStack() as stack:
            with _damage():
                opened = stack.enter_context(zipfile.ZipFile(file))
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
    finally:
        remove_temporary(temporary)


@contextmanager
def _damage() -> Iterator[None]:
    """Turn whatever the content of an archive raises into ``Damaged``; faults of the disk pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Damage may make zipfile seek before the file's start, and decompressors raise it without a number.
        if isinstance(error, OSError) and (error.filename is not None or error.errno not in (None, errno.EINVAL)):
            raise
        raise Damaged(f"cannot be unpacked ({said_of(error)})") from error


def _checked_files(archive: Archive, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their name below the date's folder; ``Damaged`` where one would lie elsewhere or is no plain file."""
    files = {}
    root = ODOMETRY_ROOT if archive.is_benchmark else f"{archive.date}/"
    own = "" if archive.is_benchmark else root if archive.drive is None else f"{root}{archive.stem}/"
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        is_folder = name.endswith("/")
        if is_folder and own.startswith(name):
            continue
        parts = name.removesuffix("/").split("/")
        plain = not {"", ".", ".."} & set(parts) and not set("\\:") & set(name) and kind in (0, stat.S_IFREG, stat.S_IFDIR)
        if not plain or not name.startswith(own):
            raise Damaged(f"is not unpacked: its entry {name[:MOST_SHOWN]!r} would lie outside {own or 'the folder'} or is no plain file")
        if not is_folder:
            files[name.removeprefix(root)] = entry
    if not files:
        raise Damaged("is not unpacked: it holds no files")
    return files


def _require_room(archive: Archive, files: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    size = sum(entry.file_size for entry in files.values())
    free = free_bytes(folder)
    if size > free:
        raise NoRoom(f"{archive.name} takes {gigabytes(size)} unpacked, but the disk of {folder} has only {gigabytes(free)} left")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, proceed: Callable[[], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in _chunks(opened, entry):
            file.write(chunk)
            proceed()
        proceed()


def _chunks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with _damage(), opened.open(entry) as source:
        while chunk := source.read(CHUNK_BYTES):  # its checksum is compared at the end
            yield chunk


def _move(source: Path, target: Path) -> None:
    """Move what a folder holds into another: at once where the name is free, else file by file, the marker last."""
    for path in sorted(source.iterdir(), key=lambda path: path.name.startswith(".")):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            path.replace(place)
