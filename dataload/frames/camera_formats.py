"""Camera files of other tools, put into the form of ``calibration.yaml``: OpenCV, ORB-SLAM, Kalibr, EuRoC, VINS.

Matrices stay as they are written where they can; ``calibration`` reads and checks all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dataload.frames.numbers import read_number, read_numbers, shown
from splits.errors import InputError

LEFT, RIGHT = "front_left", "front_right"
FORMS = "calibration.yaml of md-data, ROS, OpenCV, ORB-SLAM, Kalibr, EuRoC's sensor.yaml, VINS"
# Names of one field, in lower case and without underscores.
NAMES = {
    "image_width": ("imagewidth", "width"),
    "image_height": ("imageheight", "height"),
    "camera_matrix": ("cameramatrix", "intrinsicmatrix", "k", "mtx"),
    "distortion_coefficients": ("distortioncoefficients", "distortioncoeffs", "distcoeffs", "distcoeff", "distortion", "dist", "d"),
    "distortion_model": ("distortionmodel",),
    "projection_matrix": ("projectionmatrix", "p"),
    "rectified": ("rectified",),
}
FIELD_OF_NAME = {name: field for field, names in NAMES.items() for name in names}
PLAIN_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
# How far the cameras of a rectified pair may be turned against each other (elements of the rotation) and off the row (of the baseline).
MAX_TURN, MAX_OFF_ROW = 2e-3, 0.01


def in_our_form(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of a camera file of any known tool with ``cameras``, ``stereo`` and ``depth``; unchanged where no form is recognised.

    Raises:
        InputError: a known form whose numbers are none, or cameras that no warp describes.
    """
    for recognise, translate in READERS:
        if recognise(content):
            return translate(content)
    return content


