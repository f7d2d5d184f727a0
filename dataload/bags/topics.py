"""The role of each topic of a recording: as the options name it, else by its type and the usual names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from dataload.bags.formats.container import named
from dataload.bags.formats.reading import CAMERA_INFO, COMPRESSED, IMAGE, POINTS, Contents
from dataload.bags.messages.images import VIDEO_REMEDY
from dataload.bags.options import ConvertOptions
from splits.errors import InputError

# The best first; the part after the last "/", without the suffix of compression.
IMAGE_NAMES = ("image_rect_color", "image_rect", "image_color", "image_raw", "image")
TRANSPORTS = ("compressed", "compressedDepth")
DEPTH_WORDS = ("depth",)
OTHER_WORDS = ("disparity", "confidence", "mask", "segmentation", "semantic", "label", "normal", "thermal", "infra")
# Types whose messages are pieces of a video.
STREAMS = (
    "foxglove_msgs/msg/CompressedVideo",
    "foxglove.CompressedVideo",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    "theora_image_transport/msg/Packet",
    "x264_image_transport/msg/x264Packet",
)
MOST_LISTED = 10  # topics that a message names; --list shows all
KINDS = {
    IMAGE: "sensor_msgs Image",
    COMPRESSED: "CompressedImage",
    CAMERA_INFO: "sensor_msgs CameraInfo",
    POINTS: "sensor_msgs PointCloud2",
}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The topic of each role; empty for none."""

    image: str
    camera_info: str = ""
    right: str = ""
    right_camera_info: str = ""
    depth: str = ""
    depth_camera_info: str = ""
    points: str = ""

    def of(self, topic: str) -> str:
        """What a topic is used as, in words; empty if unused."""
        names = {
            "image": "left image",
            "camera_info": "left camera_info",
            "right": "right image",
            "right_camera_info": "right camera_info",
            "depth": "depth",
            "depth_camera_info": "depth camera_info",
            "points": "points",
        }
        return ", ".join(words for role, words in names.items() if getattr(self, role) == topic)


def choose(contents: Contents, options: ConvertOptions) -> Roles:
    """The topics to convert.

    Raises:
        InputError: a named topic is not there or of another type, or there are no images.
    """
    image = _topic_of_option(contents, options, "image_topic", IMAGE, COMPRESSED) or _left_image(contents)
    if not image:
        count = len(contents.tracks)
        raise InputError(
            f"no images (sensor_msgs Image or CompressedImage) among its {count} topics; {_streams(contents) or '--list shows them'}"
        )
    right = _topic_of_option(contents, options, "right_image_topic", IMAGE, COMPRESSED) or _right_image(contents, image)
    depth = _topic_of_option(contents, options, "depth_topic", IMAGE, COMPRESSED)
    points = _topic_of_option(contents, options, "points_topic", POINTS)
    if not depth and not points:
        depth = _depth(contents, image)
        points = "" if depth else _points(contents)
    info = _topic_of_option(contents, options, "camera_info_topic", CAMERA_INFO) or _camera_info(contents, image)
    infos = contents.of_types(CAMERA_INFO)
    if not info and len(infos) == 1:
        info = infos[0]
    right_info = _topic_of_option(contents, options, "right_camera_info_topic", CAMERA_INFO)
    if right and not right_info:
        right_info = _camera_info(contents, right)
    return Roles(
        image=image,
        camera_info=info,
        right=right,
        right_camera_info=right_info,
        depth=depth,
        depth_camera_info=_camera_info(contents, depth) if depth else "",
        points=points,
    )


