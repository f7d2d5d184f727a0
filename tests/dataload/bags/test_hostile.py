"""Recordings made to harm: each ends in lines within 2 GiB and 10 s, and what is sound in a recording is converted all the same."""

import os
import struct
from contextlib import suppress
from math import isqrt
from pathlib import Path

import bags
import hostile_bags as made
import lz4.frame
import numpy as np
import pytest
from hostile import require_bounded, require_refused, run_bounded
from hostile_files import PICTURES, png_of

from dataload.bags.batch import Outcome, convert_all, sequences_of
from dataload.bags.formats.container import Damage
from dataload.bags.formats.reading import Bag, find_files, parse
from dataload.bags.messages import camera_info, depth, points
from dataload.bags.messages.images import BadFrame, decode, read_png, rows, size_of
from dataload.bags.messages.transforms import MOST_TRANSFORMS, between, tree_of
from dataload.bags.options import ConvertOptions
from splits.errors import InputError
from splits.limits import CHUNK_BYTES, IMAGE_PIXELS

SIZE = (48, 80)
K = np.array([[70.0, 0, 41], [0, 72, 23], [0, 0, 1]])
TOPIC = "/c/image/compressed"
GIB = 2**30
EMPTY = made.ros1_message(0, b"")
# zstd's own form of nothing.
PIECE = made.ZSTD_MAGIC + bytes([0x20, 0, 1, 0, 0])
IMAGES = made.ros1_topic(0, "/a/image", "sensor_msgs/msg/Image")


def camera(**values: object) -> bags.Msg:
    return bags.camera_info("/c/camera_info", K, SIZE, **values)  # type: ignore[arg-type]


def frames(count: int = 4) -> list[bags.Msg]:
    """Sound images, the second to be replaced by what a test is about."""
    return [bags.compressed(TOPIC, bags.jpeg(bags.picture(SIZE, i)), bags.START_NS + i * bags.PERIOD_NS) for i in range(count)]


def convert(path: Path, out: Path, **options: object) -> Outcome:
    return convert_all(sequences_of([path]), out, ConvertOptions(**options), progress=False)  # type: ignore[arg-type]


def folder(path: Path, name: str, content: bytes, how: str) -> Path:
    """A recording of ROS 2 that is packed as its description says."""
    path.mkdir()
    text = "rosbag2_bagfile_information:\n  relative_file_paths: [{}]\n  compression_mode: {}\n  compression_format: zstd\n"
    (path / "metadata.yaml").write_text(text.format(name, how))
    (path / name).write_bytes(content)
    return path


def many(compression: str, num_bytes: int, count: int) -> bytes:
    return made.mcap_chunk(made.repeated(compression, num_bytes), compression, num_bytes) * count


def _lying(path: Path, compression: str, num_bytes: int, says: int) -> Path:
    """A chunk that unpacks to ``num_bytes`` and says another number; of MCAP for zstd, else of ROS 1."""
    packed = made.repeated(compression, num_bytes)
    if compression == "zstd":
        return made.mcap(path / "a.mcap", made.mcap_chunk(packed, compression, says))
    return made.ros1_bag(path / "a.bag", made.ros1_chunk(packed, compression, says))


