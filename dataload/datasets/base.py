"""The base class of datasets: where files lie, intrinsics, the other camera, ground truth."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.frames.frame_ref import MOST_DIGITS, FrameRef, parse_split
from dataload.frames.sparse_depth import SparseDepth
from dataload.system.console import console
from splits import read_lines, subset_source
from splits.errors import InputError

# The published training baseline in nominal units; it keeps stereo depths in the range of mono ones.
NOMINAL_BASELINE = 0.1
OTHER_SIDE = {"l": "r", "r": "l"}
NUM_NAMED = 3
# In names of frames; longer ones are in no list.
NUMBERS = re.compile(rf"(?<![0-9])[0-9]{{1,{MOST_DIGITS}}}(?![0-9])")
# An interval is a gap from this many times the sequence's median interval on.
GAP_FACTOR = 2.5
# Why targets are left out, for messages.
AT_AN_END = "at an end of their sequence"
BESIDE_A_GAP = f"beside a gap of over {GAP_FACTOR:g} times the usual interval"
# What a user may give for a dataset beside its folder and the ending of its images.
DATASET_OPTIONS = ("depth_scale", "intrinsics")


class Dataset(ABC):
    """A folder of frames in one layout.

    A subclass says where the images lie (``image_folder``, ``image_name``) and what the camera is (``K``); everything else has a default
    that it may override. Split lines read ``<folder> <frame number> <side l or r>``.

    Args:
        data_path: the dataset's root folder.
        image_ext: ``.jpg`` or ``.png``.
        options: the user's values for those that the class's ``options`` name.

    Raises:
        InputError: an option that the dataset cannot be given.
    """

    depth_kind: ClassVar[str] = "ground truth"
    """What the files of ground truth are, for messages."""

    default_image_ext: ClassVar[str] = ".jpg"
    """The ending of the images, unless an option gives another."""

    default_split: ClassVar[str | None] = None
    """The split for training and evaluation, unless an option gives another: a folder below ``<data_path>/splits``."""

    image_remedy: ClassVar[str] = ""
    """How to get images whose folders are absent, for messages; empty where they are in the drives' own archives."""

    depth_is_optional: ClassVar[bool] = False
    """Whether frames without ground truth are left out of an evaluation rather than refused."""

    scores_all_depth: ClassVar[bool] = False
    """Whether every measured pixel is scored, rather than those in KITTI's crop and below its cap."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Which of ``DATASET_OPTIONS`` it can be given."""

    def __init__(self, data_path: Path, image_ext: str = ".jpg", **options: Any) -> None:
        self.data_path = Path(data_path)
        self.image_ext = image_ext
        # Each folder is listed once.
        self.stretches = lru_cache(maxsize=None)(self._read_stretches)
        refused = sorted(set(options) - self.options)
        if refused:
            raise InputError(f"dataset {type(self).__name__} knows no {some([f'--{name}' for name in refused])}; leave it out")

    @abstractmethod
    def image_folder(self, folder: str, side: str) -> Path:
        """Where the images of one camera lie.

        Args:
            folder: as in the split line.
            side: the camera, l or r.
        """

    @abstractmethod
    def image_name(self, folder: str, side: str, frame_index: int) -> str:
        """File name of a frame in that folder.

        Args:
            folder: as in the split line.
            side: the camera, l or r.
            frame_index: the frame's number, or its place in the sequence.
        """

    @abstractmethod
    def K(self, ref: FrameRef, height_px: int, width_px: int) -> NDArray[np.float32]:
        """Pinhole intrinsics (3, 3) float32 in pixels of the frame resized to that size, pixel centres at whole numbers.

        Args:
            ref: the frame, as its split line names it.
            height_px: height that the frame is resized to.
            width_px: width that the frame is resized to.
        """

    @property
    def metric_factor(self) -> float:
        """Metres per nominal unit of a model trained on stereo pairs: the real baseline over ``NOMINAL_BASELINE``."""
        return 1.0

    def refs(self, lines: Iterable[str], *, source: str) -> tuple[FrameRef, ...]:
        """The frames of split lines; ``InputError`` names ``source``, the line and the remedy where one is malformed.

        Args:
            lines: of a split, ``folder frame side``.
            source: what to call the list in messages.
        """
        return parse_split(lines, source=source)

    def read(self, split: str, subset: str) -> tuple[FrameRef, ...]:
        """The frames of one list of a split (a name or a folder); ``InputError`` where there is none or a line is malformed.

        Args:
            split: a published name, or a folder.
            subset: train, val, test, or another list of it.
        """
        return self.refs(read_lines(split, subset), source=subset_source(split, subset))

    def with_sources(self, refs: Sequence[FrameRef], *, source: str, frame_ids: Sequence[int], use_stereo: bool) -> tuple[FrameRef, ...]:
        """Those of the targets that can be trained on; how many are left out, and why, is logged.

        Args:
            source: what to call the list in messages. frame_ids, use_stereo: what each target is trained with.

        Raises:
            InputError: none is left, or neighbours that the dataset cannot have.
        """
        self.check_sources(frame_ids, use_stereo=use_stereo)
        return without_faults(refs, [self.target_fault(ref, frame_ids=frame_ids, use_stereo=use_stereo) for ref in refs], source=source)

    def target_fault(self, ref: FrameRef, *, frame_ids: Sequence[int], use_stereo: bool) -> str:
        """Why a target cannot be trained on, its neighbours lying beyond the ends of its drive or in a gap; empty where it can.

        A single missing file within a drive is no such reason: a later check finds it missing.

        Args:
            ref: the target.
            frame_ids: offsets of the frames used with each target, 0 first.
            use_stereo: whether the target's other camera is used too.
        """
        first, last = ref.frame_index + min(0, *frame_ids), ref.frame_index + max(0, *frame_ids)
        stretches = self.stretches(ref.folder, self.side(ref)) if any(frame_ids) else []
        # A target that is itself not there is missing.
        for begin, end in (stretch for stretch in stretches if stretch[0] <= ref.frame_index <= stretch[1]):
            if first < stretches[0][0] or last > stretches[-1][1]:
                return AT_AN_END
            return "" if begin <= first and last <= end else BESIDE_A_GAP
        return AT_AN_END if first < 0 else ""

    def _read_stretches(self, folder: str, side: str) -> list[tuple[int, int]]:
        """The first and the last number of each stretch of frames that a camera has on disk without a gap between them, in order."""
        names: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(self.image_folder(folder, side))
        # A JPEG and a PNG of one number may lie side by side.
        numbered = [(int(digits[-1]), name) for name in names if (digits := NUMBERS.findall(name.rpartition(".")[0]))]
        found = np.array(sorted(number for number, name in numbered if self.image_name(folder, side, number) == name), np.int64)
        intervals = np.diff(found)
        gaps = np.flatnonzero(intervals > GAP_FACTOR * np.median(intervals)) if len(intervals) else intervals
        return [(int(part[0]), int(part[-1])) for part in np.split(found, gaps + 1) if len(part)]

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """Where the file that the frame's ground truth comes from may lie, the likeliest place first; empty for a dataset without depth."""
        return []

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """How to get the ground truth of frames that lack it, for messages."""
        return f"dataset {type(self).__name__} has no ground-truth depth; evaluate on another with --dataset and --eval_split"

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32] | None:
        """Ground truth for metrics while training: (h, w) float32 camera z in metres, 0 = missing; None where there is no file."""
        return None

    def eval_sparse_depth(self, ref: FrameRef) -> SparseDepth:
        """Ground truth by the published evaluation's rule, at the measured pixels; ``InputError`` names a missing file."""
        self.require_depth_source(ref)
        depth_m = self.depth_m(ref)
        assert depth_m is not None, "a file of depth without depth"
        return SparseDepth.of(depth_m)

    def eval_depth_m(self, ref: FrameRef) -> NDArray[np.float32]:
        """The same as a map: (h, w) float32 metres, 0 = missing; ``InputError`` names a missing file."""
        return self.eval_sparse_depth(ref).dense()

    def relative(self, path: Path) -> str:
        """A file's place in the dataset, with slashes; the whole path where it lies outside."""
        return (path.relative_to(self.data_path) if path.is_relative_to(self.data_path) else path).as_posix()

    def side(self, ref: FrameRef) -> str:
        """The camera of a reference, l or r; ``InputError`` where the split line names none."""
        return side_of(ref)

    def check_sources(self, frame_ids: Sequence[int], *, use_stereo: bool) -> None:  # noqa: B027
        """Raise ``InputError`` where targets have no such neighbours or no second camera by the dataset's nature.

        Args:
            frame_ids: offsets of the frames used with each target, 0 first.
            use_stereo: whether the target's other camera is used too.
        """

    def depth_source(self, ref: FrameRef) -> Path | None:
        """The file that the frame's ground truth comes from (laser scan, annotated or exact depth); None where there is none."""
        return next((path for path in self.depth_places(ref) if path.is_file()), None)

    def require_depth_source(self, ref: FrameRef) -> Path:
        """``depth_source``, or ``InputError`` with the remedy."""
        source = self.depth_source(ref)
        if source is not None:
            return source
        places, remedy = self.depth_places(ref), self.depth_remedy([ref])
        if not places:
            raise InputError(remedy)
        raise InputError(f"{places[0]} is missing: the {self.depth_kind} of '{ref.folder} {ref.frame_index}'; {remedy}")

    def image_path(self, ref: FrameRef, frame_id: int = 0, *, stereo: bool = False) -> Path:
        """The image ``frame_id`` frames after ``ref``, of the other camera if ``stereo``; ``InputError`` where the line names no camera.

        Args:
            ref: the frame, as its split line names it.
            frame_id: how many frames after it, before it where negative.
            stereo: the other camera's image.
        """
        self.check_sources([frame_id], use_stereo=stereo)
        side = self.side(ref)
        side = OTHER_SIDE[side] if stereo else side
        return self.image_folder(ref.folder, side) / self.image_name(ref.folder, side, ref.frame_index + frame_id)

    def T_stereo(self, ref: FrameRef) -> NDArray[np.float32]:
        """T_source_target (4, 4) float32 of the other camera: the nominal baseline along x, to the left camera's right or back."""
        T = np.eye(4, dtype=np.float32)
        T[0, 3] = -NOMINAL_BASELINE if self.side(ref) == "l" else NOMINAL_BASELINE
        return T


def without_faults(refs: Sequence[FrameRef], faults: Sequence[str], *, source: str) -> tuple[FrameRef, ...]:
    """The targets whose fault is empty; the others are counted by their fault and logged. ``InputError`` where none is left."""
    kept = tuple(ref for ref, fault in zip(refs, faults, strict=True) if not fault)
    why = ", ".join(f"{number} {fault}" for fault, number in Counter(filter(None, faults)).items())
    if refs and not kept:
        raise InputError(f"{source}: none of {len(refs)} targets can be trained on: {why}; use fewer frame_ids, or other frames")
    if why:
        console.info("Split       %s: %d of %d targets left out: %s", source, len(refs) - len(kept), len(refs), why)
    return kept


def side_of(ref: FrameRef) -> str:
    """The camera of a reference, l or r; ``InputError`` where the split line names none."""
    if ref.side is None:
        raise InputError(f"split line '{ref.folder} {ref.frame_index}' names no camera; add its side: '{ref.folder} {ref.frame_index} l'")
    return ref.side


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
