"""The plan of a conversion: which message becomes which file by which rule, and the calibration that goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.bags import timeline
from dataload.bags.formats.container import Damage, Place, Topic
from dataload.bags.formats.reading import STATIC_TRANSFORMS, TRANSFORMS, Bag, Contents, Track
from dataload.bags.messages import camera_info
from dataload.bags.messages.camera_info import Camera
from dataload.bags.messages.depth import SCALE
from dataload.bags.messages.transforms import MOST_TRANSFORMS, Tree, tree_of
from dataload.bags.options import ConvertOptions
from dataload.bags.streams import Stream, Write, camera_of, depth_stream, image_stream, points_stream
from dataload.bags.topics import Roles, choose
from dataload.bags.value_range import ValueRange, look_at_values
from dataload.frames.calibration import Calibration
from dataload.frames.camera_formats import LEFT, RIGHT
from splits.errors import InputError

LEFT_FOLDER, RIGHT_FOLDER, DEPTH_FOLDER = "front_rgb_left", "front_rgb_right", "front_depth_left"
FOLDERS = (LEFT_FOLDER, RIGHT_FOLDER, DEPTH_FOLDER)


class Job(NamedTuple):
    """One message that becomes one file: in which folder, under which stamp."""

    folder: str
    stamp_ns: int
    topic: Topic
    place: Place
    write: Write


@dataclass(kw_only=True)
class Plan:
    """The files to write in the order of the recording, the calibration of the sequence, and the remarks to show."""

    jobs: list[Job]
    calibration: Calibration
    size_px: tuple[int, int]
    roles: Roles
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def make_plan(bag: Bag, contents: Contents, options: ConvertOptions) -> Plan:
    """Decide everything that can be decided before the first file is written.

    A topic found by its name that turns out useless (a right camera without baseline, depth of unknown place) is left out with a remark;
    a topic named by an option is then an error.

    Raises:
        InputError: no images, no intrinsics, or a named topic is of no use.
    """
    roles = choose(contents, options)
    left = camera_of(bag, contents, roles.image, roles.camera_info, options)
    values = look_at_values(bag, [contents.tracks[topic] for topic in (roles.image, roles.right) if topic])
    stream = image_stream(bag, contents, roles.image, left, values, png=options.png)
    line = timeline.sort_stamps(stream.track.stamps_ns)
    kept = timeline.subsample(line.stamps_ns, options.hz)
    stamps = line.stamps_ns[kept]
    plan = Plan(
        jobs=_jobs(LEFT_FOLDER, stream, stamps, line.numbers[kept]), calibration=Calibration(cameras={}), size_px=left.size_px, roles=roles
    )
    plan.notes += stream.notes
    if stream.track.unstamped:
        plan.notes.append(f"{roles.image}: {stream.track.unstamped} headers without a stamp; the time of recording is used")
    if line.backwards:
        plan.notes.append(f"{roles.image}: {line.backwards} stamps run backwards; frames are sorted by stamp")
    plan.dropped = {
        name: n for name, n in (("repeated stamps", line.repeated), (f"above {options.hz:g} Hz", len(line.stamps_ns) - len(kept))) if n
    }
    apart_ns = timeline.tolerance_ns(stamps, options.hz)
    cameras, baseline = {LEFT: left}, None
    if roles.right:
        found = _right(bag, contents, roles, left, values, options, plan.notes)
        if found is not None:
            right, baseline, stream = found
            cameras[RIGHT] = right
            plan.jobs += _match_left(RIGHT_FOLDER, stream, stamps, apart_ns)
            plan.notes += stream.notes
    measured = _depth(bag, contents, roles, left, options, plan.notes)
    if measured is not None:
        plan.jobs += _match_left(DEPTH_FOLDER, measured, stamps, apart_ns)
        plan.notes += measured.notes
    plan.jobs.sort(key=lambda job: job.place)
    plan.calibration = _calibration(bag, roles, options, cameras, baseline, measured is not None)
    return plan


def _calibration(
    bag: Bag, roles: Roles, options: ConvertOptions, cameras: dict[str, Camera], baseline_m: float | None, depth: bool
) -> Calibration:
    kind = "dense" if roles.depth else "sparse"
    source = {"bag": bag.name, "image_topic": roles.image, "camera_info_topic": roles.camera_info, "hz": options.hz}
    return Calibration(
        cameras={name: camera.intrinsics for name, camera in cameras.items()},
        baseline_m=baseline_m,
        depth_scale=SCALE if depth else None,
        depth_kind=kind if depth else "",
        depth_topic=(roles.depth or roles.points) if depth else "",
        frame_ids={name: camera.frame_id for name, camera in cameras.items()},
        source={**source, "options": options.settings()},
    )


def _jobs(folder: str, stream: Stream, stamps_ns: NDArray[np.int64], numbers: NDArray[np.int64]) -> list[Job]:
    topic, places = stream.track.topic, stream.track.places
    return [Job(folder, stamp, topic, places[i], stream.write) for stamp, i in zip(stamps_ns.tolist(), numbers.tolist(), strict=True)]


def _match_left(folder: str, stream: Stream, stamps_ns: NDArray[np.int64], apart_ns: float) -> list[Job]:
    """The files of another stream that belong to the left frames, under the left frames' stamps."""
    line = timeline.sort_stamps(stream.track.stamps_ns)
    found = timeline.pair(stamps_ns, line.stamps_ns, apart_ns)
    return _jobs(folder, stream, stamps_ns[found >= 0], line.numbers[found[found >= 0]])


def _right(
    bag: Bag, contents: Contents, roles: Roles, left: Camera, values: ValueRange, options: ConvertOptions, notes: list[str]
) -> tuple[Camera, float, Stream] | None:
    try:
        right = camera_of(bag, contents, roles.right, roles.right_camera_info, options, right=True)
        baseline = camera_info.baseline_m(left, right, roles.right_camera_info)
        return right, baseline, image_stream(bag, contents, roles.right, right, values, png=options.png)
    except InputError as error:
        if options.right_image_topic:
            raise
        notes.append(f"the right image is left out: {error}")
        return None


def _depth(bag: Bag, contents: Contents, roles: Roles, left: Camera, options: ConvertOptions, notes: list[str]) -> Stream | None:
    if not roles.depth and not roles.points:
        return None
    try:
        make = depth_stream if roles.depth else points_stream
        return make(bag, contents, roles, left, _tree(bag, contents), options)
    except InputError as error:
        if options.depth_topic or options.points_topic:
            raise
        notes.append(f"depth is left out: {error}")
        return None


def _tree(bag: Bag, contents: Contents) -> Tree:
    """The static transforms, as far as they can be read."""
    track = contents.tracks.get(STATIC_TRANSFORMS)
    if track is None or track.topic.msgtype != TRANSFORMS:
        return {}
    return tree_of(_messages(bag, track))


def _messages(bag: Bag, track: Track) -> Iterator[Any]:
    """The first messages of a track, as far as they can be read; what never changes is not said more often."""
    for index in range(min(MOST_TRANSFORMS, len(track.places))):
        with suppress(Damage):
            yield bag.message(track, index)