def in_our_names(camera: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A camera's fields under the names of ROS, whatever tool named them; ``InputError`` where two say the same, or one is not known."""
    fields: dict[str, Any] = {}
    for key, value in camera.items():
        plain = str(key).lower().replace("_", "")
        field = FIELD_OF_NAME.get(plain, str(key))
        if field in fields:
            raise InputError(f"camera {name}: {key} and another field both give its {field}; leave one of them out")
        if plain.startswith("dist") and plain not in FIELD_OF_NAME:
            raise InputError(f"camera {name}: field {key} is not known; lens distortion stands in distortion_coefficients")
        fields[field] = value
    return fields | _from_plain_numbers(fields, name)


def _from_plain_numbers(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The matrix of fields ``fx, fy, cx, cy`` or ``resolution``, the coefficients of ``k1, k2, p1, p2``, where a camera has such."""
    found: dict[str, Any] = {}
    if "fx" in fields and "camera_matrix" not in fields:
        found["camera_matrix"] = _matrix([read_number(fields.get(key), f"camera {name}: {key}") for key in ("fx", "fy", "cx", "cy")])
    if any(key in fields for key in PLAIN_COEFFICIENTS) and "distortion_coefficients" not in fields:
        found["distortion_coefficients"] = [fields.get(key, 0.0) for key in PLAIN_COEFFICIENTS]
    if "resolution" in fields and "image_width" not in fields:
        size = read_numbers(fields["resolution"], f"camera {name}: resolution", (2,))
        found |= {"image_width": size[0], "image_height": size[1]}
    return found


def _is_opencv(content: Mapping[str, Any]) -> bool:
    fields = {FIELD_OF_NAME.get(str(key).lower().replace("_", ""), key) for key in content}
    return "cameras" not in content and bool(fields & {"camera_matrix", "projection_matrix", "image_width", "fx"})


def _read_opencv(content: Mapping[str, Any]) -> dict[str, Any]:
    """One camera, of ROS or OpenCV, in the file itself."""
    return {"cameras": {LEFT: content}, **{key: content[key] for key in ("stereo", "depth", "source") if key in content}}


def _read_kalibr(content: Mapping[str, Any]) -> dict[str, Any]:
    """Kalibr's camchain: ``cam0`` is the left camera, ``cam1`` the right one, ``T_cn_cnm1`` maps points of cam0 into it."""
    ours: dict[str, Any] = {"cameras": {LEFT: _kalibr_camera(content["cam0"], "cam0")}}
    second = content.get("cam1")
    if second is not None:
        ours["cameras"][RIGHT] = _kalibr_camera(second, "cam1")
        if second.get("T_cn_cnm1") is not None:
            T = read_numbers(second["T_cn_cnm1"], "cam1: T_cn_cnm1", (16,))
            ours["stereo"] = {"baseline_m": _baseline_m(np.reshape(T, (4, 4)), "cam1: T_cn_cnm1", sign=-1)}
    return ours


def _read_sensor(content: Mapping[str, Any]) -> dict[str, Any]:
    """One camera in the words of Kalibr, as ``sensor.yaml`` of the EuRoC data has it."""
    return {"cameras": {LEFT: _kalibr_camera(content, "the camera")}}


def _kalibr_camera(camera: object, name: str) -> dict[str, Any]:
    if not isinstance(camera, Mapping):
        raise InputError(f"{name} is {shown(camera)}, where a camera's fields should be")
    model = str(camera.get("camera_model", "pinhole")).lower()
    intrinsics = read_numbers(camera.get("intrinsics"), f"{name}: intrinsics")
    if model != "pinhole":
        raise InputError(f"{name} is of model {model}, which no warp describes; undistort its images to those of a pinhole camera")
    if len(intrinsics) != 4:
        raise InputError(f"{name}: intrinsics holds {len(intrinsics)} numbers, not the 4 of a pinhole camera: fx, fy, cx, cy")
    kept = {key: value for key, value in camera.items() if key in ("resolution", "distortion_model", "rectified")}
    coefficients = [key for key in camera if str(key).startswith("distortion_co")]
    return kept | {"camera_matrix": _matrix(intrinsics)} | {key: camera[key] for key in coefficients}


def _read_orb_slam(content: Mapping[str, Any]) -> dict[str, Any]:
    """ORB-SLAM2 and 3: ``Camera.fx`` or ``Camera1.fx`` and ``Camera2.fx``; without a size, in pixels of the images as they are."""
    kind = str(content.get("Camera.type", "PinHole"))
    if kind.lower() not in ("pinhole", "rectified"):
        raise InputError(f"Camera.type {kind} is a fisheye's or unknown; undistort its images to those of a pinhole camera")
    prefixes = {LEFT: "Camera" if "Camera.fx" in content else "Camera1"}
    if "Camera2.fx" in content:
        prefixes[RIGHT] = "Camera2"
    cameras = {side: _orb_slam_camera(content, prefix, {LEFT: "LEFT.D", RIGHT: "RIGHT.D"}[side]) for side, prefix in prefixes.items()}
    if kind.lower() == "rectified":
        cameras = {side: camera | {"rectified": True} for side, camera in cameras.items()}
    ours: dict[str, Any] = {"cameras": cameras}
    baseline_m = _orb_slam_baseline_m(content, prefixes[LEFT])
    if baseline_m is not None:
        ours["stereo"] = {"baseline_m": baseline_m}
    factor = content.get("DepthMapFactor", content.get("RGBD.DepthMapFactor"))
    if factor is not None:
        ours["depth"] = {"scale": read_number(factor, "DepthMapFactor")}
    return ours


def _orb_slam_camera(content: Mapping[str, Any], prefix: str, recorded: str) -> dict[str, Any]:
    """A camera of ORB-SLAM; ``recorded`` names the distortion of the images as they lie, which ORB-SLAM2 rectifies itself."""
    values = [read_number(content.get(f"{prefix}.{name}"), f"{prefix}.{name}") for name in ("fx", "fy", "cx", "cy")]
    names = [f"{prefix}.{name}" for name in PLAIN_COEFFICIENTS]
    coefficients = [read_number(content[name], name) for name in names if name in content]
    if recorded in content:
        coefficients += read_numbers(content[recorded], recorded)
    size = {f"image_{side}": content[f"Camera.{side}"] for side in ("width", "height") if f"Camera.{side}" in content}
    own_size = {} if size else {"size_of_images": True}
    rectified = {"rectified": content["rectified"]} if "rectified" in content else {}
    return {"camera_matrix": _matrix(values), "distortion_coefficients": coefficients, **size, **own_size, **rectified}


def _orb_slam_baseline_m(content: Mapping[str, Any], prefix: str) -> float | None:
    """From ``Stereo.b``, from ``Camera.bf`` (baseline times fx) or from ``Stereo.T_c1_c2``; None of one camera."""
    if "Stereo.b" in content:
        return read_number(content["Stereo.b"], "Stereo.b")
    if "Stereo.T_c1_c2" in content:
        T = read_numbers(content["Stereo.T_c1_c2"], "Stereo.T_c1_c2", (16,))
        return _baseline_m(np.reshape(T, (4, 4)), "Stereo.T_c1_c2", sign=1)
    if "Camera.bf" in content:
        fx_px = read_number(content[f"{prefix}.fx"], f"{prefix}.fx")
        return read_number(content["Camera.bf"], "Camera.bf") / fx_px if fx_px else None
    return None


def _read_vins(content: Mapping[str, Any]) -> dict[str, Any]:
    """Camera files of VINS (camodocal): ``model_type``, ``projection_parameters``, ``distortion_parameters``."""
    model = str(content.get("model_type", "PINHOLE"))
    if model.upper() != "PINHOLE":
        raise InputError(f"model_type {model} is none that a warp describes; undistort its images to those of a pinhole camera")
    kept = {key: content[key] for key in ("image_width", "image_height", "rectified") if key in content}
    for part in ("projection_parameters", "distortion_parameters"):
        fields = content.get(part) or {}
        if not isinstance(fields, Mapping):
            raise InputError(f"{part} is {shown(fields)}, where fields should be")
        kept |= fields
    return {"cameras": {LEFT: kept}}


def _baseline_m(T: np.ndarray, name: str, *, sign: int) -> float:
    """How far right the right camera stands, of a transform (4,4) between the two; ``InputError`` where the pair is not rectified."""
    x, y, z = T[:3, 3]
    if np.abs(T[:3, :3] - np.eye(3)).max() > MAX_TURN or max(abs(y), abs(z)) > MAX_OFF_ROW * abs(x):
        raise InputError(
            f"{name}: the two cameras are turned against each other or stand off one row, so their images are no rectified pair; "
            "rectify them and give the rectified cameras, or leave the second camera out where its images are not used"
        )
    if sign * x <= 0:
        raise InputError(f"{name}: the second camera stands {abs(x):g} m left of the first; swap left and right")
    return float(sign * x)


def _matrix(values: list[float]) -> list[float]:
    """fx, fy, cx, cy as a camera matrix, row by row."""
    fx, fy, cx, cy = values
    return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]


READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], dict[str, Any]]], ...] = (
    (lambda content: "cam0" in content, _read_kalibr),
    (lambda content: "Camera.fx" in content or "Camera1.fx" in content, _read_orb_slam),
    (lambda content: "projection_parameters" in content, _read_vins),
    (lambda content: "intrinsics" in content and "cameras" not in content, _read_sensor),
    (_is_opencv, _read_opencv),
)
