"""``calibration.yaml``: the cameras of a sequence, written by the converter, by hand or by another tool.

Pixels here are those of the images as they lie on disk, the centres of pixels at whole numbers, as ROS, OpenCV and the warp count them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.frames.camera_formats import FORMS, LEFT, RIGHT, in_our_form, in_our_names
from dataload.frames.numbers import read_number, read_numbers, shown
from dataload.system.console import console
from dataload.system.files import whole_file
from splits.errors import InputError
from splits.faults import parsing

FILE_NAME = "calibration.yaml"
NO_DISTORTION = (0.0,) * 5
# Models by which even coefficients of 0 bend lines.
FISHEYE = ("equidistant", "fisheye", "kannala_brandt", "kannalabrandt8")
# A projection matrix and a camera matrix further apart are two cameras'; a skew (of fx) that moves a pixel less is a rounding.
MAX_APART_PX, MAX_SKEW = 0.5, 1e-3
MAX_BASELINES_APART = 0.01
# A telescope's focal length is a millionth of it; far larger numbers overflow where they are multiplied.
MOST_PX = 1e12
RECTIFY = "rectify them (md-data from-bag does) or say 'rectified: true' where they are, with their projection_matrix"


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A pinhole camera without distortion: focal lengths and principal point in pixels of an image of that size."""

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        for name in ("fx_px", "fy_px", "width_px", "height_px"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"intrinsics: {name}={value:g} must be above 0; an uncalibrated camera cannot be trained with")
        if not (math.isfinite(self.cx_px) and math.isfinite(self.cy_px)):
            raise InputError(f"intrinsics: the principal point ({self.cx_px:g}, {self.cy_px:g}) must be finite")
        most = max(self.fx_px, self.fy_px, self.width_px, self.height_px, abs(self.cx_px), abs(self.cy_px))
        if most > MOST_PX:
            raise InputError(f"intrinsics: {most:g} pixels are more than any camera has; give them in pixels of the images")

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the images that they are for."""
        return self.height_px, self.width_px

    def at_size(self, height_px: int, width_px: int) -> Intrinsics:
        """The intrinsics of the image resized to that size.

        Resizing keeps borders on borders, so a point x goes to (x + 1/2) width_px / self.width_px - 1/2, pixel centres being whole numbers.
        """
        sx, sy = width_px / self.width_px, height_px / self.height_px
        cx, cy = (self.cx_px + 0.5) * sx - 0.5, (self.cy_px + 0.5) * sy - 0.5
        return Intrinsics(fx_px=self.fx_px * sx, fy_px=self.fy_px * sy, cx_px=cx, cy_px=cy, width_px=width_px, height_px=height_px)

    def K(self, height_px: int, width_px: int) -> NDArray[np.float32]:
        """(3, 3) float32 in pixels of the image resized to that size."""
        c = self.at_size(height_px, width_px)
        return np.array([[c.fx_px, 0, c.cx_px], [0, c.fy_px, c.cy_px], [0, 0, 1]], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is known of a sequence's images and depth.

    Attributes:
        cameras: by ``LEFT`` and ``RIGHT``; of images that are rectified.
        baseline_m: distance of the two cameras, metres; None without a second one.
        depth_scale: metres = value in the depth PNG / this; None where unknown.
        depth_kind: ``dense`` (a depth camera) or ``sparse`` (a laser scanner); empty where unknown.
        depth_topic: where the depth came from; empty where unknown.
        frame_ids: the cameras' names in the robot's tree of frames.
        source: bag, image_topic, camera_info_topic, hz: where the images came from.
    """

    cameras: Mapping[str, Intrinsics]
    baseline_m: float | None = None
    depth_scale: float | None = None
    depth_kind: str = ""
    depth_topic: str = ""
    frame_ids: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


def write_calibration(path: Path, calibration: Calibration) -> Path:
    """Write a ``calibration.yaml``, whole or not at all; numbers keep their last bit."""
    import yaml

    content: dict[str, Any] = {"cameras": {name: _camera_fields(calibration, name, camera) for name, camera in calibration.cameras.items()}}
    if calibration.baseline_m is not None:
        content["stereo"] = {"baseline_m": float(calibration.baseline_m)}
    if calibration.depth_scale is not None:
        depth = {"scale": float(calibration.depth_scale), "kind": calibration.depth_kind, "source_topic": calibration.depth_topic}
        content["depth"] = depth
    if calibration.source:
        content["source"] = dict(calibration.source)
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=140), encoding="utf-8")
    return path


