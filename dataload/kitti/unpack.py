"""Unpacking of KITTI raw's archives: checked, and whole or not at all under their names."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from dataload.kitti.archives import Archive, write_benchmark_marker, write_marker
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.leftovers import remove_temporary, temporary_of
from dataload.system.locks import hold
from dataload.system.zips import Refused, open_zip, plain_files
from splits.errors import InputError, one_line
from splits.faults import first_line, said_of
from splits.limits import UNPACKED_BYTES
from splits.reading import open_file

# The folder around everything in the odometry benchmark's archives; the dataset looks for sequences/ and poses/ without it.
ODOMETRY_ROOT = "dataset/"
CHUNK_BYTES = 2**20
# KITTI's scans, which shrink most, unpack to less than twice their bytes.
EXPANSION = 20


class NoRoom(InputError):
    """The disk is full, or too small for what is left; other archives will not fit either."""


class Damaged(InputError):
    """An archive that is not what it should be; another copy may be."""


class Stopped(RuntimeError):
    """Another thread has asked this one to stop; the archive is as good as it was."""


def unpack(archive: Archive, zipped: Path, data_path: Path, proceed: Callable[[], None]) -> None:
    """Unpack into a hidden folder of the date's, or of the dataset's root, then move what it holds into place.

    An existing folder of a drive is completed.

    Args:
        proceed: called often; may raise ``Stopped``, which leaves nothing.

    Raises:
        Damaged: no zip, cut off, a wrong checksum, or an entry that is no plain file of this archive's own folder.
        NoRoom: the disk cannot hold it.
        InputError: another process unpacks it, or there is too little memory.
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
        with open_file(zipped, "an archive", "fetch it again") as file, open_zip(file) as opened:
            files = _own_files(archive, opened)
            _require_room(archive, files, zipped.stat().st_size, date_folder)
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
    except (InputError, Stopped):
        raise
    except Refused as refusal:
        raise Damaged(f"is not unpacked: {refusal}") from refusal
    except MemoryError as error:  # the machine's fault: the archive stays
        raise InputError(f"{zipped} cannot be unpacked ({said_of(error)}); free some memory and repeat the command") from error
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename is None:  # damage that makes zipfile seek before the start
            raise Damaged("cannot be unpacked (its table of contents or its content is wrong)") from error
        raise
    except Exception as error:  # whatever zipfile and zlib make of damage, of encryption and of names that are none
        raise Damaged(f"cannot be unpacked ({one_line(first_line(error))})") from error
    finally:
        remove_temporary(temporary)


def _own_files(archive: Archive, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their names below the date's folder; ``Refused`` where one is not the archive's own, or there is none."""
    root = ODOMETRY_ROOT if archive.is_benchmark else f"{archive.date}/"
    own = "" if archive.is_benchmark else root if archive.drive is None else f"{root}{archive.stem}/"
    files = {name.removeprefix(root): entry for name, entry in plain_files(opened, own).items()}
    if not files:
        raise Refused("it holds no files")
    return files


def _require_room(archive: Archive, files: dict[str, zipfile.ZipInfo], packed: int, folder: Path) -> None:
    size = sum(entry.file_size for entry in files.values())
    if size > UNPACKED_BYTES.most + EXPANSION * packed:
        raise Refused(f"it says that its {packed:,} bytes unpack to {size:,} ({UNPACKED_BYTES.variable} takes more)")
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
