"""Your own folders of images: ``<data>/<seq>/<frames>``, or ``left/`` and ``right/`` below each sequence; any names that sort."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataload.datasets.sequences import SequenceDataset, frame_of
from dataload.frames.frame_ref import FrameRef

STEREO_FOLDERS = {"l": "left", "r": "right"}
DEPTH_FOLDER = "depth"


class Folder(SequenceDataset):
    """Sequences of frames by any names; pairs of two cameras have the same name in ``left/`` and ``right/``.

    Depth, where there is some, lies in ``<seq>/depth/<the frame's name>.png``, or .npy or TIFF.
    """

    default_split: ClassVar[str | None] = "folder"

    def image_folder(self, folder: str, side: str) -> Path:
        """``<seq>/left`` and ``<seq>/right`` where there is a left one; else the left camera's images are those of ``<seq>`` itself."""
        place = self.sequence_folder(folder)
        if side == "l" and not (place / STEREO_FOLDERS["l"]).is_dir():
            return place
        return place / STEREO_FOLDERS[side]

    def depth_path(self, ref: FrameRef) -> Path:
        """``<seq>/depth/<frame>.png``."""
        return self.sequence_folder(ref.folder) / DEPTH_FOLDER / f"{frame_of(ref)}.png"

    def sequences(self) -> list[str]:
        """The sequences that are there; folders of a stereo sequence, or of its depth, are none of their own."""
        return [name for name in super().sequences() if name.rpartition("/")[2] not in (*STEREO_FOLDERS.values(), DEPTH_FOLDER)]

    def layout(self) -> str:
        """Where images are looked for, for messages."""
        return "images are looked for in <sequence>/ or <sequence>/left/ and right/"
