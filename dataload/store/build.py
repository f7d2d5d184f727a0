"""The building of a frame store: once for all processes, in parallel, resumed after an interruption, named only when it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dataload.store.file import LOCK_SUFFIX, PARTIAL_SUFFIX, SUFFIX, StoreFault, StoreFile, StoreKey, required_bytes
from dataload.system.console import console
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.files import require_writable_folder
from dataload.system.lock_files import one_process
from dataload.system.progress import progress_bar
from splits.errors import InputError

if TYPE_CHECKING:
    from dataload.datasets.frame_table import FrameTable
    from dataload.frames.bad_frames import BadFrames

# Disk space that a build leaves alone.
SPARE_DISK_BYTES = 2**30
REMEDY = "give another --frame_store_dir, or --frame_store none"
# Keeps a frame (H, W, 3) under its row; from any thread.
Keep = Callable[[int, NDArray[np.uint8]], None]
# Decodes and resizes the frames of rows, keeps each, and yields the rows as they are done.
Maker = Callable[[Sequence[int], Keep], Generator[int, None, None]]
# Whether the frame of a row may be missing, as its source cannot be read.
MayLack = Callable[[int], bool]


class Decoder(Protocol):
    """Makes frames as one backend makes them; ``name`` stands in a store's key as ``made_by``."""

    name: str

    def frame(self, path: Path) -> NDArray[np.uint8]:
        """One frame (H, W, 3); ``InputError`` if the file is missing or damaged."""
        ...

    def make(self, table: FrameTable, rows: Sequence[int], keep: Keep, bad: BadFrames | None = None) -> Generator[int, None, None]:
        """Keeps the frames of all rows, and yields each row when it is done; ``InputError`` names a file that is missing or damaged.

        With ``bad`` such a file is added to it, and its frame is left out.
        """
        ...


class StoreError(InputError):
    """A store that cannot be made here; training can run without it."""


class StorePlace(NamedTuple):
    """A store's files: whole, being built, and the lock of whoever builds."""

    whole: Path
    partial: Path
    lock: Path

    @classmethod
    def of(cls, folder: Path, file_name: str) -> StorePlace:
        """The files of the store of that name; of one being made, its name will do too."""
        stem = stem_of(file_name)
        return cls(folder / (stem + SUFFIX), folder / (stem + PARTIAL_SUFFIX), folder / (stem + LOCK_SUFFIX))


def stem_of(file_name: str) -> str:
    """A store's name without its ending, whole or being made."""
    return file_name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)


def ensure_store(folder: Path, key: StoreKey, sources: NDArray[np.int64], make: Maker, may_lack: MayLack | None = None) -> StoreFile:
    """The whole store of a key, opened: the one that is there if it fits its sources, otherwise made.

    An interrupted build is resumed. Frames of a store whose other sources have changed are taken over.

    Args:
        sources: the fingerprints of the key's files, as they are now.
        may_lack: which frames it may be whole without; none by default.

    Raises:
        StoreError: the folder cannot be written, or the disk is too small or fills up; what was built stays.
        InputError: a source is missing or damaged.
    """
    place = StorePlace.of(folder, key.file_name)
    store, reason = _open_usable(place.whole, key, sources, may_lack)
    if store is not None:
        return store
    _require_store_folder(folder, f"{place.whole.name} {reason}, and " if reason else "")
    try:
        with one_process(place.lock, lambda: console.info("Frame store  another process is making %s; waiting", place.whole)):
            store, reason = _open_usable(place.whole, key, sources, may_lack)  # made meanwhile
            if store is None:
                if reason:
                    console.warning("Frame store  %s %s; frames that do not fit are made again", place.whole, reason)
                _build(place, key, sources, make)
                store, reason = _open_usable(place.whole, key, sources, may_lack)
    # A disk without locks raises NotImplementedError.
    except (OSError, NotImplementedError) as error:
        raise _as_fault(error, place, find_missing(folder, key, sources).bytes) from error
    if store is None:
        raise StoreError(f"{place.whole} {reason} as soon as it was made; the disk may be failing: {REMEDY}")
    return store


class Missing(NamedTuple):
    """What making a store would still take: frames to decode, bytes of disk; both 0 where it exists and fits its sources.

    ``reason`` says why one that is there does not fit; empty otherwise.
    """

    frames: int
    bytes: int
    reason: str = ""


def find_missing(folder: Path, key: StoreKey, sources: NDArray[np.int64], may_lack: MayLack | None = None) -> Missing:
    """What is missing of a store, without the frames that an interrupted build or an older state of it has."""
    place = StorePlace.of(folder, key.file_name)
    store, reason = _open_usable(place.whole, key, sources, may_lack)
    if store is not None:
        store.close()
        return Missing(0, 0)
    there, taken = np.zeros(len(key.names), np.bool_), 0
    for path in (place.whole, place.partial):
        with suppress(OSError, StoreFault), closing(StoreFile(path)) as file:
            if file.key == key:
                there |= fresh_frames(file, sources)
                taken = file.taken_bytes() if path == place.partial else 0
    return Missing(int(np.count_nonzero(~there)), max(0, required_bytes(key) - taken), reason)


