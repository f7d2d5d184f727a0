"""The KITTI depth benchmark's anonymous test images: ``<data>/image/0000000000.png``, no camera named, no ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dataload.datasets.kitti import KittiBase
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

FOLDER = "image"
# data_path may be the folder that holds image/, or one of those that the official archive puts around it.
PLACES = ("", "test_depth_prediction_anonymous", "depth_selection/test_depth_prediction_anonymous")


class KittiTest(KittiBase):
    """500 single images, for prediction only; their split lines read ``image 5``."""

    default_image_ext: ClassVar[str] = ".png"
    image_remedy: ClassVar[str] = (
        "they are in KITTI's data_depth_selection.zip (md-data download kitti --part selection fetches it): unpack it in data_path, where "
        "depth_selection/test_depth_prediction_anonymous/image is looked for"
    )

    def image_folder(self, folder: str, side: str) -> Path:
        """``<data>/image``, or where the archive puts it; there is one camera, so ``side`` is ignored."""
        if folder != FOLDER:
            raise InputError(
                f"dataset kitti_test: {folder!r} is none of its folders; its split lines read '{FOLDER} 5': "
                "use the test list of --split benchmark, or --dataset kitti for this list"
            )
        folders = [self.data_path / place / FOLDER for place in PLACES]
        return next((path for path in folders if path.is_dir()), folders[0])

    def image_name(self, folder: str, side: str, frame_index: int) -> str:
        """``0000000005.png``."""
        return f"{frame_index:010d}{self.image_ext}"

    def side(self, ref: FrameRef) -> str:
        """Always l: the images name no camera, and one that a line names is ignored."""
        return "l"

    def check_sources(self, frame_ids: Sequence[int], *, use_stereo: bool) -> None:
        """``InputError`` for anything but the target: the images come in no order and singly."""
        if use_stereo or any(frame_ids):
            raise InputError(
                "dataset kitti_test cannot be trained on: its images are single ones, without neighbours or a second camera; "
                "train with --dataset kitti and --split benchmark"
            )

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """To send predictions to the benchmark."""
        return (
            "dataset kitti_test has no ground-truth depth: the KITTI benchmark's server holds it and scores what is sent there; "
            "evaluate here with --dataset kitti and --eval_split eigen"
        )
