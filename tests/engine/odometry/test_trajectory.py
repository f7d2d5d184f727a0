"""Trajectory files: what is written is read back, and every fault has one line."""

import math
from pathlib import Path

import numpy as np
import pytest

from engine.odometry.errors import absolute_poses, local_motions
from engine.odometry.trajectory import kitti_rows, quaternions_xyzw, read_kitti_poses, read_motions, timestamps_s, tum_rows
from splits.errors import InputError

IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0"


def _rotation(axis: list[float], angle: float) -> np.ndarray:
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _motions(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = [_rotation(list(rng.normal(size=3)), angle) for angle in rng.normal(0, 0.1, count)]
    T[:, :3, 3] = rng.normal([0, 0, -1], 0.1, (count, 3))
    return T


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [-1, 2, 3], [0, -1, 1]])
@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, math.pi - 1e-7, math.pi])
def test_quaternions_at_every_angle(axis: list[float], angle: float) -> None:
    found = quaternions_xyzw(_rotation(axis, angle)[None])[0]
    half = np.array([*(math.sin(angle / 2) * np.array(axis) / np.linalg.norm(axis)), math.cos(angle / 2)])
    # At half a turn q and -q are both within rounding of w >= 0.
    assert min(np.abs(found - half).max(), np.abs(found + half).max()) < 1e-9
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)
    assert found[3] >= 0


def test_quaternions_stay_unit_where_a_matrix_is_slightly_off() -> None:
    found = quaternions_xyzw(1.003 * _rotation([1, 2, 3], 2.0)[None])[0]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)
    assert found[3] == pytest.approx(math.cos(1.0), abs=1e-3)


def test_kitti_rows_are_read_back(tmp_path: Path) -> None:
    poses = absolute_poses(_motions(8))
    path = tmp_path / "poses.txt"
    path.write_text(kitti_rows(poses) + "\n\n")
    np.testing.assert_allclose(read_kitti_poses(path), poses, atol=1e-8)


def test_real_poses_are_read(shared: Path) -> None:
    poses = read_kitti_poses(shared / "kitti" / "odometry" / "poses" / "09.txt")
    assert poses.shape == (1591, 4, 4)
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{IDENTITY}\n{IDENTITY} 5\n", "line 2: 13 fields where 12 are expected"),
        (f"\n{IDENTITY[:-1]}x\n", "line 2: could not convert string to float: 'x'"),
        (f"{IDENTITY[:-1]}nan\n", "line 1 has NaN or infinite values"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "line 1 has no rotation"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0\n", "line 1 has no rotation"),
        ("1\n", "line 1: 1 field where 12"),
        ("\n \n", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_faults_of_pose_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "09.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_kitti_poses(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tum_rows() -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, :3] = _rotation([0, 1, 0], math.pi / 2)
    poses[1, :3, 3] = [1, 2, -3.5]
    first, second = (list(map(float, line.split())) for line in tum_rows(poses, np.array([0.0, 0.103736])).splitlines())
    assert first == [0, 0, 0, 0, 0, 0, 0, 1]
    assert second == pytest.approx([0.103736, 1, 2, -3.5, 0, math.sqrt(0.5), 0, math.sqrt(0.5)], abs=1e-8)


def test_timestamps(tmp_path: Path) -> None:
    np.testing.assert_allclose(timestamps_s(tmp_path, 4, 3), [0, 0.1, 0.2])
    times = tmp_path / "sequences" / "04" / "times.txt"
    times.parent.mkdir(parents=True)
    times.write_text("0.000000e+00\n1.037359e-01\n2.07e-01\n")
    np.testing.assert_allclose(timestamps_s(tmp_path, 4, 3), [0, 0.1037359, 0.207])
    with pytest.raises(InputError, match="holds 3 times, the sequence has 4 frames"):
        timestamps_s(tmp_path, 4, 4)
    times.write_text("nan\n")
    with pytest.raises(InputError, match=r"times\.txt holds a time that is not finite"):
        timestamps_s(tmp_path, 4, 1)
    times.write_text("zero\n")
    with pytest.raises(InputError, match=r"times\.txt is not a list of times .could not convert"):
        timestamps_s(tmp_path, 4, 1)


def test_motions_in_each_form(tmp_path: Path) -> None:
    motions = _motions(6)
    np.save(tmp_path / "poses.npy", motions.astype(np.float32))
    np.testing.assert_allclose(read_motions(tmp_path / "poses.npy", 7), motions, atol=1e-6)
    (tmp_path / "motions.txt").write_text(kitti_rows(motions))
    np.testing.assert_allclose(read_motions(tmp_path / "motions.txt", 7), motions, atol=1e-8)
    poses = absolute_poses(motions)
    (tmp_path / "absolute.txt").write_text(kitti_rows(poses))
    np.testing.assert_allclose(read_motions(tmp_path / "absolute.txt", 7), local_motions(poses), atol=1e-7)


def _nan(motions: np.ndarray) -> np.ndarray:
    motions[3, 0, 3] = np.nan
    return motions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:-1], r"is float64 of shape \(5, 4, 4\), not floats of shape \(6, 4, 4\)"),
        (lambda m: m[:, :3], r"of shape \(6, 3, 4\)"),
        (lambda m: np.tile(np.eye(4, dtype=int), (6, 1, 1)), r"is int64 of shape \(6, 4, 4\)"),
        (lambda m: np.array([{}], dtype=object), "is not a plain .npy array"),
        (_nan, "motion 3 .counted from 0. has NaN or infinite values"),
        (lambda m: 2 * m, "motion 0 .counted from 0. has no rotation"),
        (lambda m: m + np.eye(4)[:, [1, 2, 3, 0]] * [[0], [0], [0], [1]], "motion 0 .counted from 0. has a last row"),
    ],
)
def test_faults_of_motion_arrays(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "poses.npy"
    np.save(path, change(_motions(6)), allow_pickle=True)
    with pytest.raises(InputError, match=message) as caught:
        read_motions(path, 7)
    assert str(path) in str(caught.value)


def test_faults_of_motion_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ext_poses_to_eval: no file"):
        read_motions(tmp_path / "none.npy", 7)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"is not a plain \.npy array"):
        read_motions(tmp_path / "cut.npy", 7)
    np.savez(tmp_path / "poses.npz", a=_motions(6))
    with pytest.raises(InputError, match="is an archive of arrays"):
        read_motions(tmp_path / "poses.npz", 7)
    (tmp_path / "poses.npz").rename(tmp_path / "zip.npy")
    with pytest.raises(InputError, match=r"is not a plain \.npy array"):
        read_motions(tmp_path / "zip.npy", 7)
    (tmp_path / "short.txt").write_text(kitti_rows(_motions(4)))
    with pytest.raises(InputError, match="holds 4 rows; the sequence's 7 frames need 6 frame-to-frame motions or 7 absolute poses"):
        read_motions(tmp_path / "short.txt", 7)
