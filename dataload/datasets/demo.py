"""The demo world: a rendered street in KITTI raw layout, made on first use, with exact depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import side_of
from dataload.datasets.kitti import CAMERAS, KittiRaw
from dataload.datasets.kitti_depth import read_depth_png
from dataload.demo.world import ensure, exact_depth_path
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth
from splits.errors import InputError


class Demo(KittiRaw):
    """KITTI raw whose ground truth is the rendered scene's own depth, at every pixel but the sky's.

    Args:
        data_path: the world's folder, rendered first where it is absent; the cache folder for None.
        image_ext: ``.jpg``, the only one it is rendered in. options: none is known.
    """

    depth_kind: ClassVar[str] = "exact depth"

    def __init__(self, data_path: Path | None = None, image_ext: str = ".jpg", **options: Any) -> None:
        if image_ext != ".jpg":
            raise InputError(f"dataset demo: its images are .jpg, not {image_ext}; leave --png out")
        super().__init__(ensure(data_path), image_ext, **options)

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """The frame's exact depth."""
        return [exact_depth_path(self.data_path, ref.folder, f"image_0{CAMERAS[side_of(ref)]}", ref.frame_index)]

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """Make the world again."""
        return "make the world again: md-data demo --remake"

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32]:
        """Exact depth (h, w) float32 of the frame's camera in metres along its axis, 0 for sky; ``InputError`` names a missing file."""
        return read_depth_png(self.require_depth_source(ref))

    def eval_sparse_depth(self, ref: FrameRef) -> SparseDepth:
        """The exact depth: there is nothing to approximate."""
        return SparseDepth.of(self.depth_m(ref))
