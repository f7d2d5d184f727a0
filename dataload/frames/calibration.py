"""``calibration.yaml``: the cameras of a sequence, written by the converter or by hand, in the field names of ROS.

Pixels here are those of the images as they lie on disk, the centres of pixels at whole numbers, as ROS, OpenCV and the warp count them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.system.files import whole_file
from splits.errors import InputError

FILE_NAME = "calibration.yaml"
LEFT, RIGHT = "front_left", "front_right"
NO_DISTORTION = (0.0,) * 5


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


def read_calibration(path: Path) -> Calibration:
    """What a ``calibration.yaml`` says; a file of ROS for one camera, without ``cameras``, is taken for the left one's.

    Raises:
        InputError: no such file, no YAML, a camera without intrinsics or size, or images that are not rectified.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path} is no YAML file ({said}); write it as md-data from-bag does, or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no calibration; write it as md-data from-bag does, or remove it")
    cameras = content.get("cameras", {LEFT: content} if "image_width" in content else {})
    if not isinstance(cameras, dict) or LEFT not in cameras:
        raise InputError(f"{path} names no camera {LEFT}; its intrinsics stand under cameras: {{{LEFT}: ...}}")
    stereo, depth = _section(path, content, "stereo"), _section(path, content, "depth")
    return Calibration(
        cameras={name: _intrinsics(path, name, camera) for name, camera in cameras.items()},
        baseline_m=_positive(path, "stereo: baseline_m", stereo.get("baseline_m")),
        depth_scale=_positive(path, "depth: scale", depth.get("scale")),
        depth_kind=str(depth.get("kind", "")),
        depth_topic=str(depth.get("source_topic", "")),
        frame_ids={name: str(camera.get("frame_id", "")) for name, camera in cameras.items()},
        source=_section(path, content, "source"),
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


def _section(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: {name} must hold fields, not {section!r}")
    return section


def _positive(path: Path, name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{path}: {name} is {value!r}, not a number above 0")
    return float(value)


def _intrinsics(path: Path, name: str, camera: object) -> Intrinsics:
    if not isinstance(camera, dict):
        raise InputError(f"{path}: camera {name} holds no fields")
    distorted = any(_numbers(camera, "distortion_coefficients"))
    rectified = bool(camera.get("rectified", not distorted))
    if not rectified:
        raise InputError(
            f"{path}: the images of camera {name} are distorted, and a warp needs them rectified; rectify them (md-data from-bag does) "
            "or say 'rectified: true' where they are, with their projection_matrix"
        )
    projection, matrix = _numbers(camera, "projection_matrix"), _numbers(camera, "camera_matrix")
    # Row by row: fx 0 cx [tx], 0 fy cy.
    found = (projection[0], projection[5], projection[2], projection[6]) if len(projection) == 12 else None
    if found is None and len(matrix) == 9:
        found = (matrix[0], matrix[4], matrix[2], matrix[5])
    if found is None:
        raise InputError(f"{path}: camera {name} has neither a projection_matrix of 12 numbers nor a camera_matrix of 9")
    width, height = (_positive(path, f"{name}: image_{side}", camera.get(f"image_{side}")) for side in ("width", "height"))
    if width is None or height is None:
        raise InputError(f"{path}: camera {name} lacks image_width or image_height, the size that its intrinsics are in pixels of")
    fx, fy, cx, cy = found
    try:
        return Intrinsics(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, width_px=int(width), height_px=int(height))
    except InputError as error:
        raise InputError(f"{path}: camera {name}: {error}") from error


def _numbers(camera: Mapping[str, Any], name: str) -> list[float]:
    """The numbers of a matrix, given as ROS does (``{rows, cols, data}``) or as a plain list; none where there is none."""
    value = camera.get(name)
    data = value.get("data") if isinstance(value, dict) else value
    if not isinstance(data, list):
        return []
    return [float(number) for number in data if isinstance(number, int | float)]
