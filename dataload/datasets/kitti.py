"""KITTI raw: ``<data>/<date>/<drive>_sync/image_02/data/0000000000.jpg``, laser scans as ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.config import DataConfig
from dataload.datasets.base import NOMINAL_BASELINE, Dataset, side_of, some
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth
from dataload.kitti.velodyne import CAM_TO_CAM, read_calibration, read_scan, sparse_depth
from splits import archives

CAMERAS = {"l": 2, "r": 3}
KITTI_BASELINE_M = 0.54
KITTI_METRIC_FACTOR = KITTI_BASELINE_M / NOMINAL_BASELINE
# fx / W, fy / H, cx / W, cy / H: Monodepth2's average over KITTI's cameras, used for all of them.
NOMINAL_INTRINSICS = (0.58, 1.92, 0.5, 0.5)


class KittiBase(Dataset):
    """What KITTI's layouts share: the nominal intrinsics and the baseline."""

    default_split: ClassVar[str | None] = DataConfig.split

    @property
    def metric_factor(self) -> float:
        """5.4: the cameras' 0.54 m over the nominal baseline."""
        return KITTI_METRIC_FACTOR

    def K(self, ref: FrameRef, height_px: int, width_px: int) -> NDArray[np.float32]:
        """Nominal intrinsics (3, 3) float32 in pixels, the same for every drive."""
        fx, fy, cx, cy = NOMINAL_INTRINSICS
        return np.array([[fx * width_px, 0, cx * width_px], [0, fy * height_px, cy * height_px], [0, 0, 1]], dtype=np.float32)


class KittiRaw(KittiBase):
    """KITTI raw, ground truth projected from the laser scans."""

    depth_kind: ClassVar[str] = "laser scan"

    def image_folder(self, folder: str, side: str) -> Path:
        """``<data>/<folder>/image_02/data``, image_03 for the right camera."""
        return self.data_path / folder / f"image_0{CAMERAS[side]}" / "data"

    def image_name(self, folder: str, side: str, frame_index: int) -> str:
        """``0000000005.jpg``."""
        return f"{frame_index:010d}{self.image_ext}"

    def scan_path(self, ref: FrameRef) -> Path:
        """The frame's laser scan."""
        return self.data_path / ref.folder / "velodyne_points" / "data" / f"{ref.frame_index:010d}.bin"

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """The frame's laser scan."""
        return [self.scan_path(ref)]

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """The archives of the drives, and of the dates' calibration where it is missing too; other folders than KITTI's have none."""
        if refs[0].side is None:
            return (
                "such lines name no camera: those of the benchmark's anonymous test images (--dataset kitti_test), whose ground truth only "
                "the benchmark's server has"
            )
        drives = {Path(ref.folder) for ref in refs}
        names = {f"{drive.name}.zip" for drive in drives}
        names |= {f"{drive.parent.name}_calib.zip" for drive in drives if not (self.data_path / drive.parent / CAM_TO_CAM).is_file()}
        known = sorted(names & {address.rpartition("/")[2] for address in archives()})
        if not known:
            return "put the scans there, take the lines out of the list, or give another data_path"
        return (
            f"unpack KITTI raw's {some(known)} into {self.data_path} (md-data splits --write DIR lists the addresses of all archives), "
            "or give another data_path"
        )

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32] | None:
        """The scan in the frame's camera, depth along that camera's axis; None where the scan is missing."""
        scan = self.depth_source(ref)
        return None if scan is None else self._project(scan, ref, vel_depth=False).dense()

    def eval_sparse_depth(self, ref: FrameRef) -> SparseDepth:
        """The scan in the frame's camera, depth along the laser's axis as in the published evaluation.

        The published lists hold left images only, so camera 2 there.
        """
        return self._project(self.require_depth_source(ref), ref, vel_depth=True)

    def _project(self, scan: Path, ref: FrameRef, *, vel_depth: bool) -> SparseDepth:
        calibration = read_calibration((self.data_path / ref.folder).parent, CAMERAS[side_of(ref)])
        return sparse_depth(read_scan(scan), calibration, vel_depth=vel_depth)
