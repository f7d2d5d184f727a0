"""The table of a split's image files, each once: the neighbours of one target are the targets of other lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataload.config import DataConfig
from dataload.datasets.base import OTHER_SIDE, Dataset
from dataload.frames.frame_ref import FrameRef


def wanted_frames(dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int], use_stereo: bool) -> dict[Path, dict[int, str]]:
    """The frames that ``refs`` use, number and file name, by the folder where they lie.

    Args:
        frame_ids: offsets of the frames used with each target, 0 included if the target itself is used.
        use_stereo: the target's other camera is used too.

    Raises:
        InputError: a reference that names no camera, a folder that is none of the dataset's, or neighbours that it cannot have.
    """
    dataset.check_sources(frame_ids, use_stereo=use_stereo)
    by_line: dict[tuple[str, str], set[int]] = {}
    for ref in refs:
        side = dataset.side(ref)
        by_line.setdefault((ref.folder, side), set()).update([ref.frame_index + frame_id for frame_id in frame_ids])
        if use_stereo:
            by_line.setdefault((ref.folder, OTHER_SIDE[side]), set()).add(ref.frame_index)
    # Lines may call a folder by several names, as sequence 9 is 09.
    wanted: dict[Path, dict[int, str]] = {}
    for (folder, side), numbers in by_line.items():
        names = {number: dataset.image_name(folder, side, number) for number in numbers}
        wanted.setdefault(dataset.image_folder(folder, side), {}).update(names)
    return wanted


class FrameTable:
    """The image files of some split lines; a row is a file's place in it.

    Args:
        refs: lines of one or several lists, which may share frames.
        frame_ids, use_stereo: which frames each of them uses, the target (0) first.

    Attributes:
        data_path: the dataset's root folder.
        names: the files below it, with slashes, in order of folder and frame.

    Raises:
        InputError: as ``wanted_frames``.
    """

    def __init__(self, dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int], use_stereo: bool) -> None:
        self.data_path = dataset.data_path
        self.frame_ids, self.use_stereo, self._dataset = tuple(frame_ids), use_stereo, dataset
        self.names: list[str] = []
        # Per folder: its frame numbers in order, and the row of the first.
        self._places: dict[Path, tuple[NDArray[np.int64], int]] = {}
        for folder, frames in sorted(wanted_frames(dataset, refs, frame_ids=frame_ids, use_stereo=use_stereo).items()):
            ordered = sorted(frames)
            self._places[folder] = (np.array(ordered, np.int64), len(self.names))
            parent = dataset.relative(folder)
            self.names += [f"{parent}/{frames[number]}" for number in ordered]

    @classmethod
    def of(cls, config: DataConfig, dataset: Dataset, refs: Sequence[FrameRef]) -> FrameTable:
        """The files that a config uses with each line."""
        return cls(dataset, refs, frame_ids=config.frame_ids, use_stereo=config.use_stereo)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self.data_path / self.names[row]

    def rows(self, refs: Sequence[FrameRef]) -> NDArray[np.int32]:
        """(n, 1 + S) rows of the frames of lines that the table was made of: the target, then the sources as in ``Batch.sources``."""
        rows = np.empty((len(refs), len(self.frame_ids) + int(self.use_stereo)), np.int32)
        by_camera: dict[tuple[str, str], list[int]] = {}
        for line, ref in enumerate(refs):
            by_camera.setdefault((ref.folder, self._dataset.side(ref)), []).append(line)
        for (folder, side), lines in by_camera.items():
            numbers = np.array([refs[line].frame_index for line in lines], np.int64)
            for column, frame_id in enumerate(self.frame_ids):
                rows[lines, column] = self._find(folder, side, numbers + frame_id)
            if self.use_stereo:
                rows[lines, -1] = self._find(folder, OTHER_SIDE[side], numbers)
        return rows

    def _find(self, folder: str, side: str, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        known, first = self._places[self._dataset.image_folder(folder, side)]
        place = np.searchsorted(known, numbers)
        assert np.array_equal(known[place], numbers), "lines that the table was not made of"
        return first + place
