"""Recordings made on the spot with rosbags' writers: the same messages as ROS 1 ``.bag``, as rosbag2 with SQLite, and as MCAP.

A message is written down once, in ROS 2's field names, and becomes what the format needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dataload.bags.formats.container import CDR, ROS1, Topic
from dataload.bags.formats.reading import parse
from dataload.demo import render as demo_render
from dataload.demo import world as demo_world

START_NS = 1_600_000_000_123_456_789
PERIOD_NS = 100_000_000
FORMATS = ("bag", "db3", "mcap")
PACKED = {
    "bag_lz4": "LZ4",
    "bag_bz2": "BZ2",
    "db3_message": "MESSAGE",
    "db3_file": "FILE",
    "mcap_zstd": "STORAGE",
    "mcap_message": "MESSAGE",
}
TRANSFORMS = "tf2_msgs/msg/TFMessage"


class Msg(NamedTuple):
    """A message: its topic and type, its fields, when it was recorded."""

    topic: str
    msgtype: str
    fields: dict[str, Any]
    log_ns: int


def header(stamp_ns: int, frame_id: str = "left_optical") -> dict[str, Any]:
    return {"stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}, "frame_id": frame_id}


def image(
    topic: str,
    pixels: NDArray[Any],
    encoding: str,
    stamp_ns: int,
    *,
    frame_id: str = "left_optical",
    padding: int = 0,
    big_endian: bool = False,
    log_ns: int | None = None,
) -> Msg:
    """An Image of pixels (h, w[, channels]), its rows followed by ``padding`` bytes that are no pixels."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))).reshape(height, -1).view(np.uint8)
    padded = np.concatenate([rows, np.full((height, padding), 0xA5, np.uint8)], 1)
    fields = {
        "header": header(stamp_ns, frame_id),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": int(big_endian),
        "step": padded.shape[1],
        "data": padded.ravel(),
    }
    return Msg(topic, "sensor_msgs/msg/Image", fields, stamp_ns if log_ns is None else log_ns)


def compressed(
    topic: str, data: bytes, stamp_ns: int, *, form: str = "jpeg", frame_id: str = "left_optical", log_ns: int | None = None
) -> Msg:
    fields = {"header": header(stamp_ns, frame_id), "format": form, "data": np.frombuffer(data, np.uint8)}
    return Msg(topic, "sensor_msgs/msg/CompressedImage", fields, stamp_ns if log_ns is None else log_ns)


def camera_info(
    topic: str,
    K: NDArray[np.float64],
    size_px: tuple[int, int],
    stamp_ns: int = START_NS,
    *,
    D: Sequence[float] = (0, 0, 0, 0, 0),
    R: NDArray[np.float64] | None = None,
    P: NDArray[np.float64] | None = None,
    baseline_m: float = 0.0,
    model: str = "plumb_bob",
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    binning: int = 0,
    frame_id: str = "left_optical",
) -> Msg:
    """A CameraInfo; ``roi`` is x, y, height, width; without P it is K and the shift of a camera ``baseline_m`` to the right."""
    if P is None:
        P = np.column_stack([K, [-K[0, 0] * baseline_m, 0, 0]])
    fields = {
        "header": header(stamp_ns, frame_id),
        "height": size_px[0],
        "width": size_px[1],
        "distortion_model": model,
        "d": np.array(D, np.float64),
        "k": np.asarray(K, np.float64).ravel(),
        "r": (np.eye(3) if R is None else R).ravel(),
        "p": np.asarray(P, np.float64).ravel(),
        "binning_x": binning,
        "binning_y": binning,
        "roi": {"x_offset": roi[0], "y_offset": roi[1], "height": roi[2], "width": roi[3], "do_rectify": False},
    }
    return Msg(topic, "sensor_msgs/msg/CameraInfo", fields, stamp_ns)


def cloud(
    topic: str, xyz: NDArray[np.float64], stamp_ns: int, *, frame_id: str = "lidar", big_endian: bool = False, row_padding: int = 0
) -> Msg:
    """A PointCloud2 of two rows, each point with a gap before x and an intensity between y and z."""
    order = ">" if big_endian else "<"
    kind = np.dtype(
        {"names": ["x", "y", "i", "z"], "formats": [order + t for t in ("f4", "f4", "u2", "f8")], "offsets": [4, 8, 12, 16], "itemsize": 26}
    )
    points = np.zeros(len(xyz), kind)
    points["x"], points["y"], points["z"], points["i"] = xyz[:, 0], xyz[:, 1], xyz[:, 2], 77
    rows = points.view(np.uint8).reshape(2, -1)
    padded = np.concatenate([rows, np.full((2, row_padding), 0x5A, np.uint8)], 1)
    fields = {
        "header": header(stamp_ns, frame_id),
        "height": 2,
        "width": len(xyz) // 2,
        "fields": [
            {"name": name, "offset": offset, "datatype": datatype, "count": 1}
            for name, offset, datatype in (("x", 4, 7), ("y", 8, 7), ("intensity", 12, 4), ("z", 16, 8))
        ],
        "is_bigendian": big_endian,
        "point_step": kind.itemsize,
        "row_step": padded.shape[1],
        "data": padded.ravel(),
        "is_dense": False,
    }
    return Msg(topic, "sensor_msgs/msg/PointCloud2", fields, stamp_ns)


def static_transform(parent: str, child: str, xyzw: Sequence[float], translation: Sequence[float], stamp_ns: int = START_NS) -> Msg:
    transform = {
        "translation": dict(zip("xyz", map(float, translation), strict=True)),
        "rotation": dict(zip("xyzw", map(float, xyzw), strict=True)),
    }
    stamped = {"header": header(stamp_ns, parent), "child_frame_id": child, "transform": transform}
    return Msg("/tf_static", TRANSFORMS, {"transforms": [stamped]}, stamp_ns)


