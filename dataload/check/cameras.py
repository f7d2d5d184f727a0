"""The check that intrinsics can be those of their images, by the field of view, the principal point, and the shape of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataload.check.frames import Frames, Size, format_size
from dataload.check.lists import FrameList
from dataload.check.report import Report, count
from dataload.datasets.base import OTHER_SIDE, Dataset, some
from dataload.datasets.sequences import SequenceDataset
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

# Lenses between a telephoto one and the widest that a pinhole camera describes.
FIELDS_OF_VIEW_DEG = (20.0, 140.0)
# Of the image's side, from its middle; more is what cropping leaves.
MAX_OFF_CENTRE = 0.15
# Pixels are square in nearly every camera.
MAX_PIXEL_ASPECT = 1.1
# Rounding sizes to whole pixels changes an image's aspect by less.
ASPECT_TOLERANCE = 0.01


class Camera(NamedTuple):
    """A camera at the size of its images on disk; pixels.

    Attributes:
        place: what to call it. size_px: of its images, (height, width). given_size_px: what its intrinsics are for, where they say so.
    """

    place: str
    size_px: Size
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    given_size_px: Size | None

    @property
    def field_of_view_deg(self) -> float:
        """The horizontal one."""
        return math.degrees(2 * math.atan(self.size_px[1] / (2 * self.fx_px)))

    @property
    def off_centre(self) -> tuple[float, float]:
        """How far the principal point lies from the middle, over width and height."""
        height, width = self.size_px
        return (self.cx_px - (width - 1) / 2) / width, (self.cy_px - (height - 1) / 2) / height


def inspect_cameras(dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    """Each sequence's cameras against its images; faults of one kind are reported together."""
    cameras, unknown, by_folder = list[Camera](), list[str](), dict[str, int]()
    for (folder, side, numbers), ref in _ref_of_each(dataset, [ref for part in lists if part.is_trained_on for ref in part.used]).items():
        size_px = frames.size_px(dataset.image_folder(folder, side))
        if size_px is not None:
            try:
                cameras.append(_camera(dataset, ref, size_px))
            except InputError as error:
                unknown.append(str(error))
            by_folder[folder] = by_folder.get(folder, 0) + (numbers is not None)
    if unknown:
        others = f"{count(len(unknown), 'camera')} unknown, the first: " if len(unknown) > 1 else ""
        report.problem(f"{others}{unknown[0]}")
    several = [folder for folder, number in by_folder.items() if number > 1]
    if several:
        report.warn(f"the lines of {count(len(several), 'sequence')} give it more than one camera: {some(several)}; is that meant?")
    if any(part.use_stereo for part in lists):
        _compare_pairs(dataset, lists, frames, report)
    if not cameras:
        return
    views = [camera.field_of_view_deg for camera in cameras]
    off = max(abs(share) for camera in cameras for share in camera.off_centre)
    report.say(
        "Cameras",
        f"{count(len(cameras), 'camera')}: {min(views):.0f} to {max(views):.0f} degrees wide, centre at most {100 * off:.1f} % off",
    )
    report.facts["cameras"] = [
        {"place": c.place, "size": format_size(c.size_px), "fx": c.fx_px, "fy": c.fy_px, "cx": c.cx_px, "cy": c.cy_px} for c in cameras
    ]
    _judge(cameras, report)


def _ref_of_each(dataset: Dataset, refs: Sequence[FrameRef]) -> dict[tuple[str, str, tuple[float, ...] | None], FrameRef]:
    """A reference for each camera: each sequence, side, and set of intrinsics in the lines."""
    found: dict[tuple[str, str, tuple[float, ...] | None], FrameRef] = {}
    for ref in refs:
        found.setdefault((ref.folder, dataset.side(ref), ref.intrinsics), ref)
    return found


def _camera(dataset: Dataset, ref: FrameRef, size_px: Size) -> Camera:
    K = dataset.K(ref, *size_px)
    given = dataset.intrinsics(ref).size_px if isinstance(dataset, SequenceDataset) else None
    place = f"{ref.folder} {dataset.side(ref)}"
    return Camera(place, size_px, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), given)


def _judge(cameras: Sequence[Camera], report: Report) -> None:
    """One problem or warning for each kind of fault."""
    for camera_list, text in (
        ([c for c in cameras if _has_other_shape(c)], "intrinsics are for images of another shape"),
        ([c for c in cameras if not FIELDS_OF_VIEW_DEG[0] <= c.field_of_view_deg <= FIELDS_OF_VIEW_DEG[1]], "no plausible field of view"),
        ([c for c in cameras if any(abs(share) > 0.5 for share in c.off_centre)], "the principal point lies outside the image"),
    ):
        if camera_list:
            report.problem(f"{_describe_first(camera_list)}: {text}; correct calibration.yaml, the split's lines or --intrinsics")
    for camera_list, text in (
        ([c for c in cameras if MAX_OFF_CENTRE < max(map(abs, c.off_centre)) <= 0.5], "the principal point is far from the middle"),
        (
            [c for c in cameras if not _has_other_shape(c) and not 1 / MAX_PIXEL_ASPECT <= c.fx_px / c.fy_px <= MAX_PIXEL_ASPECT],
            "fx and fy differ, so pixels are not square",
        ),
    ):
        if camera_list:
            report.warn(f"{_describe_first(camera_list)}: {text}; are the intrinsics in pixels of these images?")
    scaled = [c for c in cameras if c.given_size_px not in (None, c.size_px) and not _has_other_shape(c)]
    if scaled:
        report.warn(f"{_describe_first(scaled)}: intrinsics are for another size and are scaled to the images'; is it the same camera?")


def _has_other_shape(camera: Camera) -> bool:
    if camera.given_size_px is None:
        return False
    height, width = camera.given_size_px
    return abs(width / height / (camera.size_px[1] / camera.size_px[0]) - 1) > ASPECT_TOLERANCE


def _describe_first(cameras: Sequence[Camera]) -> str:
    """The first cameras with the numbers that show what is wrong."""
    first = cameras[0]
    given = f" given for {format_size(first.given_size_px)}" if first.given_size_px not in (None, first.size_px) else ""
    numbers = (
        f"{first.place}: fx {first.fx_px:.6g}, fy {first.fy_px:.6g}, cx {first.cx_px:.6g}, cy {first.cy_px:.6g} in "
        f"{format_size(first.size_px)}{given}, {first.field_of_view_deg:.0f} degrees wide"
    )
    others = f"; {some([camera.place for camera in cameras[1:]])}" if len(cameras) > 1 else ""
    return f"{count(len(cameras), 'camera')} ({numbers}{others})"


def _compare_pairs(dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    """Both cameras of a pair are resized alike and share one K."""
    unequal: dict[str, tuple[Path, Path]] = {}
    for part in lists:
        for folder, side in {(ref.folder, dataset.side(ref)) for ref in part.used if part.use_stereo}:
            places = (dataset.image_folder(folder, side), dataset.image_folder(folder, OTHER_SIDE[side]))
            sizes = {frames.size_px(place) for place in places} - {None}
            if len(sizes) > 1:
                unequal.setdefault(folder, places)
    for first, second in list(unequal.values())[:1]:
        report.problem(
            f"{count(len(unequal), 'sequence')} whose cameras' images differ in size ({some(list(unequal))}): "
            f"{dataset.relative(first)} and {dataset.relative(second)}; a pair shares one K: rectify both to one size"
        )