# What claims, unpacks to or repeats far more than there is; and a word of what is said of it.
BOMBS = {
    "an MCAP chunk of 100 bytes": (lambda p: _lying(p, "zstd", 6 * GIB, 100), "unpacks to more"),
    "an MCAP chunk of 6 GiB": (lambda p: _lying(p, "zstd", 6 * GIB, 6 * GIB), "MD_MAX_CHUNK_BYTES"),
    "many MCAP chunks": (lambda p: made.mcap(p / "a.mcap", many("zstd", 200 * 2**20, 200)), "garbled"),
    "a bz2 chunk of 100 bytes": (lambda p: _lying(p, "bz2", 4 * GIB, 100), "unpacks to more"),
    "an lz4 chunk of 100 bytes": (lambda p: _lying(p, "lz4", GIB, 100), "unpacks to more"),
    "zeros": (lambda p: _lying(p, "lz4", 2**26, 2**26), "garbled"),
    "a million empty messages": (lambda p: _empty_messages(p / "a.bag", 1_000_000), "too many for its size"),
    "many topics": (lambda p: _topics(p / "a.mcap", 65_536), "topics"),
    "a whole file of 20 GiB": (lambda p: folder(p / "a", "a.db3.zstd", made.repeated("zstd", 20 * GIB), "FILE"), "no SQLite recording"),
    "messages of 20 GiB": (lambda p: _packed_messages(p / "a"), "unpacks to more"),
    "a blob of 400 MB": (lambda p: _blob(p / "a.db3"), "MD_MAX_CHUNK_BYTES"),
    "a chunk in a million pieces": (lambda p: _pieces(p / "a.bag", 1_000_000), "too many pieces"),
    "a whole file in a million pieces": (
        lambda p: folder(p / "a", "a.db3.zstd", PIECE * 1_000_000, "FILE"),
        "a.db3.zstd, unpacked, is empty",
    ),
    "many headers that name one index": (lambda p: _headers(p / "a.bag", 10_000), "it has no index"),
    "topics that share their names": (lambda p: made.rows_of_one(p / "a.db3", "topics", 4000, 110), "a record is garbled"),
    "messages that share their pages": (lambda p: made.rows_of_one(p / "a.db3", "messages", 4000, 2500), "each other's pages"),
    "a view without an end": (lambda p: _view(p / "a.db3"), "no plain table messages"),
}


def _empty_messages(path: Path, count: int) -> Path:
    content = IMAGES + EMPTY * count
    return made.ros1_bag(path, made.ros1_chunk(lz4.frame.compress(content), "lz4", len(content)))


def _topics(path: Path, count: int) -> Path:
    return made.mcap(path, *(made.mcap_topic(i, f"/a{i}/image", "sensor_msgs/msg/Image") + made.mcap_message(i, b"") for i in range(count)))


def _pieces(path: Path, count: int) -> Path:
    return made.ros1_bag(path, made.ros1_chunk(lz4.frame.compress(b"") * count, "lz4", 1000))


def _headers(path: Path, count: int) -> Path:
    """Each sends to the same topic of megabytes, whose parts are nothing."""
    topic = made.record({"op": b"\x07", "conn": bytes(4), "topic": b"/a"}, (struct.pack("<I", 1) + b"=") * 800_000)
    index_at = made.ros1_bag(path).stat().st_size
    header = made.record({"op": b"\x03", "index_pos": struct.pack("<Q", index_at)}, b"")
    return made.ros1_bag(path, topic, header * count)


def _packed_messages(path: Path) -> Path:
    messages = [made.mcap_message(1, made.repeated("zstd", 20 * GIB))] * 2
    sound = made.mcap(path.with_name("inner.mcap"), made.mcap_topic(1, "/a/image", "sensor_msgs/msg/Image"), *messages).read_bytes()
    path.with_name("inner.mcap").unlink()
    return folder(path, "a.mcap", sound, "MESSAGE")


def _blob(path: Path) -> Path:
    return made.db3(path, made.TOPICS, made.IMAGE_TOPIC, made.MESSAGES, "INSERT INTO messages VALUES (1, 1, 5, zeroblob(400000000))")


def _view(path: Path) -> Path:
    endless = "WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c)"
    view = f"CREATE VIEW messages AS {endless} SELECT id, 1 AS topic_id, id AS timestamp, zeroblob(1000000) AS data FROM c"
    return made.db3(path, made.TOPICS, made.IMAGE_TOPIC, view)


@pytest.mark.parametrize("name", BOMBS)
def test_a_recording_that_unpacks_to_more_than_there_is_takes_no_memory_and_says_so(name: str, tmp_path: Path) -> None:
    make, said = BOMBS[name]
    path = make(tmp_path)
    listed = run_bounded(["md-data", "from-bag", path, "--list"], cwd=tmp_path)
    require_bounded(listed)
    line = require_refused(run_bounded(["md-data", "from-bag", path, "--out", "out", "--no_split"], cwd=tmp_path), path.name)
    assert said in line or any(said in other for other in listed.lines), (line, listed.lines)
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize(("bits", "colour_type"), [(8, 2), (16, 0), (16, 2)])
def test_an_image_of_more_pixels_than_are_read_is_refused_by_its_header(bits: int, colour_type: int, tmp_path: Path) -> None:
    data = made.png((50_000, 50_000), bits, colour_type, whole=False)
    path = made.ros1_recording(tmp_path / "a.bag", [camera(), bags.compressed(TOPIC, data, bags.START_NS, form="png")])
    line = require_refused(run_bounded(["md-data", "from-bag", path, "--out", "out"], cwd=tmp_path), path.name, "MD_MAX_IMAGE_PIXELS")
    assert "of more than 50,331,648 pixels" in line