def parsed(message: Msg, *, ros1: bool = False) -> Any:
    """The message through serialisation, as it comes out of a recording."""
    return parse(Topic(message.topic, message.msgtype, ROS1 if ros1 else CDR), serialised(message, ros1=ros1))


def serialised(message: Msg, *, ros1: bool = False) -> bytes:
    """The message as it lies in a recording."""
    store = _store(ros1)
    made = _make(store, message.msgtype, message.fields, ros1)
    return bytes((store.serialize_ros1 if ros1 else store.serialize_cdr)(made, message.msgtype))


def write_bag(folder: Path, name: str, fmt: str, messages: Sequence[Msg], *, chunk_bytes: int = 2**20) -> Path:
    """One recording of a format of FORMATS or PACKED; the path to name: a file for .bag and .mcap, a folder for SQLite."""
    folder.mkdir(parents=True, exist_ok=True)
    ros1 = fmt.startswith("bag")
    store = _store(ros1)
    ordered = sorted(messages, key=lambda message: message.log_ns)
    if ros1:
        path = folder / f"{name}.bag"
        writer: Any = Writer1(path)
        writer.chunk_threshold = chunk_bytes
        if fmt in PACKED:
            writer.set_compression(Writer1.CompressionFormat[PACKED[fmt]])
    else:
        path = folder / name
        writer = Writer2(path, version=9, storage_plugin=StoragePlugin.SQLITE3 if fmt.startswith("db3") else StoragePlugin.MCAP)
        if fmt in PACKED:
            writer.set_compression(CompressionMode[PACKED[fmt]], CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for message in ordered:
            key = (message.topic, message.msgtype)
            if key not in connections:
                connections[key] = writer.add_connection(*key, typestore=store)
            made = _make(store, message.msgtype, message.fields, ros1)
            raw = (store.serialize_ros1 if ros1 else store.serialize_cdr)(made, message.msgtype)
            writer.write(connections[key], message.log_ns, raw)
    return path / f"{name}.mcap" if fmt in ("mcap", "mcap_zstd") else path


def _store(ros1: bool) -> Any:
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    if TRANSFORMS not in store.fielddefs:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TRANSFORMS))
    return store


def _make(store: Any, msgtype: str, fields: dict[str, Any], ros1: bool) -> Any:
    """An instance of a type, nested ones by their definitions."""
    made = {}
    upper = ros1 and msgtype == "sensor_msgs/msg/CameraInfo"
    for name, (kind, detail) in store.fielddefs[msgtype][1]:
        if name == "seq":
            made[name] = 7
            continue
        value = fields[name.lower() if upper else name]
        if int(kind) == 2:  # a type by its name
            made[name] = _make(store, detail, value, ros1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            made[name] = [_make(store, detail[0][1], item, ros1) for item in value]
        else:
            made[name] = value
    return store.types[msgtype](**made)


def picture(size_px: tuple[int, int], phase: float = 0.0) -> NDArray[np.uint8]:
    """A smooth pattern (h, w, 3) that no two frames share."""
    y, x = np.mgrid[: size_px[0], : size_px[1]].astype(np.float64)
    return np.stack([127 + 100 * np.sin(x / (7 + c) + phase) * np.cos(y / (5 + c) - c) for c in range(3)], -1).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], quality: int = 92) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def png(pixels: NDArray[Any]) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_demo_bags(world: Path, out: Path, fmt: str = "bag", *, depth: str = "16UC1", drives: Sequence[str] = ()) -> list[Path]:
    """The drives of a demo world as recordings, one each: JPEG images of both cameras as they are on disk, their camera_info, depth.

    Args:
        world: a folder of ``dataload.demo.world.ensure``.
        fmt: of FORMATS or PACKED.
        depth: 16UC1 (millimetres) or 32FC1 (metres); empty for none.
        drives: names of the folders to take, such as 2000_01_01_drive_0001_sync; all by default.
    """
    written = []
    for number, folder in enumerate(sorted((world / demo_world.DATE).glob("*_sync"))):
        if drives and folder.name not in drives:
            continue
        messages: list[Msg] = []
        start_ns = START_NS + number * 1000 * 10**9
        for index, left in enumerate(sorted((folder / "image_02" / "data").glob("*.jpg"))):
            stamp = start_ns + index * PERIOD_NS
            with Image.open(left) as opened:
                size_px = opened.height, opened.width
            K = demo_render.intrinsics(*size_px)
            for side, path, baseline in (
                ("left", left, 0.0),
                ("right", folder / "image_03" / "data" / left.name, demo_world.BASELINE_M),
            ):
                frame_id = f"{side}_optical"
                messages.append(compressed(f"/front/{side}/image_rect_color/compressed", path.read_bytes(), stamp, frame_id=frame_id))
                messages.append(camera_info(f"/front/{side}/camera_info", K, size_px, stamp, baseline_m=baseline, frame_id=frame_id))
            if depth:
                with Image.open(folder / "depth_exact" / "image_02" / f"{left.stem}.png") as opened:
                    metres = np.asarray(opened).astype(np.float64) / demo_world.DEPTH_PER_M
                # 16 bits of millimetres end at 65.5 m; beyond, a depth camera measures nothing.
                values = (
                    np.where(metres < 65.535, np.rint(metres * 1000), 0).astype(np.uint16)
                    if depth == "16UC1"
                    else metres.astype(np.float32)
                )
                messages.append(image("/front/depth/depth_registered", values, depth, stamp))
        written.append(write_bag(out, folder.name, fmt, messages))
    return written
