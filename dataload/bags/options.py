"""The options of a conversion."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from splits.errors import InputError

MAX_HZ = 1000


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Topics (empty: found by type and name), what the recordings do not say themselves, and what is written.

    Attributes:
        intrinsics: fx, fy, cx, cy of the left image in pixels of it as it lies in the recording; it is then taken to be rectified.
        points_extrinsics: T_camera_points, 12 or 16 numbers row by row.
        depth_extrinsics: T_camera_depth, likewise.
        hz: frames per second; 0 keeps all.
        png: what is not a JPEG already is written as PNG, without loss.
    """

    image_topic: str = ""
    camera_info_topic: str = ""
    right_image_topic: str = ""
    right_camera_info_topic: str = ""
    depth_topic: str = ""
    points_topic: str = ""
    intrinsics: tuple[float, float, float, float] | None = None
    points_extrinsics: tuple[float, ...] | None = None
    depth_extrinsics: tuple[float, ...] | None = None
    hz: float = 10.0
    png: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.hz <= MAX_HZ:
            raise InputError(f"hz={self.hz:g} must be from 0, which keeps every frame, to {MAX_HZ}")
        if self.intrinsics is not None and not (min(self.intrinsics[:2]) > 0 and all(map(math.isfinite, self.intrinsics))):
            raise InputError("intrinsics: FX FY CX CY are in pixels, the focal lengths FX and FY above 0")
        if self.depth_topic and self.points_topic:
            raise InputError("depth_topic and points_topic both give the depth of the left image; name one")
        for name in ("points_extrinsics", "depth_extrinsics"):
            numbers = getattr(self, name)
            if numbers is not None:
                _require_transform(name, numbers)

    def settings(self) -> dict[str, Any]:
        """The options that differ from their defaults: two runs with equal settings write the same."""
        default = {f.name: f.default for f in fields(self)}
        given = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _require_transform(name: str, numbers: tuple[float, ...]) -> None:
    """``InputError`` unless the numbers are a rotation and a translation, row by row."""
    if len(numbers) not in (12, 16):
        raise InputError(f"{name} has {len(numbers)} numbers, not the 12 or 16 of a matrix of 3x4 or 4x4, row by row")
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{name} must be finite numbers")
    rows = [numbers[i : i + 3] for i in (0, 4, 8)]
    products = [sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) for i in range(3) for j in range(3)]
    if any(abs(product - (i % 4 == 0)) > 1e-2 for i, product in enumerate(products)):
        raise InputError(f"{name}: its left three columns are no rotation (rows of length 1, at right angles to one another)")