@pytest.mark.slow
def test_frames_as_large_as_are_read_stay_within_the_memory(tmp_path: Path) -> None:
    side = isqrt(IMAGE_PIXELS.most) // 2 * 2
    size = (side, side)
    large, grey = made.png(size, 8, 2), made.png(size, 16, 0)
    wide = np.array([[7000.0, 0, 4000], [0, 7200, 4000], [0, 0, 1]])
    messages = [
        bags.camera_info("/c/camera_info", wide, size, D=(0.1, 0.01, 0, 0, 0)),
        bags.camera_info("/depth/camera_info", wide, size, frame_id="depth"),
        bags.static_transform("left_optical", "depth", (0, 0, 0, 1), (0.1, 0, 0)),
        bags.compressed(TOPIC, large, bags.START_NS, form="png"),
        bags.compressed("/depth/image/compressedDepth", grey, bags.START_NS, form="16UC1; compressedDepth png", frame_id="depth"),
    ]
    path = made.ros1_recording(tmp_path / "a.bag", messages)
    outcome = run_bounded(["md-data", "from-bag", path, "--out", "out", "--no_split"], cwd=tmp_path)
    assert outcome.peak_bytes < 2 * GIB
    assert "depth 100%" in "\n".join(outcome.lines)


# What a message may hold instead of a picture; the other frames are converted, and this one is counted and named.
BAD = {
    "no picture": b"x" * 100,
    "a picture that is cut off": bags.jpeg(bags.picture(SIZE))[:300],
    "too many pixels": made.png((50_000, 50_000), 8, 2, whole=False),
    "nothing": b"",
    "a PNG that unpacks to nothing": made.png(SIZE, 8, 2, whole=False),
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_of_bad_content_costs_its_own_frame_alone(name: str, tmp_path: Path) -> None:
    messages = frames()
    messages[1] = bags.compressed(TOPIC, BAD[name], messages[1].log_ns)
    outcome = convert(bags.write_bag(tmp_path, "a", "bag", [camera(), *messages]), tmp_path / "out")
    (report,) = outcome.reports
    assert report.stamps_ns == [message.log_ns for i, message in enumerate(messages) if i != 1]
    ((why, count),) = report.dropped.items()
    assert why.startswith("left frames: ")
    assert count == 1


@pytest.mark.parametrize("fmt", ["db3_message", "mcap_message"])
def test_a_packed_message_that_is_too_large_costs_its_own_frame_alone(fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = frames()
    messages[1] = bags.compressed(TOPIC, np.random.default_rng(0).bytes(60_000), messages[1].log_ns)
    path = bags.write_bag(tmp_path, "a", fmt, [camera(), *messages])
    monkeypatch.setenv(CHUNK_BYTES.variable, "50000")
    (report,) = convert(path, tmp_path / "out").reports
    assert report.stamps_ns == [message.log_ns for i, message in enumerate(messages) if i != 1]
    assert report.dropped == {"left frames: a part of more than 50,000 bytes is left out (MD_MAX_CHUNK_BYTES takes larger ones)": 1}


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), MemoryError(), RecursionError(), InputError("of a kind unknown")])
def test_whatever_decoding_raises_costs_its_own_frame_alone(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataload.bags import convert as conversion

    def failing(topic: object, raw: bytes) -> object:
        if b"stumble" in raw:
            raise error
        return parse(topic, raw)  # type: ignore[arg-type]

    messages = frames()
    messages[1] = bags.compressed(TOPIC, b"stumble", messages[1].log_ns)
    monkeypatch.setattr(conversion, "parse", failing)
    (report,) = convert(bags.write_bag(tmp_path, "a", "bag", [camera(), *messages]), tmp_path / "out").reports
    assert len(report.stamps_ns) == 3
    assert sum(report.dropped.values()) == 1


def test_a_picture_that_is_refused_is_told_from_a_damaged_one() -> None:
    with pytest.raises(BadFrame, match="it holds 1000 pictures, and a frame is one"):
        size_of(bags.parsed(bags.compressed(TOPIC, PICTURES["pages.tif"](), 1, form="tiff")))
    with pytest.raises(BadFrame, match="a side of more than 65,535 pixels"):
        read_png(png_of(8, 1_000_000))


@pytest.mark.parametrize("numbers", [(0, 0, 0), (2**32 - 1, 2**32 - 1, 2**32 - 1), (48, 80, 2**32 - 1), (2**16, 2**16, 1), (48, 10**6, 0)])
def test_an_image_whose_numbers_lie_is_damaged(numbers: tuple[int, int, int]) -> None:
    message = bags.parsed(bags.image("/a", bags.picture(SIZE), "rgb8", 1))
    message.height, message.width, message.step = numbers
    with pytest.raises(BadFrame):
        rows(message, "u1", 3)
    with pytest.raises(BadFrame):
        decode(message, "/a")


def test_a_cloud_whose_numbers_lie_is_damaged() -> None:
    sound = bags.cloud("/p", np.ones((20, 3)), 1)
    for name, value in (("point_step", 0), ("row_step", 2**32 - 1), ("width", 2**32 - 1), ("height", 2**32 - 1), ("point_step", 2**32 - 1)):
        message = bags.parsed(sound)
        setattr(message, name, value)
        with pytest.raises(BadFrame):
            points.xyz_of(message, "/p")
    fields = [{"name": "x", "offset": 0, "datatype": 7, "count": 1}] * 5000
    raw = bags.serialised(sound._replace(fields=sound.fields | {"fields": fields}))
    from dataload.bags.formats.container import CDR, Topic

    with pytest.raises(Damage, match="a message is garbled"):
        parse(Topic("/p", sound.msgtype, CDR), raw)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1e308, 0.0])
