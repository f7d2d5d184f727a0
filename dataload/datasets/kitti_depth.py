"""KITTI raw images with the depth benchmark's accumulated ground truth (``proj_depth``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import Dataset, side_of
from dataload.datasets.kitti import CAMERAS, KittiRaw
from dataload.frames.depth_file import read_depth_levels
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth

# PNG value per metre, the benchmark's format; 0 = no measurement.
PNG_PER_M = 256.0
# Depth is accumulated from this many scans before and after.
NUM_UNANNOTATED = 5
# Where a drive's proj_depth may lie: merged into the raw tree, or unpacked from the official archive as it is.
ZIP_FOLDERS = tuple(f"{folder}{part}" for folder in ("", "data_depth_annotated/", "depth_annotated/") for part in ("train", "val"))


class KittiDepth(KittiRaw):
    """KITTI raw whose ground truth is read from 16-bit PNG files; no laser scans needed."""

    depth_kind: ClassVar[str] = "annotated depth"

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32] | None:
        """The frame's annotated depth, camera z; None where there is no file."""
        source = self.depth_source(ref)
        return None if source is None else read_depth_png(source)

    def eval_sparse_depth(self, ref: FrameRef) -> SparseDepth:
        """The frame's annotated depth; ``InputError`` names where it was looked for."""
        return Dataset.eval_sparse_depth(self, ref)

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """Where the frame's annotated depth may lie, the raw tree first."""
        drive = Path(ref.folder).name
        inner = Path("proj_depth") / "groundtruth" / f"image_0{CAMERAS[side_of(ref)]}" / f"{ref.frame_index:010d}.png"
        return [self.data_path / ref.folder / inner, *(self.data_path / folder / drive / inner for folder in ZIP_FOLDERS)]

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """The depth benchmark's archive, and where it is looked for."""
        if any(path.parent.is_dir() for path in self.depth_places(refs[0])):
            return (
                f"a drive's first and last {NUM_UNANNOTATED} frames have no annotated depth: take such lines out of the list, "
                "or if these are others, unpack KITTI's data_depth_annotated.zip again"
            )
        return (
            f"looked for {refs[0].folder}/proj_depth and for {Path(refs[0].folder).name}/proj_depth in {', '.join(ZIP_FOLDERS)}; "
            f"unpack KITTI's data_depth_annotated.zip into {self.data_path} (md-data download kitti --part annotated does)"
        )


def read_depth_png(path: Path) -> NDArray[np.float32]:
    """Depth in metres (h, w) float32 of a 16-bit PNG, value / 256, 0 = missing; ``InputError`` as ``read_depth_levels``."""
    return (read_depth_levels(path) / np.float32(PNG_PER_M)).astype(np.float32)
