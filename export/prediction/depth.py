"""The depth of one image, and what is made of it: metres, colours, points. What md-predict writes and ``DepthModel`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dataload.frames.picture import read_picture
from dataload.option import check_choice
from engine.choices import COLORMAPS
from engine.pictures import colour_disp
from engine.resample import resize
from export.choices import check_intrinsics
from splits.errors import InputError


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Every pixel of an image as a coloured point, row after row.

    Attributes:
        points: (N, 3) float32, x right, y down, z ahead of the camera, N = H * W.
        colours: (N, 3) uint8, RGB.
        in_metres: whether ``points`` are in metres, else in the network's own unit.
    """

    points: NDArray[np.float32]
    colours: NDArray[np.uint8]
    in_metres: bool


@dataclass(frozen=True, eq=False)
class Depth:
    """The depth that a network sees in one image.

    Attributes:
        inv_depth: (h, w) float32 at the network's size, 1 over the network's unit.
        size_px: (height, width) of the upright image, (H, W).
        unit_m: metres in the network's unit; None where unknown, as for a model trained without stereo.
        source: the file that was predicted, or a copy of the pixels (H, W, 3) uint8.
    """

    inv_depth: NDArray[np.float32]
    size_px: tuple[int, int]
    unit_m: float | None
    source: Path | NDArray[np.uint8]

    @property
    def depth(self) -> NDArray[np.float32]:
        """Depth (h, w) float32 at the network's size, along the optical axis, in the network's unit."""
        return 1.0 / self.inv_depth

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """Depth (h, w) float32 at the network's size, along the optical axis, in metres.

        Raises:
            InputError: the model does not know metres (``unit_m`` is None).
        """
        if self.unit_m is None:
            raise InputError(
                "depth_m needs a model that knows metres: this one learned from a single moving camera, which does not show how large the "
                "world is; use a stereo or mono+stereo model, or depth, which is in the network's own unit"
            )
        return self.unit_m / self.inv_depth

    @property
    def full_size_depth(self) -> NDArray[np.float32]:
        """Depth (H, W) float32 at the image's size: metres where they are known, else the network's unit.

        Inverse depth is what is resized, bilinearly, as evaluation does.
        """
        return (self.unit_m or 1.0) / self._full_size

    @property
    def image(self) -> NDArray[np.uint8]:
        """The upright image (H, W, 3) uint8, RGB; of a file, read again.

        Raises:
            InputError: the file can no longer be read.
        """
        return read_picture(self.source) if isinstance(self.source, Path) else self.source

    def colorize(self, colormap: str = COLORMAPS[0]) -> Image.Image:
        """Inverse depth in colours at the image's size, near is bright: from its least value to its 95th percentile.

        Args:
            colormap: magma, inferno, plasma, viridis, cividis, turbo or gray.

        Raises:
            InputError: no such colormap.
        """
        check_choice("colormap", colormap, COLORMAPS)
        return Image.fromarray(colour_disp(self._full_size, colormap))

    def point_cloud(self, K: Sequence[float] | ArrayLike) -> PointCloud:
        """Every pixel of the image as a point: K^-1 (u, v, 1) z, with pixel centres at whole numbers.

        Args:
            K: the camera, in pixels of the upright image: (fx, fy, cx, cy) or the matrix (3, 3).

        Raises:
            InputError: ``K`` is neither, has a skew or a number that makes no camera; or the image can no longer be read.
        """
        points = backproject(self.full_size_depth, intrinsics_of(K))
        image = self.image
        if image.shape[:2] != self.size_px:
            raise InputError(f"{self.source} has another size than when it was predicted; predict it again")
        return PointCloud(points.reshape(-1, 3), image.reshape(-1, 3), self.unit_m is not None)

    @property
    def _full_size(self) -> NDArray[np.float32]:
        """``inv_depth`` (H, W) at the image's size."""
        return resize(self.inv_depth, self.size_px)


def intrinsics_of(K: Sequence[float] | ArrayLike) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of four numbers or a matrix (3, 3); ``InputError`` where they are no camera without skew."""
    if hasattr(K, "detach"):  # a tensor, on any device
        K = K.detach().cpu()
    try:
        values = np.asarray(K, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"K holds something else than numbers ({error}); give (fx, fy, cx, cy) or a matrix (3, 3)") from error
    if values.shape == (3, 3):
        if np.any(values[[0, 1, 2, 2], [1, 0, 0, 1]]) or values[2, 2] != 1:
            raise InputError("K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; other matrices are no camera without skew")
        values = values[[0, 1, 0, 1], [0, 1, 2, 2]]
    if values.shape != (4,):
        raise InputError(f"K has the shape {values.shape}; give (fx, fy, cx, cy) or a matrix (3, 3), in pixels of the image")
    # Numbers of Python, which leave float32 arrays float32.
    fx, fy, cx, cy = values.tolist()
    check_intrinsics("K", (fx, fy, cx, cy))
    return fx, fy, cx, cy


def backproject(depth: NDArray[np.float32], intrinsics: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Points (H,W,3) of depth (H,W): K^-1 (u, v, 1) z, pixel centres at whole numbers; x right, y down, z ahead."""
    fx, fy, cx, cy = intrinsics
    v, u = np.indices(depth.shape, dtype=np.float32)
    return np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)
