"""Evo, and what md-data from-bag writes: ``<data>/<seq>/front_rgb_left/<seq>_<stamp>.jpg``, per-sequence cameras, sizes and depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dataload.datasets.sequences import SequenceDataset
from dataload.datasets.timeline import as_name
from dataload.frames.frame_ref import NOT_ON_DISK, FrameRef, shorten

IMAGE_FOLDERS = {"l": "front_rgb_left", "r": "front_rgb_right"}
DEPTH_FOLDER = "front_depth_left"
# Nanoseconds since 1970, the last part of every file's name.
STAMP_DIGITS = 19


class Evo(SequenceDataset):
    """Sequences extracted from ROS bags; a frame's name is its time, and targets are the left camera's.

    Split lines read ``<seq> <stamp> [<index> [<fx> <fy> <cx> <cy>]]``, intrinsics in pixels of the image as it lies on disk, pixel
    centres at whole numbers; the index is not used.
    """

    default_split: ClassVar[str | None] = "evo"
    target_sides: ClassVar[str] = "l"
    line_form: ClassVar[str] = "<seq> <stamp> [<index> [<fx> <fy> <cx> <cy>]]"

    def image_folder(self, folder: str, side: str) -> Path:
        """``<data>/<seq>/front_rgb_left``, front_rgb_right for the other camera."""
        return self.sequence_folder(folder) / IMAGE_FOLDERS[side]

    def depth_path(self, ref: FrameRef) -> Path:
        """``<data>/<seq>/front_depth_left/<seq>_<stamp>.png``."""
        assert ref.name is not None
        return self.sequence_folder(ref.folder) / DEPTH_FOLDER / f"{self.file_stem(ref.folder, ref.name)}.png"

    def frame_name(self, folder: str, stem: str) -> str:
        """The stamp at the end; a sequence's name may hold anything."""
        return stem[-STAMP_DIGITS:]

    def file_stem(self, folder: str, name: str) -> str:
        """``<seq>_<stamp>``."""
        return f"{as_name(folder).rpartition('/')[2]}_{name}"

    def parse(self, tokens: Sequence[str]) -> FrameRef:
        """The reference of 2, 3 or 7 fields."""
        if len(tokens) not in (2, 3, 7):
            raise ValueError(f"{len(tokens)} field{'s' if len(tokens) > 1 else ''} where 2, 3 or 7 are expected")
        seq, stamp, *rest = tokens
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= STAMP_DIGITS):
            raise ValueError(f"stamp {shorten(stamp)!r} is no time in nanoseconds of at most {STAMP_DIGITS} digits")
        if rest:
            _number("index", rest[0])
        intrinsics = None
        if len(rest) == 5:
            fx, fy, cx, cy = (_number(name, value) for name, value in zip(("fx", "fy", "cx", "cy"), rest[1:], strict=True))
            if not (fx > 0 and fy > 0):
                raise ValueError(f"focal lengths {rest[1]} and {rest[2]} must be above 0 pixels")
            if not all(map(math.isfinite, (fx, fy, cx, cy))):
                raise ValueError(f"intrinsics {' '.join(rest[1:])} are not all finite")
            intrinsics = (fx, fy, cx, cy)
        return FrameRef(seq, NOT_ON_DISK, None, stamp.zfill(STAMP_DIGITS), intrinsics)

    def split_line(self, ref: FrameRef) -> str:
        """Seven fields, so that the line says all that training needs."""
        camera = self.intrinsics(ref).at_size(*self.native_size_px(ref))
        numbers = (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px)
        return " ".join([ref.folder, str(ref.name), str(ref.frame_index), *(repr(float(number)) for number in numbers)])


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} {shorten(text)!r} is no number") from error
