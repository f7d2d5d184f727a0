"""The streams of a recording that are written: each is a topic and the rule that turns its messages into files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.bags.formats.container import Damage, named
from dataload.bags.formats.reading import Bag, Contents, Track
from dataload.bags.messages import camera_info, depth, images, points
from dataload.bags.messages.camera_info import Camera
from dataload.bags.messages.images import BadFrame, decoding
from dataload.bags.messages.rectify import ROWS_AT_ONCE, Lookup, lookup, rectify
from dataload.bags.messages.transforms import Tree, between
from dataload.bags.options import ConvertOptions
from dataload.bags.topics import Roles, with_counts
from dataload.bags.value_range import ValueRange
from splits.errors import InputError
from splits.faults import parsing

POINTS_AT_ONCE = 2**20  # their arithmetic takes a hundred bytes each
TRIES = 20  # this many messages at the start of a topic may be unreadable

Write = Callable[[Any], tuple[bytes, str]]  # a message to a file's content and its ending; BadFrame where there is none in it


class Stream(NamedTuple):
    """A topic and what is written of its messages, with remarks for the user."""

    track: Track
    write: Write
    notes: tuple[str, ...] = ()


def first_message(bag: Bag, track: Track, usable: Callable[[Any], object] = bool) -> Any:
    """The first message that can be read and at which ``usable`` does not raise ``BadFrame``.

    Raises:
        InputError: there is none among the first few.
    """
    why = ""
    for index in range(min(TRIES, len(track.places))):
        message, fault = _try(bag, track, index, usable)
        if not fault:
            return message
        why = why or fault
    raise InputError(f"{track.topic.name}: none of its first messages can be read (the first: {why})")


def _try(bag: Bag, track: Track, index: int, usable: Callable[[Any], object]) -> tuple[Any, str]:
    """A message, and why it cannot be used; empty where it can."""
    try:
        message = bag.message(track, index)
        with decoding():
            usable(message)
    except (Damage, BadFrame) as error:
        return None, str(error)
    return message, ""


def camera_of(bag: Bag, contents: Contents, image_topic: str, info_topic: str, options: ConvertOptions, *, right: bool = False) -> Camera:
    """The camera of an image topic.

    Raises:
        InputError: nothing says what its intrinsics are, or as ``camera_info.from_message``.
    """
    image = first_message(bag, contents.tracks[image_topic], partial(_require_picture, image_topic))
    size_px, frame_id = images.size_of(image), str(image.header.frame_id)
    if options.intrinsics is not None and not right:
        return camera_info.from_numbers(options.intrinsics, size_px=size_px, frame_id=frame_id)
    if not info_topic:
        infos = with_counts(contents, contents.of_types("sensor_msgs/msg/CameraInfo"))
        raise InputError(
            f"{image_topic} has no camera_info beside it; name one with --{'right_' if right else ''}camera_info_topic "
            f"(the recording has: {infos})" + ("" if right else ", or give --intrinsics FX FY CX CY, in pixels of the image")
        )
    message = first_message(bag, contents.tracks[info_topic])
    return camera_info.from_message(message, topic=info_topic, image_topic=image_topic, size_px=size_px, frame_id=frame_id)


def _require_picture(topic: str, message: Any) -> None:
    images.require_pictures(message, topic)
    images.size_of(message)


@dataclass(frozen=True, kw_only=True)
class ImageWriter:
    """Writes images of a camera, rectified; a JPEG that needs no rectifying as it is. ``bits`` of 16 are in use."""

    topic: str
    camera: Camera
    where: Lookup | None
    png: bool
    bits: int

    def __call__(self, message: Any) -> tuple[bytes, str]:
        """As ``Write``."""
        if images.size_of(message) != self.camera.size_px:
            raise BadFrame("of another size")
        jpeg = images.as_jpeg(message)
        if jpeg is not None and self.where is None:
            return jpeg, ".jpg"
        pixels = images.decode(message, self.topic, self.bits)
        return images.encode(pixels if self.where is None else rectify(pixels, self.where), png=self.png)


def image_stream(bag: Bag, contents: Contents, image_topic: str, camera: Camera, values: ValueRange, *, png: bool) -> Stream:
    """How the images of a topic are written; what its encoding or distortion needs is looked for now, not at the first frame.

    ``values`` is the range of 16-bit values, one for all frames, and for both cameras of a pair: they are compared with each other.

    Raises:
        InputError: an encoding that is not known, or OpenCV is needed and not installed.
    """
    with parsing(image_topic, "of a camera that it can be rectified by", camera_info.REMEDY):
        where = lookup(camera, camera) if camera.rectifies else None
    track = contents.tracks[image_topic]
    writer = ImageWriter(topic=image_topic, camera=camera, where=where, png=png, bits=values.bits)
    message = first_message(bag, track, writer)
    notes = [f"{image_topic}: {values.describe(images.said_bits(message))}"] if images.is_16_bit(message) else []
    notes += [f"{image_topic}: rectified by its camera_info"] if where is not None else []
    return Stream(track, writer, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class RegisteredDepth:
    """Writes depth images that are registered to the left image."""

    topic: str
    size_px: tuple[int, int]
    how: depth.Registration | None

    def __call__(self, message: Any) -> tuple[bytes, str]:
        """As ``Write``."""
        values = depth.decode(message, self.topic)
        if values.shape != self.size_px:
            raise BadFrame("of another size")
        return depth.encode(depth.levels(values if self.how is None else depth.register(values, self.how))), ".png"


@dataclass(frozen=True, kw_only=True)
class ProjectedDepth:
    """Writes depth images of a camera elsewhere, point by point."""

    topic: str
    camera: Camera
    T_left_depth: NDArray[np.float64]
    left: Camera

    def __call__(self, message: Any) -> tuple[bytes, str]:
        """As ``Write``."""
        values = depth.decode(message, self.topic)
        if values.shape != self.camera.size_px:
            raise BadFrame("of another size")
        depth_m = points.nothing_at(self.left)
        for top in range(0, len(values), ROWS_AT_ONCE):
            some = depth.points_of(values[top : top + ROWS_AT_ONCE], self.camera, top)
            points.project(some, self.T_left_depth, self.left, depth_m)
        return depth.encode(depth.levels(depth_m)), ".png"


@dataclass(frozen=True, kw_only=True)
class ProjectedPoints:
    """Writes clouds as depth images of the left camera."""

    topic: str
    T_left_points: NDArray[np.float64]
    left: Camera

    def __call__(self, message: Any) -> tuple[bytes, str]:
        """As ``Write``."""
        depth_m, xyz = points.nothing_at(self.left), points.xyz_of(message, self.topic)
        for start in range(0, len(xyz), POINTS_AT_ONCE):
            points.project(xyz[start : start + POINTS_AT_ONCE], self.T_left_points, self.left, depth_m)
        return depth.encode(depth.levels(depth_m)), ".png"


def depth_stream(bag: Bag, contents: Contents, roles: Roles, left: Camera, tree: Tree, options: ConvertOptions) -> Stream:
    """How depth images are written; the rules stand in ``depth``.

    Raises:
        InputError: nothing says where the depth camera stands, or its images are no depth.
    """
    track = contents.tracks[roles.depth]
    message = first_message(bag, track, lambda found: depth.decode(found, roles.depth))
    size_px, frame_id = depth.size_of(message, roles.depth), str(message.header.frame_id)
    apart = bool(frame_id and left.frame_id and frame_id.lstrip("/") != left.frame_id.lstrip("/"))
    if roles.depth_camera_info:
        info = first_message(bag, contents.tracks[roles.depth_camera_info])
        camera = camera_info.from_message(info, topic=roles.depth_camera_info, image_topic=roles.depth, size_px=size_px, frame_id=frame_id)
    elif apart or abs(size_px[0] * left.size_px[1] / (size_px[1] * left.size_px[0]) - 1) > camera_info.MAX_STRETCH:
        raise InputError(f"{roles.depth} has no camera_info beside it, and nothing else says which pixels of the image it belongs to")
    else:
        camera = _camera_at_size(left, size_px)
    if not apart and options.depth_extrinsics is None:
        with parsing(roles.depth, "of a camera by which it comes to the image's pixels", camera_info.REMEDY):
            how = depth.registration(camera, left)
        note = f"{roles.depth}: {size_px[1]}x{size_px[0]}, brought to the image's pixels" if how is not None else ""
        return Stream(track, RegisteredDepth(topic=roles.depth, size_px=size_px, how=how), (note,) if note else ())
    T = _transform(options.depth_extrinsics, tree, left.frame_id, frame_id, roles.depth, "depth_extrinsics")
    return Stream(track, ProjectedDepth(topic=roles.depth, camera=camera, T_left_depth=T, left=left))


def points_stream(bag: Bag, contents: Contents, roles: Roles, left: Camera, tree: Tree, options: ConvertOptions) -> Stream:
    """How clouds are written.

    Raises:
        InputError: nothing says where the scanner stands, or the clouds have no coordinates.
    """
    track = contents.tracks[roles.points]
    message = first_message(bag, track, lambda found: points.xyz_of(found, roles.points))
    frame_id = str(message.header.frame_id)
    T = _transform(options.points_extrinsics, tree, left.frame_id, frame_id, roles.points, "points_extrinsics")
    return Stream(track, ProjectedPoints(topic=roles.points, T_left_points=T, left=left))


def _camera_at_size(left: Camera, size_px: tuple[int, int]) -> Camera:
    """The rectified left camera with images of another size: what a depth image without a camera of its own is taken for."""
    K = left.intrinsics.K(*size_px).astype(np.float64)
    if size_px == left.size_px:
        K = left.P[:, :3]
    P = np.column_stack([K, np.zeros(3)])
    return Camera(K=K, distortion=np.zeros(0), model="", R=np.eye(3), P=P, size_px=size_px, frame_id=left.frame_id)


def _transform(given: tuple[float, ...] | None, tree: Tree, camera_frame: str, frame: str, topic: str, option: str) -> NDArray[np.float64]:
    """T_camera_frame (4, 4), as given or of the tree; ``InputError`` where neither says."""
    if given is not None:
        return np.vstack([np.array(given, np.float64)[:12].reshape(3, 4), [0, 0, 0, 1]])
    T = between(tree, camera_frame, frame)
    if T is None:
        raise InputError(
            f"{topic} is in frame {named(frame)!r}, the image in {named(camera_frame)!r}, and /tf_static does not connect them; "
            f"give --{option} with 12 numbers, the 3x4 matrix that takes its points to the camera, row by row"
        )
    return T