def read_calibration(path: Path, image_size_px: Callable[[], tuple[int, int]] | None = None) -> Calibration:
    """What a ``calibration.yaml`` says, in our form or in that of another tool (``camera_formats``).

    Args:
        image_size_px: tells (height, width) of the images where the file's tool counts in their pixels without giving their size.

    Raises:
        InputError: no such file, no YAML, something else than a number where one should be, a camera without intrinsics or size, or
            images that are not rectified.
    """
    from dataload.frames.yaml_file import REMEDY, read_yaml

    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no calibration; {REMEDY}")
    try:
        with parsing(path, "a calibration", REMEDY):
            return _calibration(in_our_form(content), image_size_px)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(path)) else f"{path}: {said}") from error


def _calibration(content: Mapping[str, Any], image_size_px: Callable[[], tuple[int, int]] | None) -> Calibration:
    """The calibration of a file's content in our form; errors name the field."""
    cameras = content.get("cameras", {})
    if not isinstance(cameras, dict) or LEFT not in cameras:
        raise InputError(f"it names no camera {LEFT}; its intrinsics stand under cameras: {{{LEFT}: ...}}; read are {FORMS}")
    stereo, depth = _section(content, "stereo"), _section(content, "depth")
    fields = {str(name): in_our_names(camera, name) for name, camera in cameras.items() if _has_fields(camera, name)}
    return Calibration(
        cameras={name: _intrinsics(name, camera, image_size_px) for name, camera in fields.items()},
        baseline_m=_baseline_m(stereo.get("baseline_m"), fields.get(RIGHT, {})),
        depth_scale=_above_0("depth: scale", depth.get("scale")),
        depth_kind=str(depth.get("kind", "")),
        depth_topic=str(depth.get("source_topic", "")),
        frame_ids={name: str(camera.get("frame_id", "")) for name, camera in fields.items()},
        source=_section(content, "source"),
    )


