"""The folders that hold what can be made again, their sizes, and the room on the disks that they and temporary files lie on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dataload.doctor.packages import Problem
from dataload.system.disk import free_bytes, gigabytes, nearest_folder
from dataload.system.files import cache_folder

# What lies in the cache folder, by the beginning of its name.
HOLDS = {
    "models": "downloaded models",
    "frames": "frame stores (md-data store list)",
    "compile": "compiled steps of training",
    "demo_world": "the demo's street",
    "tensorrt": "TensorRT's engines",
    "onnxruntime-web": "onnxruntime for the browser",
    "torch": "ImageNet weights",
}
# A disk with less room than this fails a run soon: a checkpoint of ResNet-18 takes some hundreds of megabytes.
LEAST_FREE_BYTES = 2 * 10**9
SHARED_MEMORY = Path("/dev/shm")


class Cache(NamedTuple):
    """A part of the cache folder."""

    path: str
    holds: str
    taken_bytes: int


class Disk(NamedTuple):
    """A folder, what it is for, what is free of its disk, and whether this user can write there."""

    path: str
    purpose: str
    free_bytes: int
    can_write: bool


def caches() -> list[Cache]:
    """What lies in the cache folder, the largest first. Locks and empty folders are left out."""
    folder = cache_folder()
    found = []
    with suppress(OSError):  # no such folder yet, or one of somebody else's
        for path in folder.iterdir():
            holds = next((text for name, text in HOLDS.items() if path.name.startswith(name)), "not the engine's")
            found.append(Cache(shown(path), holds, _taken_bytes(path)))
    return sorted((cache for cache in found if cache.taken_bytes), key=lambda cache: -cache.taken_bytes)


def disks() -> list[Disk]:
    """The disks of the cache and of temporary files, and the memory that processes share."""
    places = [(cache_folder(), "cache"), (_temporary_folder(), "temporary files")]
    if SHARED_MEMORY.is_dir():
        places.append((SHARED_MEMORY, "shared memory"))
    found = []
    for path, purpose in places:
        with suppress(OSError):  # a disk that is gone
            there = nearest_folder(path)
            found.append(Disk(shown(path), purpose, free_bytes(path), there.is_dir() and os.access(there, os.W_OK)))
    return found


def disk_problems(found: list[Disk]) -> list[Problem]:
    """Folders that cannot be written, and disks with too little room. Shared memory is left out: the engine does not use it."""
    remedies = {
        "cache": "md-data store remove deletes frame stores; XDG_CACHE_HOME names another place",
        "temporary files": "free some room; TMPDIR names another place",
    }
    closed = {
        "cache": "make it writable for you; XDG_CACHE_HOME names another place",
        "temporary files": "make it writable for you; TMPDIR names another place",
    }
    return [
        Problem(f"the folder for {disk.purpose}, {disk.path}, cannot be written", closed[disk.purpose])
        if not disk.can_write
        else Problem(f"{gigabytes(disk.free_bytes)} are free for {disk.purpose} in {disk.path}", remedies[disk.purpose])
        for disk in found
        if disk.purpose in remedies and (disk.free_bytes < LEAST_FREE_BYTES or not disk.can_write)
    ]


def shown(path: Path) -> str:
    """The path with ``~`` for the home folder: a report is pasted where others read it."""
    home = os.path.expanduser("~")
    text = str(path)
    return "~" + text[len(home) :] if home not in ("~", "/") and (text == home or text.startswith(home + os.sep)) else text


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none that can be written
        return Path(os.environ.get("TMPDIR") or os.sep)


def _taken_bytes(path: Path) -> int:
    """What a file or folder takes of the disk: a store that is being made has holes."""
    return sum(_blocks_bytes(each) for each in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _blocks_bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else 512 * blocks