@pytest.mark.parametrize("field", ["k", "p", "r", "d"])
def test_a_camera_of_wild_numbers_is_refused_or_read_as_finite_ones(value: float, field: str, recwarn: pytest.WarningsRecorder) -> None:
    message = bags.parsed(camera(D=(0.1, 0, 0, 0, 0)))
    setattr(message, field, np.full_like(getattr(message, field), value))
    with suppress(InputError):
        found = camera_info.from_message(message, topic="/c/camera_info", image_topic=TOPIC, size_px=SIZE, frame_id="a")
        assert np.isfinite(found.P).all()
        assert np.isfinite(found.intrinsics.fx_px)
    assert not recwarn.list


def test_transforms_in_a_circle_without_end_or_without_numbers_are_left_out() -> None:
    circle = [bags.parsed(bags.static_transform(a, b, (0, 0, 0, 1), (1, 0, 0))) for a, b in ("ab", "bc", "ca", "aa")]
    wild = bags.parsed(bags.static_transform("c", "d", (np.nan, 0, 0, 1), (np.inf, 0, 0)))
    tree = tree_of([*circle, wild])
    assert between(tree, "a", "d") is None
    assert between(tree, "a", "c") is not None
    one = bags.static_transform("a", "b", (0, 0, 0, 1), (1, 0, 0)).fields["transforms"][0]
    many_frames = [one | {"child_frame_id": f"f{i}"} for i in range(MOST_TRANSFORMS + 1)]
    message = bags.Msg("/tf_static", bags.TRANSFORMS, {"transforms": many_frames}, 1)
    with pytest.raises(InputError, match="more than 10,000 transforms"):
        tree_of([bags.parsed(message)])
    with pytest.raises(Damage, match="garbled"):  # of more bytes than transforms have
        bags.parsed(message._replace(fields={"transforms": many_frames * 3}))


def test_compressed_depth_of_any_header_is_read_or_damaged(recwarn: pytest.WarningsRecorder) -> None:
    png = bags.png(np.full(SIZE, 500, np.uint16))
    for config in (b"\xff" * 12, struct.pack("<iff", 0, float("nan"), float("inf")), struct.pack("<iff", 0, 3e38, -3e38)):
        message = bags.parsed(bags.compressed("/d", config + png, 1, form="32FC1; compressedDepth png"))
        assert depth.levels(depth.decode(message, "/d")).shape == SIZE
        assert depth.size_of(message, "/d") == SIZE
    bomb = struct.pack("<iff", 0, 1, 1) + made.png((50_000, 50_000), 16, 0, whole=False)
    with pytest.raises(BadFrame, match="pixels"):
        depth.decode(bags.parsed(bags.compressed("/d", bomb, 1, form="16UC1; compressedDepth png")), "/d")
    assert not recwarn.list


