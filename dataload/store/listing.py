"""The frame stores of a folder: list, verify and remove them."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataload.store.build import StorePlace, fresh_frames, stem_of
from dataload.store.file import PARTIAL_SUFFIX, SUFFIX, StoreFault, StoreFile, StoreKey
from dataload.store.reading import fingerprints
from dataload.system.lock_files import is_held, one_process
from dataload.system.progress import progress_bar
from splits.errors import InputError

# What ``StoreKey.file_name`` makes: other files are none of ours.
OUR_NAME = re.compile(r".+-\d+x\d+-[0-9a-f]{12}" + re.escape(SUFFIX) + f"({re.escape(PARTIAL_SUFFIX.removeprefix(SUFFIX))})?")
WHOLE, MAKING, UNFINISHED = "is whole", "is being made", "is unfinished"


class StoreInfo(NamedTuple):
    """A store as it lies in its folder.

    Attributes:
        path: its file.
        key: what it holds; None where that cannot be read.
        state: ``WHOLE``, ``MAKING``, ``UNFINISHED``, or what is wrong with it.
        frames: how many are there.
        taken_bytes: what it takes of the disk.
        made: the day it was last written, ``2026-11-22``.
    """

    path: Path
    key: StoreKey | None
    state: str
    frames: int = 0
    taken_bytes: int = 0
    made: str = ""

    @property
    def lock(self) -> Path:
        """The lock of whoever makes it."""
        return StorePlace.of(self.path.parent, self.path.name).lock


class Soundness(NamedTuple):
    """What a check of all frames found.

    Attributes:
        damaged: source files whose frames are not what was written.
        changed: source files that are gone or have changed since.
    """

    damaged: list[str]
    changed: list[str]


def stores(folder: Path) -> list[StoreInfo]:
    """The stores of a folder, by name."""
    found = sorted(path for path in folder.glob(f"*{SUFFIX}*") if OUR_NAME.fullmatch(path.name)) if folder.is_dir() else []
    return [_look(path) for path in found]


def find(folder: Path, names: Sequence[str]) -> list[StoreInfo]:
    """The stores of these names; without its ending a name means the whole one and the one being made.

    Raises:
        InputError: there is none of that name in this folder; says which is near.
    """
    known, chosen = stores(folder), {}
    for name in names:
        path = Path(name)
        if path.parent != Path() and path.parent.resolve() != folder.resolve():
            raise InputError(f"{name} is not in {folder}; give its name alone, and --frame_store_dir {path.parent}")
        named = [store for store in known if path.name in (store.path.name, stem_of(store.path.name))]
        if not named:
            near = difflib.get_close_matches(path.name, [stem_of(store.path.name) for store in known], n=1)
            hint = f"did you mean {near[0]}?" if near else "md-data store list shows what there is"
            raise InputError(f"no frame store {path.name} in {folder}; {hint}")
        chosen.update({store.path: store for store in named})
    return list(chosen.values())


def verify(store: StoreInfo) -> Soundness:
    """Reads every frame of a whole store and checks every source for changes."""
    with closing(StoreFile(store.path)) as file:
        frame, names = np.empty((*file.key.size_px, 3), np.uint8), file.key.names
        rows = progress_bar(len(names), store.path.name, "frames", items=range(len(names)), stays=False)
        damaged = [names[row] for row in rows if not file.read(row, frame)]
        same = fresh_frames(file, fingerprints(file.key))
    return Soundness(damaged, [names[int(row)] for row in np.flatnonzero(~same)])


def remove(store: StoreInfo) -> None:
    """Removes a store; runs that read it keep their open file.

    Raises:
        InputError: a process is making it.
        OSError: the folder cannot be written.
    """
    if is_held(store.lock):
        raise InputError(f"{store.path.name} {MAKING} by another process; end that first")
    with one_process(store.lock):
        store.path.unlink(missing_ok=True)


def _look(path: Path) -> StoreInfo:
    made = ""
    try:
        made = _day(path.stat().st_mtime)
        file = StoreFile(path)
    except StoreFault as fault:
        return StoreInfo(path, None, str(fault), taken_bytes=path.stat().st_size, made=made)
    except OSError as error:
        return StoreInfo(path, None, f"cannot be read ({error.strerror})")
    with closing(file):
        state = WHOLE
        if path.name.endswith(PARTIAL_SUFFIX):
            state = MAKING if is_held(StorePlace.of(path.parent, path.name).lock) else UNFINISHED
        return StoreInfo(path, file.key, state, int(np.count_nonzero(file.records["bytes"])), file.taken_bytes(), made)


def _day(time_s: float) -> str:
    """``2026-11-22``; empty for a time that no calendar has."""
    with suppress(ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m-%d", time.localtime(time_s))
    return ""
