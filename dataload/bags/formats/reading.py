"""Recordings by their paths, and what is in one: its topics, when their messages were stamped, where each lies."""

from __future__ import annotations

import difflib
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dataload.bags.formats.container import (
    CDR,
    GARBLED_MESSAGE,
    ROS1,
    Container,
    Damage,
    Expansion,
    Place,
    Topic,
    garbled,
    head_of_zstd,
    join_faults,
    named,
    stream_zstd,
    unpack_zstd,
)
from dataload.frames.yaml_file import read_yaml
from dataload.system.installing import pip_install
from splits.errors import InputError
from splits.faults import name_faults, parsing

SUFFIXES = (".bag", ".db3", ".mcap")
METADATA = "metadata.yaml"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, POINTS, TRANSFORMS = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2", "tf2_msgs/msg/TFMessage"
STAMPED = (IMAGE, COMPRESSED, CAMERA_INFO, POINTS)
STATIC_TRANSFORMS = "/tf_static"
# Bytes of messages whose parts become objects in memory, each of many times its bytes; real ones have some hundreds and some thousands.
MOST_BYTES = {CAMERA_INFO: 2**16, TRANSFORMS: 2**20}
MOST_POINT_FIELDS = 1000
LATEST_NS = 2**63 - 1


@dataclass(kw_only=True)
class Track:
    """The messages of a topic in the order of the recording.

    Attributes:
        stamps_ns: of the headers, the time of recording where a header has none; empty for types that nothing here uses.
        log_ns: when they were recorded.
        places: where they lie, for ``Bag.message``.
        unstamped: how many headers have no stamp.
    """

    topic: Topic
    stamps_ns: list[int] = field(default_factory=list)
    log_ns: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    unstamped: int = 0
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a recording holds, by topic; when it begins and ends (of recording, ns); what of it cannot be read, empty if all can."""

    tracks: dict[str, Track]
    begin_ns: int
    end_ns: int
    damage: str

    def of_types(self, *msgtypes: str) -> list[str]:
        """The topics of some types that have messages, sorted."""
        return sorted(name for name, track in self.tracks.items() if track.topic.msgtype in msgtypes and track.count)


class Bag:
    """An open recording of one or several files; a context manager.

    Raises:
        InputError: a path that is no recording, or one of a version that is not known.
    """

    def __init__(self, path: Path) -> None:
        require_rosbags()
        self.path, self.name = path, name_of(path)
        self._stack = ExitStack()
        self.files, how, self._missing = find_files(path)
        try:
            self._parts = [self._open(part, how) for part in self.files]
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scan(self) -> Contents:
        """Walk through the recording once; of messages only the stamps are read."""
        tracks: dict[str, Track] = {}
        begin, end, faults, timeless = 2**63, 0, [f"{name} is missing" for name in self._missing], 0
        for number, part in enumerate(self._parts):
            try:
                for entry in part.entries(_is_of_use):
                    begin, end = min(begin, entry.log_ns), max(end, entry.log_ns)
                    track = tracks.setdefault(entry.topic.name, Track(topic=entry.topic))
                    track.count += 1
                    if track.topic != entry.topic or not _is_of_use(entry.topic):
                        continue
                    stamp = stamp_ns(entry.topic, entry.head)
                    if not 0 <= (stamp or entry.log_ns) <= LATEST_NS:
                        timeless += 1
                        continue
                    track.unstamped += not stamp
                    track.stamps_ns.append(stamp or entry.log_ns)
                    track.log_ns.append(entry.log_ns)
                    track.places.append((number, *entry.place))
            except Damage as damage:
                faults.append(str(damage))
        faults += [f"{timeless} messages are of no time that a clock shows"] if timeless else []
        return Contents(tracks=tracks, begin_ns=min(begin, end), end_ns=end, damage=join_faults(faults))

    def raw(self, place: Place) -> bytes:
        """A message, serialised; ``Damage`` where it cannot be read."""
        return self._parts[place[0]].read(place[1:])

    def message(self, track: Track, index: int) -> Any:
        """A message of a track, as ``parse``."""
        return parse(track.topic, self.raw(track.places[index]))

    def _open(self, part: Path, how: str) -> Container:
        from dataload.bags.formats.mcap_file import McapFile
        from dataload.bags.formats.ros1_file import Ros1File
        from dataload.bags.formats.sqlite_file import SqliteFile

        if how == "file":
            packed, part = part, self._unpack(part)
            try:
                return self._open(part, "")
            except InputError as error:  # which names a file that nobody has seen
                raise InputError(str(error).replace(str(part), f"{packed}, unpacked,")) from error
        container: Container
        if part.suffix == ".bag":
            container = Ros1File(part)
        elif part.suffix == ".mcap":
            container = _PackedMessages(McapFile(part)) if how == "message" else McapFile(part)
        elif part.suffix == ".db3":
            container = SqliteFile(part, packed=how == "message")
        else:
            raise InputError(f"{part} is no recording; known are {', '.join(SUFFIXES)} and folders of ROS 2")
        self._stack.callback(container.close)
        return container

    def _unpack(self, part: Path) -> Path:
        """Unpack a file that was packed whole into a temporary folder, which stays for as long as the recording is open."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="md-bag-")))
        target, expansion = folder / part.stem, Expansion(part.stat().st_size)
        with name_faults(target), part.open("rb") as packed, target.open("wb") as plain:
            try:
                for piece in stream_zstd(packed, part.stat().st_size):
                    expansion.take_bytes(len(piece))
                    plain.write(piece)
            except Damage as damage:
                self._missing.append(f"the end of {part.name} ({damage})")
        return target


