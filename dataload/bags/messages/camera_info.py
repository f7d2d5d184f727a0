"""Cameras from sensor_msgs/CameraInfo: of the images as recorded, and of the rectified images that are written.

Pixels are counted with their centres at whole numbers, as ROS and OpenCV do: scaled by s, a point x goes to (x + 1/2) s - 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.bags.formats.container import named
from dataload.frames.calibration import Intrinsics
from dataload.system.figures import figure
from splits.errors import InputError
from splits.faults import parsing

FISHEYE = ("equidistant", "fisheye", "kannala_brandt")
PINHOLE = ("plumb_bob", "rational_polynomial", "radtan", "")
MAX_STRETCH = 0.05  # an image whose sides are scaled by factors further apart was cropped, not resized
MOST_COEFFICIENTS = 14  # OpenCV's longest model
REMEDY = "calibrate the camera, or give its intrinsics with --intrinsics FX FY CX CY"


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera in pixels of its images.

    Attributes:
        K: (3, 3) of the image as it lies in the recording.
        distortion: coefficients of ``model``; empty where the image already is a pinhole camera's, turned like its pair.
        R: (3, 3) camera to rectified camera.
        P: (3, 4) of the rectified image, which has the same size.
        size_px: (height, width).
        frame_id: the camera's name in the tree of frames.
    """

    K: NDArray[np.float64]
    distortion: NDArray[np.float64]
    model: str
    R: NDArray[np.float64]
    P: NDArray[np.float64]
    size_px: tuple[int, int]
    frame_id: str

    @property
    def rectifies(self) -> bool:
        """Whether the image has to be rectified."""
        return self.distortion.size > 0

    @property
    def intrinsics(self) -> Intrinsics:
        """Intrinsics of the rectified image."""
        height, width = self.size_px
        fx, fy, cx, cy = (float(self.P[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        return Intrinsics(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, width_px=width, height_px=height)


def from_message(message: Any, *, topic: str, image_topic: str, size_px: tuple[int, int], frame_id: str) -> Camera:
    """The camera of a CameraInfo of ROS 1 or ROS 2 for images of ``size_px``, as they lie in the recording.

    Args:
        topic: the message's, for errors.
        image_topic: ``image_rect*`` says that the images are rectified already, and P is theirs.
        frame_id: the image's, where it has one.

    Raises:
        InputError: the camera is not calibrated, its distortion is of an unknown kind, or the image is not a resized one of this camera.
    """
    with parsing(topic, "a camera that images can be rectified by", REMEDY), np.errstate(over="raise", divide="raise", invalid="raise"):
        camera = _camera_of(message, topic, image_topic, size_px, frame_id)
        np.linalg.inv(camera.P[:, :3])
        np.linalg.inv(camera.K)
        return camera


def _camera_of(message: Any, topic: str, image_topic: str, size_px: tuple[int, int], frame_id: str) -> Camera:
    """As ``from_message``; raises what the numbers bring about, too."""
    old = hasattr(message, "K")  # ROS 1 writes D, K, R, P; ROS 2 d, k, r, p
    K, D, R, P = (np.array(getattr(message, name if old else name.lower()), np.float64) for name in "KDRP")
    _require_numbers(topic, D=D, K=K, R=R, P=P)
    K, R, P = K.reshape(3, 3), R.reshape(3, 3), P.reshape(3, 4)
    rectified = is_rectified(image_topic)
    if not _is_good(K):
        # Of images without distortion P alone is enough.
        _require_good(P, topic, bool(D.any()) and not rectified)
        K, rectified = P[:, :3], True
    R = R if R.any() else np.eye(3)
    P = P if _is_good(P) else np.column_stack([K, np.zeros(3)])
    to_image = _to_image(message, topic, size_px)
    rectified = rectified or (not D.any() and np.allclose(R, np.eye(3), atol=1e-6))
    model = str(message.distortion_model)
    if not rectified and model not in (*PINHOLE, *FISHEYE):
        raise InputError(f"{topic}: distortion model {named(model)!r} is unknown; record the rectified image (image_rect_color) instead")
    return Camera(
        K=to_image @ (P[:, :3] if rectified else K),
        distortion=np.zeros(0) if rectified else D,
        model=model,
        R=np.eye(3) if rectified else R,
        P=to_image @ P,
        size_px=size_px,
        frame_id=frame_id or str(message.header.frame_id),
    )


def _is_good(matrix: NDArray[np.float64]) -> bool:
    """Whether K or P is a camera's, not zeros that stand for a camera that is not calibrated."""
    return bool(np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0)


def _require_good(P: NDArray[np.float64], topic: str, distorted: bool) -> None:
    """``InputError`` where P cannot stand for a K that is zero."""
    if not _is_good(P):
        raise InputError(f"{topic} says that its camera is not calibrated (K is zero, and so is P); {REMEDY}")
    if distorted:
        raise InputError(
            f"{topic} has lens distortion but no camera matrix (K is zero), so its images cannot be rectified; {REMEDY} of rectified ones"
        )


def _require_numbers(topic: str, **matrices: NDArray[np.float64]) -> None:
    """``InputError`` where a field of a CameraInfo is not made of finite numbers, or not of as many as its matrix has."""
    counts = {"K": 9, "R": 9, "P": 12}
    for name, values in matrices.items():
        if name == "D" and values.size > MOST_COEFFICIENTS:
            raise InputError(
                f"{topic}: its lens distortion has {values.size} coefficients, at most {MOST_COEFFICIENTS} are known; {REMEDY}"
            )
        if not np.isfinite(values).all() or (name in counts and values.size != counts[name]):
            raise InputError(f"{topic}: its camera is not calibrated, as {name} is no matrix of numbers; {REMEDY}")


def from_numbers(numbers: tuple[float, float, float, float], *, size_px: tuple[int, int], frame_id: str) -> Camera:
    """The camera of ``--intrinsics FX FY CX CY``, in pixels of images of that size, which are taken to be rectified."""
    fx, fy, cx, cy = numbers
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    P = np.column_stack([K, np.zeros(3)])
    return Camera(K=K, distortion=np.zeros(0), model="", R=np.eye(3), P=P, size_px=size_px, frame_id=frame_id)


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its images are rectified."""
    return any(part.startswith(("image_rect", "rect")) for part in image_topic.split("/"))


def baseline_m(left: Camera, right: Camera, topic: str) -> float:
    """How far right of the left camera the right one stands: P[3] = -fx baseline.

    Raises:
        InputError: it is 0 or less.
    """
    baseline = float(left.P[0, 3] / left.P[0, 0] - right.P[0, 3] / right.P[0, 0])
    if baseline < 0:
        raise InputError(
            f"{topic} stands {figure(-baseline)} m LEFT of the left camera: left and right are swapped; name the topics the other way round"
        )
    if baseline == 0:
        raise InputError(f"{topic} does not give the distance between the cameras (P[3] is 0): the pair is not calibrated")
    return baseline


def _to_image(message: Any, topic: str, size_px: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) from pixels of the whole sensor, which CameraInfo counts in, to pixels of an image: region, binning, then any resizing."""
    roi = message.roi
    x0, y0 = (int(roi.x_offset), int(roi.y_offset)) if roi.width and roi.height else (0, 0)
    whole = (int(roi.height), int(roi.width)) if roi.width and roi.height else (int(message.height), int(message.width))
    height, width = size_px
    if not all(whole):
        # Some drivers leave the size out; then it is the image's.
        whole = size_px
    binning = (max(int(message.binning_y), 1), max(int(message.binning_x), 1))
    binned = tuple(side // by for side, by in zip(whole, binning, strict=True))
    # Of an odd side the last row is lost in binning, so that the ratio of the sizes is not the factor.
    sy, sx = (1 / binning[0], 1 / binning[1]) if size_px == binned else (height / whole[0], width / whole[1])
    if abs(sx / sy - 1) > MAX_STRETCH and size_px != binned:
        raise InputError(
            f"{topic} is of images of {whole[1]}x{whole[0]}, and those recorded are {width}x{height}: cropped, not resized; "
            "give --camera_info_topic, or their intrinsics with --intrinsics FX FY CX CY"
        )
    return np.array([[sx, 0, (0.5 - x0) * sx - 0.5], [0, sy, (0.5 - y0) * sy - 0.5], [0, 0, 1]])
