"""The file of a frame store: what is written is read back, and no damage goes unseen."""

import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.store.file import ALIGNMENT, MAGIC, PREFIX, RECORD, VERSION, Layout, StoreFault, StoreFile, StoreKey, required_bytes

KEY = StoreKey("kitti", "/data/kitti", (64, 96), "pillow", [f"a/{number:010d}.jpg" for number in range(5)])
LAYOUT = Layout.of(KEY, len(KEY.to_json()))
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)
SOURCES = [(1000 + row, 1_700_000_000_000_000_000 + row) for row in range(5)]


def write(path: Path, rows: range = range(5)) -> Path:
    file = StoreFile.create(path, KEY)
    for row in rows:
        file.write(row, FRAMES[row], SOURCES[row])
    file.sync()
    file.close()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("store") / "a.frames").read_bytes()


def damaged_rows(path: Path) -> list[int]:
    """The rows that are not what was written: by their checksum, or by the source that the record names."""
    file, out = StoreFile(path), np.empty((64, 96, 3), np.uint8)
    made_of = [(int(record["bytes"]), int(record["mtime_ns"])) for record in file.records]
    bad = [row for row in range(5) if not file.read(row, out) or not np.array_equal(out, FRAMES[row]) or made_of[row] != SOURCES[row]]
    file.close()
    return bad


def test_what_is_written_is_read_back(tmp_path) -> None:
    path = write(tmp_path / "a.frames")
    assert path.stat().st_size == required_bytes(KEY) == LAYOUT.end
    file = StoreFile(path)
    assert file.key == KEY
    assert [(int(record["bytes"]), int(record["mtime_ns"])) for record in file.records] == SOURCES
    out = np.empty((64, 96, 3), np.uint8)
    for row in (4, 0, 2, 1, 3):
        assert file.read(row, out)
        assert np.array_equal(out, FRAMES[row])
    file.close()
    with pytest.raises(AssertionError, match="the file has been closed"):
        file.read(0, out)
    file.close()


def test_the_parts_lie_where_the_format_says(whole) -> None:
    magic, version, header_bytes, checksum = PREFIX.unpack(whole[: PREFIX.size])
    assert (magic, version) == (MAGIC, VERSION)
    header = whole[PREFIX.size : PREFIX.size + header_bytes]
    assert checksum == xxhash.xxh3_64_intdigest(header)
    assert StoreKey.from_json(header) == KEY
    assert LAYOUT.records % ALIGNMENT == LAYOUT.frames % ALIGNMENT == 0
    assert PREFIX.size + header_bytes <= LAYOUT.records
    assert LAYOUT.frames - LAYOUT.records >= 5 * RECORD.itemsize
    records = np.frombuffer(whole, RECORD, 5, LAYOUT.records)
    assert records["checksum"].tolist() == [xxhash.xxh3_64_intdigest(frame.tobytes()) for frame in FRAMES]
    assert np.array_equal(np.frombuffer(whole, np.uint8, offset=LAYOUT.frames).reshape(FRAMES.shape), FRAMES)


def test_a_new_file_holds_no_frame_and_takes_no_room(tmp_path) -> None:
    file = StoreFile.create(tmp_path / "a.frames", KEY)
    assert not file.records["bytes"].any()
    assert not any(file.read(row, np.empty((64, 96, 3), np.uint8)) for row in range(5))
    empty = file.taken_bytes()
    assert empty < required_bytes(KEY) - 4 * KEY.frame_bytes
    file.write(3, FRAMES[3], SOURCES[3])
    file.sync()
    assert file.taken_bytes() >= empty + KEY.frame_bytes
    file.close()
    assert damaged_rows(tmp_path / "a.frames") == [0, 1, 2, 4]


def test_a_frame_may_be_written_over(tmp_path) -> None:
    path = write(tmp_path / "a.frames")
    file = StoreFile(path, writable=True)
    file.write(1, FRAMES[0], SOURCES[1])
    file.close()
    assert damaged_rows(path) == [1]
    out = np.empty((64, 96, 3), np.uint8)
    file = StoreFile(path)
    assert file.read(1, out)
    assert np.array_equal(out, FRAMES[0])
    file.close()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda data: b"", "is no frame store"),
        (lambda data: data[: PREFIX.size - 1], "is no frame store"),
        (lambda data: bytes(range(256)) * 100, "is no frame store"),
        (lambda data: b"PK" + data[2:], "is no frame store"),
        (lambda data: data[:8] + (VERSION + 1).to_bytes(8, "little") + data[16:], f"is of version {VERSION + 1}, not {VERSION}"),
        (lambda data: data[: PREFIX.size], "has a damaged header"),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], "has a damaged header"),
        (lambda data: data[: LAYOUT.records], f"is cut off: {LAYOUT.records} bytes of {LAYOUT.end}"),
        (lambda data: data[:-1], f"is cut off: {LAYOUT.end - 1} bytes of {LAYOUT.end}"),
        (lambda data: data + b"\0", "is longer than it should be"),
    ],
)
def test_no_store_another_version_damaged_cut_off_or_too_long(tmp_path, whole, part, reason) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(part(whole))
    for writable in (False, True):
        with pytest.raises(StoreFault) as fault:
            StoreFile(path, writable=writable)
        assert str(fault.value) == reason


