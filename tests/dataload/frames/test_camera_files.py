"""Camera files of other tools, and numbers in them: each is read as it stands there, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataload.frames.calibration import LEFT, RIGHT, Intrinsics, read_calibration
from splits.errors import InputError

KALIBR = """
cam0:
  camera_model: pinhole
  intrinsics: [460.0, 461.0, 362.5, 248.5]
  distortion_model: radtan
  distortion_coeffs: [0.0, 0.0, 0.0, 0.0]
  resolution: [752, 480]
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.11]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  intrinsics: [460.0, 461.0, 362.5, 248.5]
  distortion_model: none
  distortion_coeffs: []
  resolution: [752, 480]
"""
ORB_SLAM = """%YAML:1.0
#---
Camera.fx: 460.0
Camera.fy: 461.0
Camera.cx: 362.5
Camera.cy: 248.5
Camera.k1: 0.0
Camera.p1: 0.0
Camera.width: 752
Camera.height: 480
Camera.bf: 46.0
"""
OPENCV = """%YAML:1.0
---
calibration_time: "Tue"
image_width: 752
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data:[ 4.6e+02, 0., 3.625e+02, 0., 4.61e+02,
       2.485e+02, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ 0., 0., 0., 0., 0. ]
"""
PYTHON = """
camera_matrix: [[460.0, 0.0, 362.5], [0.0, 461.0, 248.5], [0.0, 0.0, 1.0]]
dist_coeff: [[0.0, 0.0, 0.0, 0.0, 0.0]]
width: 752
height: 480
"""
SENSOR = """
sensor_type: camera
T_BS: {rows: 4, cols: 4, data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}
resolution: [752, 480]
camera_model: pinhole
intrinsics: [460.0, 461.0, 362.5, 248.5]
distortion_model: radial-tangential
distortion_coefficients: [0, 0, 0, 0]
"""
VINS = """%YAML:1.0
---
model_type: PINHOLE
image_width: 752
image_height: 480
distortion_parameters:
   k1: 0
   k2: 0
projection_parameters:
   fx: 460
   fy: 461
   cx: 362.5
   cy: 248.5
