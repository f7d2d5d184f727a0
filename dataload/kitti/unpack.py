"""Unpacking of KITTI raw's archives: checked, and whole or not at all under their names."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from dataload.kitti.archives import Archive, write_benchmark_marker, write_marker
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.leftovers import remove_temporary, temporary_of
from dataload.system.locks import hold
from splits.errors import InputError

# The folder around everything in the odometry benchmark's archives; the dataset looks for sequences/ and poses/ without it.
ODOMETRY_ROOT = "dataset/"
CHUNK_BYTES = 2**20


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
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # as zipfile reports damage, encryption
        raise Damaged(f"cannot be unpacked ({error})") from error
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename is None:  # damage that makes zipfile seek before the file's start
            raise Damaged("cannot be unpacked (its table of contents is wrong)") from error
        raise
    finally:
        remove_temporary(temporary)


def _checked_files(archive: Archive, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their name below the date's folder; ``Damaged`` where one would lie elsewhere or is no plain file."""
    files = {}
    root = ODOMETRY_ROOT if archive.is_benchmark else f"{archive.date}/"
    own = "" if archive.is_benchmark else root if archive.drive is None else f"{root}{archive.stem}/"
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir() and own.startswith(name):
            continue
        parts = name.removesuffix("/").split("/")
        plain = not {"", ".", ".."} & set(parts) and not set("\\:") & set(name) and kind in (0, stat.S_IFREG, stat.S_IFDIR)
        if not plain or not name.startswith(own):
            raise Damaged(f"is not unpacked: its entry {name!r} would lie outside {own or 'the folder'} or is no plain file")
        if not entry.is_dir():
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
