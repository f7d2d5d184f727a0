"""Trajectories on disk: KITTI's pose rows, Monodepth2's ``poses.npy``, TUM rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataload.system.arrays import read_array
from engine.odometry.errors import Array, local_motions
from splits.errors import InputError
from splits.faults import parsing, said_of
from splits.reading import read_lines

ROW_NUMBERS = 12
ROW_FORM = "the first three rows of a 4x4 transform, 12 numbers"
# Files carry about seven digits and drift; a mistaken layout is off by far more.
ROTATION_TOLERANCE = 1e-2
# More is no place on Earth, and overflows where it is multiplied.
FARTHEST_M = 1e9
# A day at 1 Hz; KITTI's sequences have a few thousand.
MOST_POSES = 100_000
WHAT, REMEDY = "a list of poses", f"a line holds {ROW_FORM}"
# KITTI's cameras run at 10 Hz.
FRAME_SECONDS = 0.1


def read_kitti_poses(path: Path) -> Array:
    """Transforms (N,4,4) of a text file with one per row: the 12 numbers of its first three rows; blank lines are skipped.

    Raises:
        InputError: no such file, an empty one, or a row that is no rigid transform; names the line.
    """
    lines = read_lines(path, WHAT, REMEDY)
    if len(lines) > MOST_POSES:
        raise InputError(f"{path} has {len(lines):,} lines, far more than trajectories have; is it another file?")
    with parsing(path, WHAT, REMEDY):
        rows = [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise InputError(f"{path} is empty; a line holds {ROW_FORM}")
    return np.stack(rows)


def kitti_rows(poses: Array) -> str:
    """Poses (N,4,4) as KITTI writes them: a line of 12 numbers each."""
    return "".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in poses[:, :3].reshape(len(poses), ROW_NUMBERS))


def tum_rows(poses: Array, seconds: Array) -> str:
    """Poses (N,4,4) at times (N,) as TUM writes them: lines of ``timestamp tx ty tz qx qy qz qw``."""
    quaternions = quaternions_xyzw(poses[:, :3, :3])
    lines = []
    for time, position, quaternion in zip(seconds, poses[:, :3, 3], quaternions, strict=True):
        lines.append(f"{time:.6f} " + " ".join(f"{value:.9f}" for value in (*position, *quaternion)) + "\n")
    return "".join(lines)


def quaternions_xyzw(rotations: Array) -> Array:
    """Unit quaternions (N,4) as x y z w with w >= 0, of rotation matrices (N,3,3).

    The eigenvector of the greatest eigenvalue of a symmetric matrix of the elements (Bar-Itzhack 2000): exact at every angle, and the
    nearest rotation's where a matrix is slightly off.
    """
    R = rotations
    K = np.empty((len(R), 4, 4))
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        K[:, i, j] = K[:, j, i] = R[:, i, j] + R[:, j, i]
    trace = np.trace(R, axis1=1, axis2=2)
    K[:, (0, 1, 2), (0, 1, 2)] -= trace[:, None]
    axis = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], axis=1)
    K[:, 3, :3] = K[:, :3, 3] = axis
    K[:, 3, 3] = trace
    quaternions: Array = np.linalg.eigh(K)[1][:, :, -1]
    return np.where(quaternions[:, 3:] < 0, -quaternions, quaternions)


def timestamps_s(data_path: Path, sequence: int, num_frames: int) -> Array:
    """Times (N,) of a sequence's frames from its ``times.txt``, or 0.1 s per frame where there is none.

    Raises:
        InputError: lines that are no numbers, or fewer than frames.
    """
    path = data_path / "sequences" / f"{sequence:02d}" / "times.txt"
    if not path.is_file():
        regular: Array = np.arange(num_frames, dtype=np.float64) * FRAME_SECONDS
        return regular
    remedy = "a line holds one time in seconds; correct the file or remove it"
    lines = read_lines(path, "a list of times", remedy)
    with parsing(path, "a list of times", remedy):
        seconds = np.array([float(line) for line in lines if line.strip()])
    if not np.isfinite(seconds).all():
        raise InputError(f"{path} holds a time that is not finite; a line holds one time in seconds; correct the file or remove it")
    if len(seconds) < num_frames:
        raise InputError(f"{path} holds {len(seconds)} times, the sequence has {num_frames} frames; correct the file or remove it")
    return seconds[:num_frames]


def read_motions(path: Path, num_frames: int) -> Array:
    """Frame-to-frame motions (N-1,4,4), T_next_previous, of a sequence of N frames, made elsewhere.

    A ``.npy`` file holds them as Monodepth2's ``poses.npy``; any other file is text with KITTI rows: N-1 rows are the motions, N rows
    absolute poses, T_world_camera.

    Raises:
        InputError: no such file, another form, another count than the sequence's, or values that are no rigid transforms.
    """
    if not path.is_file():
        raise InputError(f"ext_poses_to_eval: no file {path}")
    if path.suffix == ".npy":
        return _read_array(path, num_frames)
    if path.suffix == ".npz":
        raise InputError(f"{path} is an archive of arrays; write the one of motions with numpy.save, as .npy")
    poses = read_kitti_poses(path)
    if len(poses) == num_frames:
        return local_motions(poses)
    if len(poses) != num_frames - 1:
        raise InputError(
            f"{path} holds {len(poses)} rows; the sequence's {num_frames} frames need {num_frames - 1} frame-to-frame motions "
            f"or {num_frames} absolute poses"
        )
    return poses


def _read_array(path: Path, num_frames: int) -> Array:
    array = read_array(path, "a plain .npy array", "write it with numpy.save")
    needed = (num_frames - 1, 4, 4)
    if array.shape != needed or array.dtype.kind != "f":
        raise InputError(
            f"{path} is {array.dtype} of shape {array.shape}, not floats of shape {needed}: frame-to-frame motions of the sequence's "
            f"{num_frames} frames"
        )
    with np.errstate(invalid="ignore"):  # signalling NaN, which is found below
        motions: Array = array.astype(np.float64)
    for number, motion in enumerate(motions):
        fault = rigid_fault(motion)
        if fault:
            raise InputError(f"{path}: motion {number} (counted from 0) {fault}; a motion is a rigid 4x4 transform")
    return motions


def rigid_fault(T: Array) -> str:
    """What keeps a matrix (4,4) from being a rigid transform; empty if nothing does."""
    if not np.isfinite(T).all():
        return "has NaN or infinite values"
    if np.abs(T).max() > FARTHEST_M:
        return f"has values beyond {FARTHEST_M:g}"
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(R) < 0:
        return "has no rotation in its first three columns"
    return "" if np.abs(T[3] - [0, 0, 0, 1]).max() <= ROTATION_TOLERANCE else "has a last row other than 0 0 0 1"


def _row(line: str, where: str) -> Array:
    fields = line.split()
    if len(fields) != ROW_NUMBERS:
        raise InputError(f"{where}: {len(fields)} field{'' if len(fields) == 1 else 's'} where 12 are expected: {ROW_FORM}")
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise InputError(f"{where}: {said_of(error)}; a line holds {ROW_FORM}") from error
    T = np.eye(4)
    T[:3] = np.reshape(values, (3, 4))
    fault = rigid_fault(T)
    if fault:
        raise InputError(f"{where} {fault}; a line holds {ROW_FORM}")
    return T