"""
CAMERA = Intrinsics(fx_px=460, fy_px=461, cx_px=362.5, cy_px=248.5, width_px=752, height_px=480)
ROS = """
image_width: 200
image_height: 120
camera_matrix: {rows: 3, cols: 3, data: [FX, 0, 99.5, 0, 150.0, 59.5, 0, 0, 1]}
distortion_coefficients: [K1, 0, 0, 0, 0]
projection_matrix: PROJECTION
"""
ZERO = str([0] * 12)
BILLION_LAUGHS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "cameras: {front_left: {image_width: *i, image_height: 3, camera_matrix: *i}}\nstereo: *i\n"
)


def read(folder: Path, text: str, **options: object) -> object:
    path = folder / "calibration.yaml"
    path.write_text(text)
    return read_calibration(path, **options)  # type: ignore[arg-type]


def ros(*, fx: str = "150.0", k1: str = "0", projection: str = ZERO) -> str:
    return ROS.replace("FX", fx).replace("K1", k1).replace("PROJECTION", projection)


def fault(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "calibration.yaml"))
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "text", [KALIBR, ORB_SLAM, OPENCV, PYTHON, SENSOR, VINS], ids=["kalibr", "orb", "opencv", "python", "sensor", "vins"]
)
def test_files_of_other_tools_give_the_same_camera(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).cameras[LEFT] == CAMERA


def test_baselines_are_those_of_the_files(tmp_path: Path) -> None:
    assert read(tmp_path, KALIBR).baseline_m == pytest.approx(0.11)
    assert read(tmp_path, KALIBR).cameras[RIGHT] == CAMERA
    assert read(tmp_path, ORB_SLAM).baseline_m == pytest.approx(0.1)
    assert read(tmp_path, ORB_SLAM.replace("Camera.bf: 46.0", "Stereo.b: 0.12\nCamera.bf: 46.0")).baseline_m == pytest.approx(0.12)
    assert "swap left and right" in fault(tmp_path, KALIBR.replace("-0.11", "0.11"))
    assert "no rectified pair" in fault(tmp_path, KALIBR.replace("- [0.0, 1.0, 0.0, 0.0]", "- [0.0, 1.0, 0.01, 0.0]"))


def test_orb_slam_without_a_size_counts_in_pixels_of_the_images(tmp_path: Path) -> None:
    text = ORB_SLAM.replace("Camera.width: 752\nCamera.height: 480\n", "DepthMapFactor: 5000.0\n")
    calibration = read(tmp_path, text, image_size_px=lambda: (48, 75))
    assert calibration.cameras[LEFT].size_px == (48, 75)
    assert calibration.depth_scale == 5000
    assert "lacks image_width" in fault(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (KALIBR.replace("distortion_coeffs: [0.0,", "distortion_coeffs: [-2.7e-1,"), "are distorted"),
        (KALIBR.replace("camera_model: pinhole", "camera_model: omni", 1), "model omni"),
        (KALIBR.replace("distortion_model: radtan", "distortion_model: equidistant"), "fisheye"),
        (ORB_SLAM.replace("Camera.k1: 0.0", "Camera.k1: -3e-1"), "are distorted"),
        (ORB_SLAM + 'Camera.type: "KannalaBrandt8"\n', "KannalaBrandt8"),
        (ORB_SLAM + "LEFT.D: !!opencv-matrix\n   rows: 1\n   cols: 2\n   data:[-0.28, 0.07]\n", "are distorted"),
        (OPENCV.replace("data: [ 0.,", "data: [ -3e-1,"), "are distorted"),
        (PYTHON.replace("dist_coeff: [[0.0", "dist_coeff: [[.1"), "are distorted"),
        (PYTHON.replace("dist_coeff", "dist_koeff"), "field dist_koeff is not known"),
        (PYTHON + "K: [460, 0, 1, 0, 460, 1, 0, 0, 1]\n", "both give its camera_matrix"),
        (SENSOR.replace("[0, 0, 0, 0]", "[-0.28, 0, 0, 0]"), "are distorted"),
        (VINS.replace("k2: 0", "k2: 8e-02"), "are distorted"),
        (VINS.replace("PINHOLE", "MEI"), "model_type MEI"),
    ],
)  # fmt: skip
def test_what_no_warp_describes_is_refused_for_its_own_reason(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in fault(tmp_path, text)


@pytest.mark.parametrize(("text", "value"), [("1.5e2", 150), ("15E+1", 150), ("+150.", 150), ('"150"', 150), (".5", 0.5), ("5e-1", 0.5)])
def test_every_decimal_number_is_read(tmp_path: Path, text: str, value: float) -> None:
    assert read(tmp_path, ros(fx=text)).cameras[LEFT].fx_px == value
    assert "are distorted" in fault(tmp_path, ros(k1=text))


@pytest.mark.parametrize(
    "text", ["1_000", "0x10", "010", "1:30", "nan", ".nan", ".inf", "1e999", "true", "null", "[1]", "abc", "2020-01-01"]
)
def test_what_is_no_decimal_number_is_refused_wherever_it_stands(tmp_path: Path, text: str) -> None:
    assert "camera_matrix, number 1 of 9 is" in fault(tmp_path, ros(fx=text))
    assert "distortion_coefficients, number 1 of 5 is" in fault(tmp_path, ros(k1=text))
    assert "baseline_m is" in fault(tmp_path, ros() + f"stereo: {{baseline_m: {text if text != 'null' else 'x'}}}\n")


def test_zero_matrices_are_none_and_the_good_one_is_the_camera(tmp_path: Path) -> None:
    assert read(tmp_path, ros()).cameras[LEFT].fx_px == 150
    projection = "[140, 0, 99.5, 0, 0, 141, 59.5, 0, 0, 0, 1, 0]"
    zero = ros(projection=projection).replace("[150.0, 0, 99.5, 0, 150.0, 59.5, 0, 0, 1]", str([0] * 9))
    assert read(tmp_path, zero).cameras[LEFT].fx_px == 140
    assert "must be above 0" in fault(tmp_path, zero.replace(projection, ZERO))


def test_matrices_of_another_form_are_refused(tmp_path: Path) -> None:
    assert "projection_matrix holds 11 numbers, not 12" in fault(tmp_path, ros(projection=str([1] * 11)))
    assert "not the 3 x 3" in fault(tmp_path, ros(fx="1,5"))
    transposed = ros().replace("[150.0, 0, 99.5, 0, 150.0, 59.5, 0, 0, 1]", "[150.0, 0, 0, 0, 150.0, 0, 99.5, 59.5, 1]")
    assert "is no pinhole camera's" in fault(tmp_path, transposed)
    assert "image_width is 200.5" in fault(tmp_path, ros().replace("200", "200.5"))
    assert "'image_width' stands there twice" in fault(tmp_path, ros() + "image_width: 300\n")


def test_two_matrices_that_differ_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    projection = "[140, 0, 99.5, 0, 0, 141, 59.5, 0, 0, 0, 1, 0]"
    assert read(tmp_path, ros(projection=projection)).cameras[LEFT].fx_px == 140
    assert "projection_matrix (fx 140, cx 99.5) and camera_matrix (fx 150, cx 99.5) differ" in caplog.text
    caplog.clear()
    read(tmp_path, ros(projection=projection) + "rectified: true\n")
    assert not caplog.text


@pytest.mark.parametrize(
    "text",
    [
        BILLION_LAUGHS,
        "cameras: " + "[" * 900,
        "cameras: " + "[" * 900 + "]" * 900,
        "image_width: " + "9" * 6000 + "\nimage_height: 3\ncamera_matrix: [1, 0, 1, 0, 1, 1, 0, 0, 1]\n",
        "cameras: 2020-13-99\n",
        'cameras: !!int ""\n',
        "a: &a [*a]\nimage_width: 3\nimage_height: 3\ncamera_matrix: *a\n",
        "x: " + "y" * 2**21,
    ],
)  # fmt: skip
def test_files_made_to_break_readers_end_in_one_short_line(tmp_path: Path, text: str) -> None:
    assert len(fault(tmp_path, text)) < 700