def _camera_fields(calibration: Calibration, name: str, camera: Intrinsics) -> dict[str, Any]:
    """A camera as ROS writes it: the images are rectified, so its matrix is its projection and nothing is distorted."""
    fx, fy, cx, cy = (float(value) for value in (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px))
    shift = -fx * calibration.baseline_m if name == RIGHT and calibration.baseline_m is not None else 0.0
    return {
        "image_width": int(camera.width_px),
        "image_height": int(camera.height_px),
        "camera_matrix": _matrix(3, 3, [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]),
        "distortion_model": "plumb_bob",
        "distortion_coefficients": _matrix(1, len(NO_DISTORTION), list(NO_DISTORTION)),
        "rectification_matrix": _matrix(3, 3, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        "projection_matrix": _matrix(3, 4, [fx, 0.0, cx, float(shift), 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        "rectified": True,
        "frame_id": calibration.frame_ids.get(name, ""),
    }


def _matrix(rows: int, cols: int, data: list[float]) -> dict[str, Any]:
    return {"rows": rows, "cols": cols, "data": data}


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise InputError(f"{name} must hold fields, not {shown(section)}")
    return section


def _has_fields(camera: object, name: str) -> bool:
    if not isinstance(camera, dict):
        raise InputError(f"camera {name} holds no fields")
    return True


def _above_0(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = read_number(value, name)
    if number <= 0:
        raise InputError(f"{name} is {number:g}, not a number above 0")
    return number


def _baseline_m(said: object, right: Mapping[str, Any]) -> float | None:
    """As the file says it, else from the right camera's projection matrix, whose fourth number is -fx times it."""
    baseline_m = _above_0("stereo: baseline_m", said)
    if right.get("projection_matrix") is None:
        return baseline_m
    fx, _, _, shift, *_ = read_numbers(right["projection_matrix"], f"camera {RIGHT}: projection_matrix", (12,))
    projected_m = -shift / fx if fx else 0.0
    if projected_m > 0 and baseline_m is not None and abs(projected_m / baseline_m - 1) > MAX_BASELINES_APART:
        raise InputError(
            f"stereo: baseline_m is {baseline_m:g}, and the projection_matrix of {RIGHT} says {projected_m:g}; correct one of them"
        )
    return projected_m if baseline_m is None and projected_m > 0 else baseline_m


def _intrinsics(name: str, camera: Mapping[str, Any], image_size_px: Callable[[], tuple[int, int]] | None) -> Intrinsics:
    rectified = _is_rectified(name, camera)
    fx, fy, cx, cy = _pinhole(name, camera, rectified=rectified)
    if camera.get("size_of_images") and image_size_px is not None:
        height, width = image_size_px()
    else:
        height, width = (_side_px(name, camera, side) for side in ("height", "width"))
    try:
        return Intrinsics(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, width_px=width, height_px=height)
    except InputError as error:
        raise InputError(f"camera {name}: {error}") from error


def _side_px(name: str, camera: Mapping[str, Any], side: str) -> int:
    pixels = _above_0(f"{name}: image_{side}", camera.get(f"image_{side}"))
    if pixels is None:
        raise InputError(f"camera {name} lacks image_width or image_height, the size that its intrinsics are in pixels of")
    if not pixels.is_integer():
        raise InputError(f"{name}: image_{side} is {pixels:g}, not a whole number of pixels")
    return int(pixels)


def _is_rectified(name: str, camera: Mapping[str, Any]) -> bool:
    """Whether the file itself says that the images are rectified; ``InputError`` where they are not."""
    said, value = camera.get("rectified"), camera.get("distortion_coefficients")
    if said is not None and not isinstance(said, bool):
        raise InputError(f"camera {name}: rectified is {shown(said)}, neither true nor false")
    distorted = value is not None and any(read_numbers(value, f"camera {name}: distortion_coefficients"))
    model = str(camera.get("distortion_model", "")).lower()
    if said is None and model in FISHEYE:
        raise InputError(f"camera {name} is a fisheye's ({model}), and a warp needs a pinhole camera's images; {RECTIFY}")
    if said is False and not distorted:
        raise InputError(f"the images of camera {name} are not rectified, as its 'rectified: false' says; {RECTIFY}")
    if distorted and not said:
        raise InputError(f"the images of camera {name} are distorted, and a warp needs them rectified; {RECTIFY}")
    return bool(said)


def _pinhole(name: str, camera: Mapping[str, Any], *, rectified: bool) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the images: of their projection matrix where it is one, else of their camera matrix.

    A matrix of zeros is what drivers write for none.
    """
    projection, matrix = _matrix_of(name, camera, "projection_matrix", 12), _matrix_of(name, camera, "camera_matrix", 9)
    found = projection or matrix
    if found is None:
        if camera.get("projection_matrix") is None and camera.get("camera_matrix") is None:
            raise InputError(f"camera {name} has neither a projection_matrix of 12 numbers nor a camera_matrix of 9")
        found = (0.0, 0.0, 0.0, 0.0)
    if projection and matrix and not rectified and max(abs(p - k) for p, k in zip(projection, matrix, strict=True)) > MAX_APART_PX:
        console.warning(
            "camera %s: projection_matrix (fx %g, cx %g) and camera_matrix (fx %g, cx %g) differ; the images are taken for rectified ones, "
            "whose camera is the projection_matrix; remove it where they are not",
            name, projection[0], projection[2], matrix[0], matrix[2],
        )  # fmt: skip
    return found


def _matrix_of(name: str, camera: Mapping[str, Any], field_name: str, count: int) -> tuple[float, float, float, float] | None:
    """fx, fy, cx, cy of a matrix of ``count`` numbers, row by row; None where it is not there or all zero."""
    if camera.get(field_name) is None:
        return None
    values = np.reshape(read_numbers(camera[field_name], f"camera {name}: {field_name}", (count,)), (3, -1))
    if not values.any():
        return None
    (fx, skew, cx), (below, fy, cy), last = values[:, :3].tolist()
    if below or last != [0, 0, 1] or abs(skew) > MAX_SKEW * abs(fx):
        raise InputError(f"camera {name}: {field_name} is no pinhole camera's, row by row fx 0 cx, 0 fy cy, 0 0 1")
    return fx, fy, cx, cy
