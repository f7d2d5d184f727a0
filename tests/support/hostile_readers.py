"""Readers of one path each, which ``hostile.read_apart`` calls in a process of its own."""

from pathlib import Path

import numpy as np

from dataload.datasets.folder import Folder
from dataload.frames.calibration import read_calibration
from dataload.frames.frame_ref import parse_split
from dataload.ground_truth import read_ground_truth
from dataload.kitti.velodyne import CAM_TO_CAM, VELO_TO_CAM, Calibration, read_scan, sparse_depth
from dataload.kitti.velodyne import read_calibration as read_kitti_calibration
from dataload.system.arrays import open_array, read_array
from engine.evaluation.disp_files import open_inv_depths
from engine.odometry.trajectory import read_motions
from splits.errors import InputError
from splits.reading import read_lines


def read_plainly(path: Path) -> np.ndarray:
    return read_array(path, "an array", "write it again")


def read_in_parts(path: Path) -> np.ndarray:
    return open_array(path, "an array", "write it again")[:]


def read_disps(path: Path) -> object:
    return open_inv_depths(path, 4)


def read_truth(path: Path) -> object:
    return read_ground_truth(path)


def read_camera(path: Path) -> object:
    return read_calibration(path, lambda: (375, 1242))


def read_poses(path: Path) -> object:
    return read_motions(path, 12)


def read_split(path: Path) -> object:
    """By the rule of KITTI's lists and that of sequences; refused by one of the two is refused."""
    lines = read_lines(path, "a split list", "write it again")
    parse_split([line for line in lines if len(line.split()) == 3], source=str(path))
    return Folder(path.parent).refs(lines, source=str(path))


def read_laser(path: Path) -> object:
    """A scan as it falls on an image."""
    calibration = Calibration(np.eye(3, 4), (375, 1242))
    return sparse_depth(read_scan(path), calibration, vel_depth=True).dense()


def read_kitti_camera(path: Path) -> object:
    """The same text as both of a date's files."""
    for name in (CAM_TO_CAM, VELO_TO_CAM):
        (path.parent.parent / name).unlink(missing_ok=True)
        (path.parent.parent / name).symlink_to(path)
    try:
        return read_kitti_calibration(path.parent.parent, 2)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    finally:
        read_kitti_calibration.cache_clear()