@pytest.mark.parametrize("log_ns", [2**64 - 1, 2**63])
def test_messages_of_times_that_no_clock_shows_are_left_out_and_said(log_ns: int, tmp_path: Path) -> None:
    sound = [bags.serialised(message) for message in (camera(), *frames())]
    unstamped = bags.serialised(bags.compressed(TOPIC, bags.jpeg(bags.picture(SIZE)), 0))
    topics = made.mcap_topic(0, "/c/camera_info", "sensor_msgs/msg/CameraInfo") + made.mcap_topic(
        1, TOPIC, "sensor_msgs/msg/CompressedImage"
    )
    messages = [made.mcap_message(min(i, 1), raw, bags.START_NS + i) for i, raw in enumerate(sound)]
    path = made.mcap(tmp_path / "a.mcap", topics, *messages, made.mcap_message(1, unstamped, log_ns))
    (report,) = convert(path, tmp_path / "out").reports
    assert len(report.stamps_ns) == 4
    assert report.damage == "1 messages are of no time that a clock shows"


COMPUTED = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INT, timestamp INT, data AS (zeroblob(900000000)))"
TOPIC_VIEW = "CREATE VIEW topics AS SELECT 1 id, '/x' name, 'sensor_msgs/msg/Image' type, 'cdr' serialization_format"
TABLES = {
    "computed": (made.TOPICS, made.IMAGE_TOPIC, COMPUTED),
    "virtual": (made.TOPICS, made.IMAGE_TOPIC, "CREATE VIRTUAL TABLE messages USING fts5(topic_id, timestamp, data)"),
    "view": (made.MESSAGES, TOPIC_VIEW),
    "columns": (made.TOPICS, "CREATE TABLE messages(id INTEGER PRIMARY KEY)"),
    "none": ("CREATE TABLE other(id)",),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_database_of_other_than_plain_tables_is_refused_and_nothing_in_it_runs(name: str, tmp_path: Path) -> None:
    path = made.db3(tmp_path / "a.db3", *TABLES[name])
    with pytest.raises(InputError, match=r"a\.db3 is not a ROS 2 recording .*it has no plain table"):
        Bag(path)


def test_a_database_whose_values_are_of_other_types_is_damaged_not_a_crash(tmp_path: Path) -> None:
    rows_of = ["(1, 1, NULL, x'00')", "(2, 'a', 5, x'00')", "(3, 1, 'x', 'y')"]
    path = made.db3(
        tmp_path / "a.db3", made.TOPICS, made.IMAGE_TOPIC, made.MESSAGES, *(f"INSERT INTO messages VALUES {r}" for r in rows_of)
    )
    with Bag(path) as bag:
        assert bag.scan().damage


INFORMATION = "rosbag2_bagfile_information:"


@pytest.mark.parametrize(
    "text", ["a: &a [x]\nb: " + "[*a," * 500, "[" * 5000, f"{INFORMATION} 5", f"{INFORMATION} {{relative_file_paths: [[1]]}}"]
)
def test_a_description_of_any_content_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(InputError, match=r"metadata\.yaml .*name its \.db3 or \.mcap file instead of the folder"):
        find_files(tmp_path)


def test_names_in_a_recording_reach_no_terminal(tmp_path: Path) -> None:
    name = "/a\x1b[2J\n/image"
    path = made.mcap(tmp_path / "a.mcap", made.mcap_topic(1, name, "sensor_msgs/msg/Image"), made.mcap_message(1, b"x"))
    outcome = run_bounded(["md-data", "from-bag", path, "--list"], cwd=tmp_path)
    assert "\x1b" not in "".join(outcome.lines)
    assert any(r"/a\x1b[2J\n/image" in line for line in outcome.lines)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["a.bag", "a.mcap", "a.db3"])
def test_a_pipe_in_the_place_of_a_recording_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe, not a recording"):
        Bag(tmp_path / name)


def test_a_size_is_known_without_decoding() -> None:
    message = bags.parsed(bags.compressed(TOPIC, made.png((7000, 7000), 8, 2, whole=False), 1, form="png"))
    assert size_of(message) == (7000, 7000)
