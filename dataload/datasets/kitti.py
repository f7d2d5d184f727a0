"""KITTI raw: ``<data>/<date>/<drive>_sync/image_02/data/0000000000.jpg``, laser scans as ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import NOMINAL_BASELINE, Dataset, side_of, some
from dataload.split import FrameRef
from dataload.velodyne import depth_map, read_calibration, read_scan

CAMERAS = {"l": 2, "r": 3}
KITTI_BASELINE_M = 0.54
# fx / W, fy / H, cx / W, cy / H: Monodepth2's average over KITTI's cameras, used for all of them.
NOMINAL_INTRINSICS = (0.58, 1.92, 0.5, 0.5)


class KittiBase(Dataset):
    """What KITTI's layouts share: the nominal intrinsics and the baseline."""

    metric_factor: ClassVar[float] = KITTI_BASELINE_M / NOMINAL_BASELINE

    def K(self, ref: FrameRef, height_px: int, width_px: int) -> NDArray[np.float32]:
        """Nominal intrinsics (3, 3) float32 in pixels, the same for every drive."""
        fx, fy, cx, cy = NOMINAL_INTRINSICS
        return np.array([[fx * width_px, 0, cx * width_px], [0, fy * height_px, cy * height_px], [0, 0, 1]], dtype=np.float32)


class KittiRaw(KittiBase):
    """KITTI raw, ground truth projected from the laser scans."""

    def image_folder(self, folder: str, side: str) -> Path:
        """``<data>/<folder>/image_02/data``, image_03 for the right camera."""
        return self.data_path / folder / f"image_0{CAMERAS[side]}" / "data"

    def image_name(self, frame_index: int) -> str:
        """``0000000005.jpg``."""
        return f"{frame_index:010d}{self.image_ext}"

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """The frame's laser scan."""
        return [self.data_path / ref.folder / "velodyne_points" / "data" / f"{ref.frame_index:010d}.bin"]

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """The archives of the drives."""
        names = sorted({f"{Path(ref.folder).name}.zip" for ref in refs})
        return (
            f"unpack velodyne_points of KITTI raw's {some(names)} into {self.data_path} (md-data splits --write DIR lists the addresses "
            "of all archives), or give another data_path"
        )

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32] | None:
        """The scan in the frame's camera, depth along that camera's axis; None where the scan is missing."""
        scan = self.depth_source(ref)
        return None if scan is None else self._project(scan, ref, vel_depth=False)

    def eval_depth_m(self, ref: FrameRef) -> NDArray[np.float32]:
        """The scan in the frame's camera, depth along the laser's axis as in the published evaluation.

        The published lists hold left images only, so camera 2 there.
        """
        return self._project(self.require_depth_source(ref), ref, vel_depth=True)

    def _project(self, scan: Path, ref: FrameRef, *, vel_depth: bool) -> NDArray[np.float32]:
        calibration = read_calibration((self.data_path / ref.folder).parent, CAMERAS[side_of(ref)])
        return depth_map(read_scan(scan), calibration, vel_depth=vel_depth)
