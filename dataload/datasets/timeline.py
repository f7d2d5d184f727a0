"""The order of a sequence's frames on disk: names that sort as people count, the gaps between them, what can be trained on."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from dataload.datasets import SPLITS_FOLDER
from dataload.datasets.base import AT_AN_END, BESIDE_A_GAP, GAP_FACTOR
from dataload.datasets.frame_times import order_names
from dataload.frames.frame_ref import NOT_ON_DISK, ODD_LETTERS
from dataload.frames.picture import IMAGE_SUFFIXES
from splits.errors import InputError

# How deep below the dataset's folder sequences are looked for: EuRoC's <recording>/mav0/cam0/data, in a folder of several.
MAX_DEPTH = 5
# Python's own way to keep bytes of a name that are not UTF-8; and what a split line cannot hold as it is.
BYTES, SPECIAL = "surrogateescape", re.compile(r"[%\\\s]")


class Timeline(NamedTuple):
    """The order of a sequence's frames on disk.

    Attributes:
        names: the left camera's frames in order.
        ranks: the place of each name in that order.
        files: of each camera, l and r, the file of each name.
        gaps: how many gaps lie before each frame, so that two frames with the same number have none between them.
        reading: how the names are read, where that is not the plain way; else empty.
        fault: why the order is not known; empty where it is.
    """

    names: list[str]
    ranks: dict[str, int]
    files: dict[str, dict[str, str]]
    gaps: NDArray[np.int64]
    reading: str
    fault: str

    @classmethod
    def read(cls, folders: Mapping[str, Path], name_of: Callable[[str], str]) -> Timeline:
        """The order of what lies in the folders of each camera, l and r; ``name_of`` gives a frame's name from its file's stem.

        Raises:
            InputError: two files of a folder for one frame.
        """
        files = {side: _files_by_name(folder, name_of) for side, folder in folders.items()}
        order = order_names(list(files["l"]))
        ranks = {name: rank for rank, name in enumerate(order.names)}
        times = order.times if order.times is not None else last_numbers(order.names)
        return cls(order.names, ranks, files, gaps_before(times), order.reading, order.fault)

    def rank(self, name: str, side: str) -> int:
        """The place of a camera's frame; ``NOT_ON_DISK`` where that camera or the left one does not have it."""
        return self.ranks.get(name, NOT_ON_DISK) if name in self.files[side] else NOT_ON_DISK

    def target_fault(self, rank: int, side: str, *, frame_ids: Sequence[int], use_stereo: bool) -> str:
        """Why the frame in a place, seen by a camera, cannot be trained on; empty where it can."""
        first, last = rank + min(0, *frame_ids), rank + max(0, *frame_ids)
        if first < 0 or last >= len(self.names):
            return AT_AN_END
        if self.gaps[first] != self.gaps[last]:
            return BESIDE_A_GAP
        if any(self.names[rank + k] not in self.files[side] for k in frame_ids):
            return "without a neighbour of their camera"
        if use_stereo and not all(self.names[rank] in files for files in self.files.values()):
            return "without the other camera's image"
        return ""


def as_token(name: str) -> str:
    """A name for a split line: blanks, control letters, backslashes and bytes that are not UTF-8 as %20; ``as_name`` takes it back."""
    if name.isprintable() and not SPECIAL.search(name):
        return name
    return "".join(quote(letter, safe="", errors=BYTES) if _needs_quoting(letter) else letter for letter in name)


def as_name(token: str) -> str:
    """The name that stands in a split line; ``ValueError`` where no disk takes it."""
    name = unquote(token, errors=BYTES)
    if "\0" in name:
        raise ValueError("a name with %00 is on no disk")
    return name


def _needs_quoting(letter: str) -> bool:
    return letter in "%\\" or letter.isspace() or unicodedata.category(letter) in ODD_LETTERS


def last_numbers(names: Sequence[str]) -> list[int]:
    """The last number in each name; all 0 where one has none."""
    numbers = [re.findall(r"\d+", name) for name in names]
    return [int(found[-1]) for found in numbers] if all(numbers) else [0] * len(names)


def gaps_before(times: Sequence[int]) -> NDArray[np.int64]:
    """(N,) how many gaps lie before each frame of those times; none where they do not run forward and are no times."""
    # Times in nanoseconds since 1970 are exact in Python's numbers alone.
    intervals = np.diff(np.array(times, dtype=object)).astype(np.float64)
    if len(times) < 3 or (intervals <= 0).any():
        return np.zeros(len(times), np.int64)
    return np.concatenate([[0], np.cumsum(intervals > GAP_FACTOR * np.median(intervals))]).astype(np.int64)


def _files_by_name(folder: Path, name_of: Callable[[str], str]) -> dict[str, str]:
    files: dict[str, str] = {}
    twice = []
    for file in sorted(image_names(folder)):
        name = name_of(Path(file).stem)
        twice += [(files[name], file)] if name in files else []
        files[name] = file
    if twice:
        more = f", as {len(twice) - 1} more pair{'s' if len(twice) > 2 else ''} there" if len(twice) > 1 else ""
        raise InputError(
            f"{folder} has two images for one frame, {' and '.join(twice[0])}{more}; leave one of each in the folder "
            "(depth belongs into a folder depth/ of the sequence, copies anywhere else)"
        )
    return files


def image_names(folder: Path) -> Iterator[str]:
    """Names of the images in a folder; none where it does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and not entry.is_dir():
                yield entry.name


def folders_below(root: Path) -> Iterator[str]:
    """The folder itself, as ``.``, and those below it, with slashes; each once, whatever links lead to it."""
    seen: set[str] = set()
    # Sequences may be links to other disks.
    for place, folders, _ in os.walk(root, followlinks=True):
        relative, real = Path(place).relative_to(root), os.path.realpath(place)
        wanted = (name for name in folders if not name.startswith(".") and name != SPLITS_FOLDER)
        folders[:] = sorted(wanted) if len(relative.parts) < MAX_DEPTH and real not in seen else []
        if real not in seen:
            seen.add(real)
            yield relative.as_posix()
