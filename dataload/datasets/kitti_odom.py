"""KITTI odometry: ``<data>/sequences/09/image_2/000000.jpg``; no depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataload.datasets.kitti import CAMERAS, KittiBase
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError


class KittiOdom(KittiBase):
    """KITTI odometry sequences; a split line's folder is the sequence's number."""

    def image_folder(self, folder: str, side: str) -> Path:
        """``<data>/sequences/09/image_2``, image_3 for the right camera; ``InputError`` where ``folder`` is no sequence number."""
        if not (folder.isascii() and folder.isdigit()):
            raise InputError(
                f"dataset kitti_odom: {folder!r} is no sequence number; its split lines read '9 123 l': "
                "use --split odom, or --dataset kitti for this list"
            )
        return self.data_path / "sequences" / f"{int(folder):02d}" / f"image_{CAMERAS[side]}"

    def image_name(self, folder: str, side: str, frame_index: int) -> str:
        """``000005.jpg``."""
        return f"{frame_index:06d}{self.image_ext}"

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """To evaluate on another dataset."""
        return "dataset kitti_odom has no ground-truth depth; evaluate depth with --dataset kitti and --eval_split eigen"