class _PackedMessages:
    """A container whose messages are packed one by one."""

    def __init__(self, inner: Container) -> None:
        self._inner, self.close = inner, inner.close

    def entries(self, wanted: Any) -> Any:
        for entry in self._inner.entries(wanted):
            yield entry._replace(head=head_of_zstd(partial(self._inner.read, entry.place))) if wanted(entry.topic) else entry

    def read(self, place: Place) -> bytes:
        return unpack_zstd(self._inner.read(place))


def find_files(path: Path) -> tuple[list[Path], str, list[str]]:
    """The files of a recording in order, how each is packed ("", "file" or "message"), and the names of those that are missing.

    Raises:
        InputError: a folder whose description cannot be read, or that lacks all files.
    """
    if not path.is_dir():
        return [path], "", []
    metadata, remedy = path / METADATA, "name its .db3 or .mcap file instead of the folder"
    try:
        with parsing(metadata, "what ROS 2 writes", remedy):
            content: Any = read_yaml(metadata)
            content = content["rosbag2_bagfile_information"]
            names = list(dict.fromkeys(Path(name).name for name in content["relative_file_paths"]))
            how, by = str(content.get("compression_mode") or "").lower(), str(content.get("compression_format") or "")
    except InputError as error:
        raise InputError(f"{error}; {remedy}" if remedy not in str(error) else str(error)) from error
    if how in ("file", "message") and by != "zstd":
        raise InputError(f"{path} is compressed by {named(by)!r}, not zstd; convert it with ros2 bag convert")
    missing = [name for name in names if not (path / name).is_file()]
    found = [path / name for name in names if name not in missing]
    if not found:
        raise InputError(f"{path} lacks every file that its {METADATA} names ({named(', '.join(names)) or 'none'})")
    return found, how if how in ("file", "message") else "", missing


def require_rosbags() -> None:
    """``InputError`` where rosbags, which knows the types of messages, is not installed."""
    try:
        import rosbags.typesys  # noqa: F401
    except ImportError as error:
        raise InputError(f"recordings need rosbags ({error}): {pip_install('bags')}") from error


def name_of(path: Path) -> str:
    """The name of a recording: its file's without the ending, its folder's as it is; blanks, which split lists cannot hold, are ``_``."""
    path = path.absolute()
    return "_".join((path.stem if path.suffix in SUFFIXES and not path.is_dir() else path.name).split())


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """The recordings that paths name: files, folders of ROS 2, folders that hold several of these.

    A folder that lacks ``metadata.yaml``, as of a recorder that was killed, is taken for a folder of files.

    Raises:
        InputError: there is no such path, it is no recording, or it holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            names = [other.name for other in path.parent.iterdir() if _is_bag(other)] if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {path.parent / near[0]}?" if near else "; check the path"
            raise InputError(f"no recording at {path}{hint}")
        if _is_bag(path):
            found.append(path)
        elif path.is_dir():
            inside = sorted(other for other in path.iterdir() if _is_bag(other))
            if not inside:
                raise InputError(f"{path} holds no recording ({', '.join(SUFFIXES)} or a folder of ROS 2)")
            found += inside
        else:
            remedy = "; rename it to .bag" if path.name.endswith(".bag.active") else ""
            raise InputError(f"{path} is no recording; known are {', '.join(SUFFIXES)} and folders of ROS 2{remedy}")
    return list(dict.fromkeys(found))


def _is_bag(path: Path) -> bool:
    return (path / METADATA).is_file() or (path.suffix in SUFFIXES and path.is_file())


def _is_of_use(topic: Topic) -> bool:
    return topic.msgtype in STAMPED or (topic.msgtype == TRANSFORMS and topic.name == STATIC_TRANSFORMS)


def stamp_ns(topic: Topic, head: bytes) -> int:
    """The stamp of a message that begins with a header, ns; 0 where it has none."""
    if topic.msgtype not in STAMPED or len(head) < 12:
        return 0
    # ROS 1: a sequence number, then the stamp. CDR: four bytes of which the second says the order of bytes, then the stamp.
    order = ">" if topic.encoding == CDR and not head[1] & 1 else "<"
    seconds, nanoseconds = struct.unpack_from(order + "II", head, 4)
    return seconds * 10**9 + nanoseconds


def parse(topic: Topic, raw: bytes) -> Any:
    """A message of a type that is of use here, as rosbags makes it.

    These types have been the same in every version of ROS 1 and of ROS 2, so the definitions in the recording are not read.

    Raises:
        Damage: the bytes are no such message.
    """
    store = _typestore(topic.encoding)
    with garbled(GARBLED_MESSAGE):
        _require_parts(topic, raw)
        return (store.deserialize_ros1 if topic.encoding == ROS1 else store.deserialize_cdr)(raw, topic.msgtype)


def _require_parts(topic: Topic, raw: bytes) -> None:
    """``Damage`` where a message has so many parts that the objects made of them would fill the memory."""
    if len(raw) > MOST_BYTES.get(topic.msgtype, len(raw)):
        raise Damage(GARBLED_MESSAGE)
    if topic.msgtype == POINTS:
        order = ">" if topic.encoding == CDR and not raw[1] & 1 else "<"
        # A header ends with the name of its frame; CDR has the numbers behind it at multiples of four, counted from its own beginning.
        name_at = 12
        (name_size,) = struct.unpack_from(order + "I", raw, name_at)
        at = name_at + 4 + name_size
        at += -at % 4 if topic.encoding == CDR else 0
        if struct.unpack_from(order + "III", raw, at)[2] > MOST_POINT_FIELDS:
            raise Damage(GARBLED_MESSAGE)


@lru_cache
def _typestore(encoding: str) -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if encoding == ROS1 else Stores.ROS2_HUMBLE)
    if TRANSFORMS not in store.fielddefs:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TRANSFORMS))
    return store
