"""Which frames a benchmark of data works on: KITTI's own where the reference data lie, else others, and what to call them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Frames(NamedTuple):
    """A tree in KITTI raw's layout (.jpg), a split of it, and what they are, in words."""

    data_path: Path
    split: str
    what: str


def kitti_frames(otherwise: Callable[[], Frames]) -> Frames:
    """Real frames from ``../shared`` or where ``MD_SHARED`` points; without them, what ``otherwise`` makes."""
    kitti = Path(os.environ.get("MD_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "kitti"
    if kitti.is_dir():
        return Frames(kitti / "raw_jpg", str(kitti / "splits" / "kitti_mini"), "KITTI")
    return otherwise()


def demo_frames() -> Frames:
    """The demo world, rendered first where it is absent."""
    from dataload.demo.world import ensure, split_folder

    world = ensure()
    return Frames(world, str(split_folder(world)), "the demo world's, 640x192")
