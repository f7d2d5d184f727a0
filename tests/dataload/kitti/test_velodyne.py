"""Laser scans to depth maps: against a plain twin, against the published implementation's numbers, and bad files."""

from pathlib import Path

import numpy as np
import pytest
from golden.formulas import real_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from kitti_tree import write_calibration

from benchmarks.plain_ground_truth import plain_depth_m, plain_depth_map
from dataload.datasets.kitti import KittiRaw
from dataload.frames.frame_ref import FrameRef
from dataload.kitti.velodyne import Calibration, read_calibration, read_scan, sparse_depth
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
    depth = sparse_depth(scan, camera, vel_depth=vel_depth).dense()
    assert depth.shape == (height, width)
    assert depth.dtype == np.float32
    plain = plain_depth_map(scan, camera.projection, (height, width), vel_depth=vel_depth)
    if vel_depth:
        np.testing.assert_array_equal(depth, plain.astype(np.float32))
    else:
        np.testing.assert_allclose(depth, plain, rtol=1e-6)


def scan_onto(pixels: list[tuple[int, int, float]], size_px: tuple[int, int]) -> np.ndarray:
    """Points that fall on (v, u) at distance x of the camera of ``calibration``, in this order."""
    height, width = size_px
    f = 0.5 * width
    points = [(z + 0.27, -(u + 1 - 0.5 * width) * z / f, -(v + 1 - 0.5 * height) * z / f - 0.08, 0.5) for v, u, z in pixels]
    return np.array(points, dtype=np.float32)


@pytest.mark.parametrize(
    ("hits", "row_end", "row_start"),
    [
        ([(1, 7, 9.0), (2, 0, 4.0), (2, 0, 6.0), (1, 7, 12.0)], 4, 6),
        ([(1, 7, 12.0), (2, 0, 6.0), (2, 0, 4.0), (1, 7, 9.0)], 4, 4),
        ([(2, 0, 6.0), (1, 7, 3.0), (1, 7, 12.0)], 12, 3),
        ([(1, 7, 9.0), (1, 7, 12.0)], 9, 0),
        ([(2, 0, 9.0)], 0, 9),
    ],
)
def test_last_pixel_of_a_row_and_first_of_the_next_are_confused_as_published(
    hits: list[tuple[int, int, float]], row_end: float, row_start: float
) -> None:
    """The nearest of both goes to the first point's pixel; the other pixel keeps its own last point."""
    size_px = (5, 8)
    scan = scan_onto([*hits, (3, 3, 5.0), (4, 0, 7.0)], size_px)
    camera = calibration(*size_px)
    depth = sparse_depth(scan, camera, vel_depth=False).dense()
    np.testing.assert_allclose(depth, plain_depth_map(scan, camera.projection, size_px, vel_depth=False), rtol=1e-6)
    assert (depth[1, 7], depth[2, 0]) == pytest.approx((row_end, row_start))
    assert (depth[3, 3], depth[4, 0]) == pytest.approx((5, 7))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), log_reach=st.floats(-3, 12), spoiled=st.integers(0, 5))
def test_the_quick_look_leaves_nothing_out(seed: int, log_reach: float, spoiled: int) -> None:
    rng = np.random.default_rng(seed)
    scan = (rng.normal(size=(3000, 4)) * 10**log_reach).astype(np.float32)
    scan[rng.integers(0, len(scan), spoiled)] = rng.choice([np.nan, np.inf, -np.inf])
    camera = calibration(37, 124)
    with np.errstate(invalid="ignore", over="ignore"):
        plain = plain_depth_map(scan, camera.projection, camera.size_px, vel_depth=True)
        np.testing.assert_array_equal(sparse_depth(scan, camera, vel_depth=True).dense(), plain.astype(np.float32))


def test_points_behind_the_camera_but_before_the_laser_count_as_published() -> None:
    camera = calibration(11, 21)
    scan = np.array([[0.1, 0, -0.08, 0]], dtype=np.float32)
    depth = sparse_depth(scan, camera, vel_depth=True).dense()
    assert depth[depth > 0].tolist() == [np.float32(0.1)]
    assert not sparse_depth(scan, camera, vel_depth=False).dense().any()


def test_sparse_form_is_the_map(shared: Path) -> None:
    drives = sorted((shared / "kitti" / "raw_jpg").glob("2011_09_26/*/velodyne_points/data/*.bin"))
    for path in drives[::7]:
        camera = read_calibration(path.parents[3], 2)
        depth = sparse_depth(read_scan(path), camera, vel_depth=True)
        assert (np.diff(depth.rows * depth.size_px[1] + depth.columns) > 0).all()
        assert depth.values_m.dtype == np.float32
        assert (depth.values_m > 0).all()
        plain = plain_depth_m(shared / "kitti" / "raw_jpg", FrameRef(f"2011_09_26/{path.parents[2].name}", int(path.stem), "l"))
        np.testing.assert_array_equal(depth.dense(), plain.astype(np.float32))


def test_nearest_point_of_a_pixel_counts_and_the_rear_is_dropped() -> None:
    camera = calibration(11, 21)
    ahead = np.array([[10, 0, -0.08, 0], [5, 0, -0.08, 0], [20, 0, -0.08, 0], [-4, 0, -0.08, 0]], dtype=np.float32)
    depth = sparse_depth(ahead, camera, vel_depth=True).dense()
    assert depth.max() == 5
    assert np.count_nonzero(depth) == 1
    assert sparse_depth(ahead, camera, vel_depth=False).dense().max() == pytest.approx(5 - 0.27)


def drive(number: str) -> str:
    return f"2011_09_26/2011_09_26_drive_{number}_sync"


@pytest.mark.parametrize(("key", "side"), [("gt_velodyne_cam2_velodyne_x", "l"), ("gt_velodyne_cam3_camera_z", "r")])
def test_real_scans_give_the_published_numbers(shared: Path, key: str, side: str) -> None:
    golden = real_numbers(shared)[key]
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
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"0000000000.bin is empty.* fetch it again"):
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
        ("S_rect_02: nan 5\n", "'S_rect_02' has infinite or undefined numbers; fetch <date>_calib.zip"),
    ],
)
def test_damaged_calibration_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "calib_cam_to_cam.txt").write_text(text)
    with pytest.raises(InputError, match=rf"calib_cam_to_cam.txt: {message}"):
        read_calibration(tmp_path, 2)


@pytest.mark.parametrize("size_px", [(5, 0), (5, 70_000)])
def test_images_of_an_impossible_size_are_named(tmp_path: Path, size_px: tuple[int, int]) -> None:
    write_calibration(tmp_path, size_px)
    with pytest.raises(InputError, match=rf"images of {size_px[1]}x5 pixels under 'S_rect_02'; fetch <date>_calib.zip"):
        read_calibration(tmp_path, 2)
