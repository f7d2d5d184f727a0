"""Laser scans to depth maps: against a plain twin, against the published implementation's numbers, and bad files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import velodyne as reference

from dataload.datasets.kitti import KittiRaw
from dataload.split import FrameRef
from dataload.velodyne import Calibration, depth_map, read_calibration, read_scan
from splits.errors import InputError

# Forward, left, up to right, down, forward; a small image, so that many points share a pixel and rows' ends meet.
TO_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])


def calibration(height: int, width: int) -> Calibration:
    f = 0.5 * width
    camera = np.array([[f, 0, 0.5 * width, 0], [0, f, 0.5 * height, 0], [0, 0, 1, 0]])
    return Calibration(camera @ TO_CAMERA, (height, width))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), height=st.integers(2, 12), width=st.integers(2, 12), count=st.integers(0, 400), vel_depth=st.booleans()
)
def test_equals_the_plain_twin(seed: int, height: int, width: int, count: int, vel_depth: bool) -> None:
    scan = np.random.default_rng(seed).uniform([-3, -8, -8, 0], [20, 8, 8, 1], size=(count, 4)).astype(np.float32)
    camera = calibration(height, width)
    depth = depth_map(scan, camera, vel_depth=vel_depth)
    assert depth.shape == (height, width)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, reference.depth_map(scan, camera.projection, (height, width), vel_depth=vel_depth), rtol=1e-6)


def test_nearest_point_of_a_pixel_counts_and_the_rear_is_dropped() -> None:
    camera = calibration(11, 21)
    ahead = np.array([[10, 0, -0.08, 0], [5, 0, -0.08, 0], [20, 0, -0.08, 0], [-4, 0, -0.08, 0]], dtype=np.float32)
    depth = depth_map(ahead, camera, vel_depth=True)
    assert depth.max() == 5
    assert np.count_nonzero(depth) == 1
    assert depth_map(ahead, camera, vel_depth=False).max() == pytest.approx(5 - 0.27)


def drive(number: str) -> str:
    return f"2011_09_26/2011_09_26_drive_{number}_sync"


@pytest.mark.parametrize(("key", "side"), [("gt_velodyne_cam2_velodyne_x", "l"), ("gt_velodyne_cam3_camera_z", "r")])
def test_real_scans_give_the_published_numbers(shared: Path, key: str, side: str) -> None:
    golden = json.loads((shared / "golden" / "upstream.json").read_text())[key]
    dataset = KittiRaw(shared / "kitti" / "raw_jpg", ".jpg")
    for frame, expected in golden.items():
        ref = FrameRef(drive("0052"), int(frame), side)
        depth = dataset.eval_depth_m(ref) if side == "l" else dataset.depth_m(ref)
        assert depth is not None
        assert list(depth.shape) == expected["shape"]
        assert np.count_nonzero(depth) == expected["valid"]
        assert depth.sum(dtype=np.float64) == pytest.approx(expected["sum_m"], rel=1e-5)


def test_cut_scan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0000000000.bin"
    path.write_bytes(bytes(33))
    with pytest.raises(InputError, match=r"0000000000.bin is no whole number of 16-byte laser points"):
        read_scan(path)


def test_missing_calibration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calib_cam_to_cam.txt is missing.*_calib.zip"):
        read_calibration(tmp_path, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S_rect_02: 10 5\n", "no numbers under 'R_rect_00'"),
        ("S_rect_02: ten 5\n", "no numbers under 'S_rect_02'"),
        ("S_rect_02: 10\n", "'S_rect_02' has 1 numbers, not 2"),
    ],
)
def test_damaged_calibration_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "calib_cam_to_cam.txt").write_text(text)
    with pytest.raises(InputError, match=rf"calib_cam_to_cam.txt: {message}"):
        read_calibration(tmp_path, 2)
