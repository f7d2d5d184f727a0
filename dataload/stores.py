"""The frame stores of a folder: what there is, whether it is sound, and its end."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataload.files import is_held, one_process
from dataload.frame_store import fingerprints
from dataload.store_build import StorePlace, made_of_these
from dataload.store_file import PARTIAL_SUFFIX, SUFFIX, StoreFault, StoreFile, StoreKey
from splits.errors import InputError


class StoreInfo(NamedTuple):
    """A store as it lies in its folder.

    Attributes:
        place: its files.
        key: what it holds; None where that cannot be read.
        state: "whole", "being made", "unfinished", or what is wrong with it.
        frames: how many are there.
        taken_bytes: what it takes of the disk.
    """

    place: StorePlace
    key: StoreKey | None
    state: str
    frames: int
    taken_bytes: int

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return self.place.whole.name.removesuffix(SUFFIX)


class Soundness(NamedTuple):
    """What a check of all frames found.

    Attributes:
        damaged: source files whose frames are not what was written.
        changed: source files that are gone or have changed since.
    """

    damaged: list[str]
    changed: list[str]


def stores(folder: Path) -> list[StoreInfo]:
    """The stores of a folder by name; one that is being made anew is there twice."""
    found = [path for path in folder.glob(f"*{SUFFIX}*") if path.name.endswith((SUFFIX, PARTIAL_SUFFIX))] if folder.is_dir() else []
    return [_look(path) for path in sorted(found)]


def find(folder: Path, names: Sequence[str]) -> list[StoreInfo]:
    """The stores of these names, with or without ending; ``InputError`` with the nearest one where there is none."""
    known = stores(folder)
    chosen = []
    for name in names:
        wanted = Path(name).name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)
        named = [store for store in known if store.name == wanted]
        if not named:
            near = difflib.get_close_matches(wanted, [store.name for store in known], n=1)
            hint = f"did you mean {near[0]}?" if near else "md-data store list shows what there is"
            raise InputError(f"no frame store {wanted} in {folder}; {hint}")
        chosen += named
    return chosen


def verify(store: StoreInfo) -> Soundness:
    """Reads every frame of a whole store and looks at every source.

    Raises:
        InputError: it is not whole.
    """
    from tqdm import tqdm

    if store.state != "whole":
        raise InputError(f"{store.place.whole.name} {store.state}; the next run that needs it makes it, md-data store remove takes it away")
    with closing(StoreFile(store.place.whole)) as file:
        frame, names = np.empty((*file.key.size_px, 3), np.uint8), file.key.names
        rows = tqdm(range(len(names)), desc=store.name, unit="frame", disable=None, leave=False)
        damaged = [names[row] for row in rows if not file.read(row, frame)]
        same = made_of_these(file, fingerprints(file.key))
    return Soundness(damaged, [names[int(row)] for row in np.flatnonzero(~same)])


def remove(store: StoreInfo) -> None:
    """Takes a store's files away; runs that read it keep what they have open.

    Raises:
        InputError: a process is making it.
        OSError: the folder cannot be written.
    """
    if is_held(store.place.lock):
        raise InputError(f"{store.name} is being made by another process; end that first")
    with one_process(store.place.lock):
        store.place.whole.unlink(missing_ok=True)
        store.place.partial.unlink(missing_ok=True)
        store.place.lock.unlink(missing_ok=True)


def _look(path: Path) -> StoreInfo:
    whole = path.name.endswith(SUFFIX)
    place = StorePlace.of(path.parent, path.name if whole else path.name.removesuffix(PARTIAL_SUFFIX) + SUFFIX)
    try:
        file = StoreFile(path)
    except StoreFault as fault:
        return StoreInfo(place, None, str(fault), 0, path.stat().st_size)
    except OSError as error:
        return StoreInfo(place, None, f"cannot be read ({error.strerror})", 0, 0)
    frames, taken, key = int(np.count_nonzero(file.records["bytes"])), file.taken_bytes(), file.key
    file.close()
    if whole:
        return StoreInfo(place, key, "whole", frames, taken)
    return StoreInfo(place, key, "is being made" if is_held(place.lock) else "is unfinished", frames, taken)