def with_counts(contents: Contents, names: Sequence[str]) -> str:
    """The topics with the number of messages of each, for errors."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return (", ".join(f"{named(name)} ({contents.tracks[name].count})" for name in names[:MOST_LISTED]) or "none") + more


def _topic_of_option(contents: Contents, options: ConvertOptions, option: str, *msgtypes: str) -> str:
    """The topic that an option names; empty where it names none."""
    given = getattr(options, option)
    if not given:
        return ""
    name = given if given.startswith("/") else "/" + given
    there = contents.of_types(*msgtypes)
    if name in there:
        return name
    kind = " or ".join(KINDS[msgtype] for msgtype in msgtypes)
    track = contents.tracks.get(name)
    if track and track.topic.msgtype in STREAMS:
        raise InputError(f"--{option} {given} is a video stream ({track.topic.msgtype}); {VIDEO_REMEDY}")
    what = f"is {track.topic.msgtype}, not {kind}" if track else "is not in the recording"
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"--{option} {given} {what}; {hint}it has {kind}: {with_counts(contents, there)}")


def _streams(contents: Contents) -> str:
    """The streams of video among the topics, and what to do with them; empty where there are none."""
    names = contents.of_types(*STREAMS)
    return f"{with_counts(contents, names)}: video stream of {contents.tracks[names[0]].topic.msgtype}; {VIDEO_REMEDY}" if names else ""


def _base(topic: str) -> str:
    """A topic's name without its suffix of compression."""
    head, _, last = topic.rpartition("/")
    return head if last in TRANSPORTS else topic


def _words_in(topic: str, words: Sequence[str]) -> bool:
    return any(word in topic.lower() for word in words)


def _rank(contents: Contents, topic: str) -> tuple[object, ...]:
    """Sorts images: ahead before behind, left before unnamed before right, rectified colour first, uncompressed first, many first."""
    name, last = _base(topic).lower(), _base(topic).rpartition("/")[2]
    ahead = _rank_words(name, ("front",), ("rear", "back"))
    side = _rank_words(name, ("left",), ("right",))
    kind = next((i for i, usual in enumerate(IMAGE_NAMES) if last.startswith(usual)), len(IMAGE_NAMES))
    if "/rect" in name:
        kind = 0
    return (ahead, side, kind, topic != _base(topic), -contents.tracks[topic].count, topic)


def _rank_words(name: str, first: Sequence[str], last: Sequence[str]) -> int:
    """0 for names with one of the first words, 2 with one of the last, 1 with none."""
    if _words_in(name, first):
        return 0
    return 2 if _words_in(name, last) else 1


def _left_image(contents: Contents) -> str:
    images = [name for name in contents.of_types(IMAGE, COMPRESSED) if not _words_in(name, DEPTH_WORDS + OTHER_WORDS)]
    return min(images, key=lambda name: _rank(contents, name), default="")


def _right_image(contents: Contents, left: str) -> str:
    """The topic named like the left one with right for left; of the same compression where there is a choice."""
    wanted = _base(left).replace("left", "right").replace("Left", "Right")
    if wanted == _base(left):
        return ""
    found = [name for name in contents.of_types(IMAGE, COMPRESSED) if _base(name) == wanted]
    transport = left.removeprefix(_base(left))
    return min(found, key=lambda name: name.removeprefix(wanted) != transport, default="")


def _depth(contents: Contents, image: str) -> str:
    """A depth image: one registered to the image first, then the one that shares most of its name with the image."""

    def rank(name: str) -> tuple[object, ...]:
        shared = len([1 for a, b in zip(name.split("/"), image.split("/"), strict=False) if a == b])
        return (not _words_in(name, ("registered", "aligned")), -shared, *_rank(contents, name))

    found = [name for name in contents.of_types(IMAGE, COMPRESSED) if _words_in(name, DEPTH_WORDS) and not _words_in(name, OTHER_WORDS)]
    # As JPEG, which image_transport may also offer, depth is of no use.
    found = [name for name in found if not name.endswith("/compressed") or _base(name) not in found]
    return min(found, key=rank, default="")


def _points(contents: Contents) -> str:
    """The cloud with the most messages that is not made of a depth image."""
    found = [name for name in contents.of_types(POINTS) if not _words_in(name, DEPTH_WORDS)]
    return min(found, key=lambda name: (-contents.tracks[name].count, name), default="")


def _camera_info(contents: Contents, image: str) -> str:
    """The camera_info beside an image, or the nearest above it."""
    there, folder = contents.of_types(CAMERA_INFO), _base(image)
    while folder:
        folder = folder.rpartition("/")[0]
        if f"{folder}/camera_info" in there:
            return f"{folder}/camera_info"
    return ""