def room_bytes(folder: Path) -> int:
    """What a store may take of the disk that a folder lies on, or will."""
    return max(0, free_bytes(folder) - SPARE_DISK_BYTES)


def _require_store_folder(folder: Path, why: str) -> None:
    try:
        require_writable_folder(folder, REMEDY)
    except InputError as error:
        raise StoreError(f"frame_store_dir: {why}{error}") from error


def _require_room(folder: Path, key: StoreKey, sources: NDArray[np.int64]) -> None:
    missing = find_missing(folder, key, sources).bytes
    if missing > room_bytes(folder):
        raise StoreError(
            f"the frame store of {len(key.names)} frames takes {gigabytes(missing)} and is to leave {gigabytes(SPARE_DISK_BYTES)} free, "
            f"but the disk of {folder} has {gigabytes(free_bytes(folder))}; make room (md-data store list shows other stores), {REMEDY}"
        )


def _open_usable(path: Path, key: StoreKey, sources: NDArray[np.int64], may_lack: MayLack | None = None) -> tuple[StoreFile | None, str]:
    """The store, opened, if it can be used as it is, else why not; an empty reason where there is none."""
    try:
        store = StoreFile(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except StoreFault as fault:
        return None, str(fault)
    except OSError as error:
        return None, f"cannot be opened ({error.strerror})"
    if store.key != key:
        store.close()
        return None, "holds other frames than its name says"
    fresh = fresh_frames(store, sources)
    if fresh.all() or (may_lack is not None and all(map(may_lack, np.flatnonzero(~fresh).tolist()))):
        return store, ""
    store.close()
    first = key.names[int(np.argmin(fresh))]
    return None, f"has {np.count_nonzero(~fresh)} of {len(fresh)} frames of files that have changed since, {first} first"


def fresh_frames(store: StoreFile, sources: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) which frames are there and were made of sources with these fingerprints."""
    made_of = np.stack([store.records["bytes"], store.records["mtime_ns"]], 1)
    return (made_of == sources).all(1) & (made_of[:, 0] > 0)


def _build(place: StorePlace, key: StoreKey, sources: NDArray[np.int64], make: Maker) -> None:
    _require_room(place.whole.parent, key, sources)
    partial = _open_partial(place, key)

    def keep(row: int, frame: NDArray[np.uint8]) -> None:
        partial.write(row, frame, (int(sources[row, 0]), int(sources[row, 1])))

    try:
        with progress_bar(len(key.names), "Frame store", "frames", stays=False) as bar:
            there: set[int] = set()
            # ``_sound_rows`` lists its rows when it is called, and so before ``_take_over`` adds any.
            for row in chain(_take_over(place.whole, partial, keep, sources), _sound_rows(partial, sources)):
                there.add(row)
                bar.update()
            if there:
                console.info("Frame store  %d of %d frames are there already", len(there), len(key.names))
            todo = [row for row in range(len(key.names)) if row not in there]
            # Closed when it is left, whatever the reason: no thread of it may write to a file that is closed.
            with closing(make(todo, keep)) as done:
                for _ in done:
                    bar.update()
        partial.sync()
    except KeyboardInterrupt:
        kept = np.count_nonzero(partial.records["bytes"])
        console.info("Frame store  stopped with %d of %d frames, which are kept for the next start", kept, len(key.names))
        raise
    finally:
        partial.close()
    place.partial.replace(place.whole)


def _open_partial(place: StorePlace, key: StoreKey) -> StoreFile:
    with suppress(OSError, StoreFault):
        partial = StoreFile(place.partial, writable=True)
        if partial.key == key:
            return partial
        partial.close()
    return StoreFile.create(place.partial, key)


def _take_over(path: Path, partial: StoreFile, keep: Keep, sources: NDArray[np.int64]) -> Iterator[int]:
    """Copies the usable frames of a store that no longer fits; yields their rows."""
    try:
        old = StoreFile(path)
    except (OSError, StoreFault):
        return
    with closing(old):
        if old.key != partial.key:
            return
        frame = np.empty((*old.key.size_px, 3), np.uint8)
        for row in np.flatnonzero(fresh_frames(old, sources) & ~fresh_frames(partial, sources)):
            if old.read(int(row), frame):
                keep(int(row), frame)
                yield int(row)


def _sound_rows(partial: StoreFile, sources: NDArray[np.int64]) -> Iterator[int]:
    """Rows whose frames are there and as they were written: after a power cut a record may have come to the disk before its frame."""
    frame = np.empty((*partial.key.size_px, 3), np.uint8)
    return (int(row) for row in np.flatnonzero(fresh_frames(partial, sources)) if partial.read(int(row), frame))


def _as_fault(error: OSError | NotImplementedError, place: StorePlace, missing: int) -> StoreError:
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        return StoreError(f"cannot make {place.whole} ({what}); {REMEDY}")
    return StoreError(
        f"no room left while making {place.whole} ({os.strerror(error.errno)}); what is done is kept (md-data store remove drops it). "
        f"It takes {gigabytes(missing)} more and is to leave {gigabytes(SPARE_DISK_BYTES)} free: make room and start again, "
        f"or {REMEDY}"
    )
