"""CameraInfo to intrinsics: regions, binning, resized images; distorted images against a picture that is computed, not remapped."""

from pathlib import Path
from typing import Any

import bags
import numpy as np
import pytest
from PIL import Image

from dataload.bags.batch import convert_all, sequences_of
from dataload.bags.messages.camera_info import Camera, baseline_m, from_message
from dataload.bags.options import ConvertOptions
from dataload.frames.calibration import read_calibration
from splits.errors import InputError

K = np.array([[600.0, 0, 330], [0, 610, 250], [0, 0, 1]])
SIZE = (480, 640)


def camera(image_size: tuple[int, int] = SIZE, topic: str = "/left/image_rect_color", *, ros1: bool = False, **info: Any) -> Camera:
    message = bags.parsed(bags.camera_info("/left/camera_info", **{"K": K, "size_px": SIZE, **info}), ros1=ros1)
    return from_message(message, topic="/left/camera_info", image_topic=topic, size_px=image_size, frame_id="")


@pytest.mark.parametrize("ros1", [True, False])
def test_fields_of_both_ros_are_read(ros1: bool) -> None:
    found = camera(ros1=ros1).intrinsics
    assert (found.fx_px, found.fy_px, found.cx_px, found.cy_px, found.width_px, found.height_px) == (600, 610, 330, 250, 640, 480)


def test_a_rectified_topic_takes_p_and_a_raw_one_is_rectified_to_it() -> None:
    P = np.array([[500.0, 0, 300, 0], [0, 500, 240, 0], [0, 0, 1, 0]])
    D = (-0.2, 0.05, 0, 0, 0)
    rect, raw = camera(P=P, D=D), camera(P=P, D=D, topic="/left/image_raw")
    assert not rect.rectifies
    assert raw.rectifies
    assert rect.intrinsics == raw.intrinsics
    assert rect.intrinsics.fx_px == 500
    assert (raw.K == K).all()
    assert not camera(P=P, topic="/left/image_raw").rectifies  # without distortion there is nothing to do


def seen_at(found: Camera, ray: tuple[float, float]) -> np.ndarray:
    return found.P[:, :3] @ [*ray, 1]


def test_a_region_is_taken_off_then_binning_halves_borders_on_borders() -> None:
    # Columns 100.. and rows 40.. of the sensor, two by two.
    found = camera((200, 250), roi=(100, 40, 400, 500), binning=2)
    u, v, _ = seen_at(found, (0.1, -0.05))
    assert u == pytest.approx((600 * 0.1 + 330 - 100 + 0.5) / 2 - 0.5)
    assert v == pytest.approx((610 * -0.05 + 250 - 40 + 0.5) / 2 - 0.5)


def test_of_an_odd_side_binning_loses_the_last_row_and_the_scale_stays() -> None:
    assert camera((240, 320), size_px=(481, 641), binning=2).intrinsics.fx_px == 300


def test_a_resized_image_scales_the_intrinsics_as_they_scale_for_training() -> None:
    half = camera((240, 320))
    assert np.allclose(half.P[:, :3], camera().intrinsics.K(240, 320))


def test_a_cropped_image_is_an_error() -> None:
    with pytest.raises(InputError, match="640x480, and those recorded are 480x240: cropped, not resized"):
        camera((240, 480))


def test_an_uncalibrated_camera_is_an_error() -> None:
    with pytest.raises(InputError, match=r"/left/camera_info says that its camera is not calibrated .*--intrinsics FX FY CX CY"):
        camera(K=np.zeros((3, 3)))


def test_an_unknown_distortion_is_an_error() -> None:
    with pytest.raises(InputError, match="distortion model 'spherical' is unknown"):
        camera(topic="/left/image_raw", D=(1, 0, 0, 0), model="spherical")


def test_the_baseline_is_of_p_whatever_the_size() -> None:
    right = camera((240, 320), baseline_m=0.12)
    assert baseline_m(camera(), right, "/right/camera_info") == pytest.approx(0.12)
    with pytest.raises(InputError, match="swapped"):
        baseline_m(right, camera(), "/right/camera_info")
    with pytest.raises(InputError, match=r"P\[3\] is 0"):
        baseline_m(camera(), camera(), "/right/camera_info")