def test_a_refused_file_is_not_left_open(tmp_path) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(b"garbage")
    before = os.dup(0)
    os.close(before)
    with pytest.raises(StoreFault):
        StoreFile(path)
    after = os.dup(0)
    os.close(after)
    assert after == before


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(0, PREFIX.size + len(KEY.to_json()) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_seen(tmp_path_factory, whole, offset, bit) -> None:
    data = bytearray(whole)
    data[offset] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "header.frames"
    path.write_bytes(data)
    with pytest.raises(StoreFault):
        StoreFile(path)


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(0, 5 * RECORD.itemsize - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_record_spoils_its_frame_alone(tmp_path_factory, whole, offset, bit) -> None:
    data = bytearray(whole)
    data[LAYOUT.records + offset] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "record.frames"
    path.write_bytes(data)
    assert damaged_rows(path) == [offset // RECORD.itemsize]


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(0, FRAMES.size - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_frame_spoils_it_alone(tmp_path_factory, whole, offset, bit) -> None:
    data = bytearray(whole)
    data[LAYOUT.frames + offset] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "frame.frames"
    path.write_bytes(data)
    file = StoreFile(path)
    assert [row for row in range(5) if not file.read(row, np.empty((64, 96, 3), np.uint8))] == [offset // KEY.frame_bytes]
    file.close()


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "kitti_odom"},
        {"data_path": "/data/kitti2"},
        {"size_px": (96, 64)},
        {"size_px": (64, 128)},
        {"made_by": "dali-gpu"},
        {"names": KEY.names[:-1]},
        {"names": KEY.names[::-1]},
        {"names": [*KEY.names[:-1], "a/0000000009.jpg"]},
    ],
)
def test_the_name_tells_keys_apart(other) -> None:
    assert KEY._replace(**other).file_name != KEY.file_name
    assert KEY._replace(**other).to_json() != KEY.to_json()


def test_the_name_can_be_read_and_does_not_change() -> None:
    # Another name for the same frames would have every store made anew.
    assert KEY.file_name == "kitti-96x64-9c63576ee29c.frames"
    assert KEY._replace(size_px=(192, 640)).file_name.startswith("kitti-640x192-")
    assert StoreKey.from_json(KEY.to_json()) == KEY


@pytest.mark.parametrize("header", [b"no JSON", b"[1, 2]", b"{}", b'{"size_px": 3}', b'{"size_px": [64, 96], "names": 3}', b"[" * 10**5])
def test_a_header_of_something_else_is_no_store(tmp_path, header) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(PREFIX.pack(MAGIC, VERSION, len(header), xxhash.xxh3_64_intdigest(header)) + header + bytes(10**4))
    with pytest.raises(StoreFault, match="has a header that is none of ours"):
        StoreFile(path)


def test_a_header_of_absurd_length_is_not_read(tmp_path) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(PREFIX.pack(MAGIC, VERSION, 2**62, 0))
    os.truncate(path, 2**42)
    with pytest.raises(StoreFault, match="has a damaged header"):
        StoreFile(path)


@pytest.mark.parametrize("dataset", ["package.module:Class", "a/b", 'what?*"<|>\\', "kitti_odom"])
def test_a_name_that_every_disk_takes(dataset: str) -> None:
    name = KEY._replace(dataset=dataset).file_name
    assert re.fullmatch(r"[\w.-]+-96x64-[0-9a-f]{12}\.frames", name)
    assert (name.startswith(f"{dataset}-")) == (dataset == "kitti_odom")
    assert name != KEY.file_name


@pytest.mark.parametrize("size_px", ["[Infinity,8]", "[1e400,8]", "[-1,8]", "[0,8]", "[1048576,1048576]", '["a",8]', "8", "[[],[]]"])
@pytest.mark.parametrize("names", ["[]", "[1]", '{"a":1}', "[" * 900 + "]" * 900, "null"])
def test_a_header_of_any_content_is_a_fault(size_px: str, names: str, tmp_path: Path) -> None:
    header = f'{{"dataset":"demo","data_path":"/x","size_px":{size_px},"made_by":"t","names":{names}}}'.encode()
    path = tmp_path / "a.frames"
    path.write_bytes(PREFIX.pack(MAGIC, VERSION, len(header), xxhash.xxh3_64_intdigest(header)) + header)
    with pytest.raises(StoreFault, match="none of ours"):
        StoreFile(path)


def test_a_header_of_brackets_is_not_made_into_objects(tmp_path: Path) -> None:
    header = b"[" + b"[]," * 2_000_000 + b"[]]"
    path = tmp_path / "a.frames"
    path.write_bytes(PREFIX.pack(MAGIC, VERSION, len(header), xxhash.xxh3_64_intdigest(header)) + header)
    tracemalloc.start()
    with pytest.raises(StoreFault, match="none of ours"):
        StoreFile(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(header)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_place_of_a_store_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.frames")
    with pytest.raises(StoreFault, match="is no file"):
        StoreFile(tmp_path / "a.frames")