def colour_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What lies in the direction (x, y, 1): a smooth pattern (h, w, 3)."""
    return np.stack([127 + 100 * np.sin(14 * x + c) * np.cos(11 * y - c) for c in range(3)], -1)


def undistorted(x: np.ndarray, y: np.ndarray, D: tuple[float, ...], model: str) -> tuple[np.ndarray, np.ndarray]:
    """The direction before the lens, of one behind it, by fixed-point iteration on the published formulas."""
    ux, uy = x.copy(), y.copy()
    for _ in range(200):
        if model == "equidistant":
            r = np.maximum(np.hypot(ux, uy), 1e-12)
            t = np.arctan(r)
            factor = t * (1 + D[0] * t**2 + D[1] * t**4 + D[2] * t**6 + D[3] * t**8) / r
            ux, uy = x / factor, y / factor
        else:
            k1, k2, p1, p2, k3 = D
            r2 = ux**2 + uy**2
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            dx, dy = 2 * p1 * ux * uy + p2 * (r2 + 2 * ux**2), p1 * (r2 + 2 * uy**2) + 2 * p2 * ux * uy
            ux, uy = (x - dx) / radial, (y - dy) / radial
    return ux, uy


def turned(R: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = np.einsum("ij,jhw->ihw", R, np.stack([x, y, np.ones_like(x)]))
    return a / c, b / c


@pytest.mark.parametrize(
    ("model", "D"),
    [("plumb_bob", (-0.25, 0.06, 0.002, -0.001, 0.01)), ("equidistant", (0.03, -0.01, 0.004, -0.001)), ("plumb_bob", (0.0,) * 5)],
)
def test_a_distorted_image_is_rectified_to_what_a_pinhole_camera_sees(model: str, D: tuple[float, ...], tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    size, a = (240, 320), 0.03
    R = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    K_raw, P = np.array([[210.0, 0, 163], [0, 205, 118], [0, 0, 1]]), np.array([[190.0, 0, 158, 0], [0, 190, 121, 0], [0, 0, 1, 0]])
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float64)
    # The pattern is fixed to the rectified camera.
    raw = colour_of(*turned(R, *undistorted((u - 163) / 210, (v - 118) / 205, D, model)))
    expected = colour_of((u - 158) / 190, (v - 121) / 190)
    messages = [
        bags.camera_info("/left/camera_info", K_raw, size, D=D, R=R, P=P, model=model),
        bags.image("/left/image_raw", np.rint(raw).astype(np.uint8), "rgb8", bags.START_NS),
    ]
    path = bags.write_bag(tmp_path, "drive", "bag", messages)
    (report,) = convert_all(sequences_of([path]), tmp_path / "out", ConvertOptions(png=True), progress=False).reports
    (image,) = (report.folder / "front_rgb_left").iterdir()
    inner = (slice(25, -25), slice(25, -25))
    off = np.abs(np.asarray(Image.open(image)).astype(float) - expected)[inner]
    assert off.max() < 2.5
    assert off.mean() < 0.5
    left = read_calibration(report.folder / "calibration.yaml").cameras["front_left"]
    assert (left.fx_px, left.cx_px, left.cy_px) == (190, 158, 121)
    assert "/left/image_raw: rectified by its camera_info" in report.notes


def test_sequences_of_other_sizes_and_a_frame_of_another_size(tmp_path: Path) -> None:
    for name, size in (("a", (48, 80)), ("b", (60, 96))):
        messages = [bags.camera_info("/left/camera_info", K, size)]
        for i in range(4):
            # The camera is set to half its size for one frame.
            shown = (size[0] // 2, size[1] // 2) if i == 2 else size
            stamp = bags.START_NS + i * bags.PERIOD_NS
            messages.append(bags.compressed("/left/image_rect/compressed", bags.jpeg(bags.picture(shown, i)), stamp))
        bags.write_bag(tmp_path / "in", name, "mcap", messages)
    reports = convert_all(sequences_of([tmp_path / "in"]), tmp_path / "out", ConvertOptions(), progress=False).reports
    sizes = [(report.calibration.cameras["front_left"].height_px, report.calibration.cameras["front_left"].width_px) for report in reports]
    assert sizes == [(48, 80), (60, 96)]
    assert all(report.dropped == {"left frames: of another size": 1} and len(report.stamps_ns) == 3 for report in reports)


def test_intrinsics_can_be_given_where_there_is_no_camera_info(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path, "drive", "mcap", [bags.image("/camera/image_raw", bags.picture((48, 80)), "rgb8", bags.START_NS)])
    (failure,) = convert_all(sequences_of([path]), tmp_path / "out", ConvertOptions(), progress=False).failures
    assert "/camera/image_raw has no camera_info beside it" in failure
    assert "--camera_info_topic" in failure
    assert "--intrinsics FX FY CX CY" in failure
    options = ConvertOptions(intrinsics=(70.0, 71.0, 40.0, 24.0))
    (report,) = convert_all(sequences_of([path]), tmp_path / "out", options, progress=False).reports
    left = report.calibration.cameras["front_left"]
    assert (left.fx_px, left.fy_px, left.cx_px, left.cy_px) == (70, 71, 40, 24)


def test_a_projection_beside_a_camera_matrix_of_zeros_is_the_camera() -> None:
    P = np.array([[300.0, 0, 320, 0], [0, 301, 240, 0], [0, 0, 1, 0]])
    found = camera(K=np.zeros((3, 3)), P=P, D=())
    assert (found.intrinsics.fx_px, found.intrinsics.fy_px) == (300, 301)
    with pytest.raises(InputError, match=r"has lens distortion but no camera matrix"):
        camera(K=np.zeros((3, 3)), P=P, D=(-0.3, 0.1, 0, 0, 0), topic="/left/image_raw")
    assert camera(K=np.zeros((3, 3)), P=P, D=(-0.3, 0.1, 0, 0, 0)).intrinsics.fx_px == 300
    with pytest.raises(InputError, match=r"P is no matrix of numbers"):
        camera(P=np.full((3, 4), np.nan))
