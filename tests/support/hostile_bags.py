"""Recordings that claim or unpack to more than there is, written byte by byte: rosbags' writers make only sound ones."""

import bz2
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import apsw
import bags
import lz4.frame

ZSTD_MAGIC = bytes.fromhex("28b52ffd")
ZSTD_BLOCK, ZSTD_WINDOW = 2**17, 0x38  # bytes of a repeated letter that a block can stand for; a window of that size
BZ2_STEP = 2**26


def record(header: dict[str, bytes], data: bytes) -> bytes:
    """A record of a ROS 1 recording."""
    fields = b"".join(struct.pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value for name, value in header.items())
    return struct.pack("<I", len(fields)) + fields + struct.pack("<I", len(data)) + data


def ros1_bag(path: Path, *records: bytes, index_at: int = 0) -> Path:
    """A ``.bag`` of records behind its own header."""
    head = record({"op": b"\x03", "index_pos": struct.pack("<Q", index_at), "conn_count": bytes(4), "chunk_count": bytes(4)}, b" " * 4000)
    path.write_bytes(b"#ROSBAG V2.0\n" + head + b"".join(records))
    return path


def ros1_chunk(packed: bytes, compression: str, says: int) -> bytes:
    """A chunk that says that it unpacks to so many bytes."""
    return record({"op": b"\x05", "compression": compression.encode(), "size": struct.pack("<I", says)}, packed)


def ros1_topic(number: int, name: str, msgtype: str) -> bytes:
    connection = {"topic": name.encode(), "type": msgtype.replace("/msg/", "/").encode(), "md5sum": b"*", "message_definition": b""}
    fields = b"".join(struct.pack("<I", len(key) + 1 + len(value)) + key.encode() + b"=" + value for key, value in connection.items())
    return record({"op": b"\x07", "conn": struct.pack("<I", number), "topic": name.encode()}, fields)


def ros1_message(number: int, data: bytes, log_ns: int = bags.START_NS) -> bytes:
    time = struct.pack("<II", log_ns // 10**9, log_ns % 10**9)
    return record({"op": b"\x02", "conn": struct.pack("<I", number), "time": time}, data)


def mcap(path: Path, *records: bytes, ended: bool = True) -> Path:
    """An ``.mcap`` of records."""
    magic = b"\x89MCAP0\r\n"
    path.write_bytes(magic + b"".join(records) + (mcap_record(15, bytes(4)) + magic if ended else b""))
    return path


def mcap_record(op: int, content: bytes, says: int | None = None) -> bytes:
    return struct.pack("<BQ", op, len(content) if says is None else says) + content


def mcap_chunk(packed: bytes, compression: str, says: int) -> bytes:
    head = struct.pack("<QQQII", 0, 0, says, 0, len(compression)) + compression.encode()
    return mcap_record(6, head + struct.pack("<Q", len(packed)) + packed)


def mcap_topic(number: int, name: str, msgtype: str) -> bytes:
    """A channel with its schema."""
    schema = struct.pack("<H", number) + _text(msgtype) + _text("ros2msg") + _text("")
    channel = struct.pack("<HH", number, number) + _text(name) + _text("cdr") + struct.pack("<I", 0)
    return mcap_record(3, schema) + mcap_record(4, channel)


def mcap_message(number: int, data: bytes, log_ns: int = bags.START_NS) -> bytes:
    return mcap_record(5, struct.pack("<HIQQ", number, 0, log_ns, log_ns) + data)


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def repeated(compression: str, num_bytes: int, letter: bytes = b"\0") -> bytes:
    """What unpacks to so many letters, made without them: zstd says how often one stands there, the others repeat a whole part."""
    if compression == "zstd":
        blocks = [struct.pack("<I", (ZSTD_BLOCK << 3) | 2)[:3] + letter for _ in range(num_bytes // ZSTD_BLOCK)]
        left = num_bytes % ZSTD_BLOCK
        return ZSTD_MAGIC + bytes([0, ZSTD_WINDOW]) + b"".join(blocks) + struct.pack("<I", (left << 3) | 3)[:3] + letter
    pack = bz2.compress if compression == "bz2" else lz4.frame.compress
    whole = pack(letter * min(num_bytes, BZ2_STEP))
    return whole * max(1, num_bytes // BZ2_STEP)


def db3(path: Path, *statements: str) -> Path:
    """A ``.db3`` that statements of SQL have made."""
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


PAGE_BYTES = 8192


def rows_of_one(path: Path, table: str, num_rows: int, num_pages: int) -> Path:
    """A ``.db3`` whose ``topics`` or ``messages`` all lie in the same pages: a name, or notes before the message, of so many."""
    others = [MESSAGES] if table == "topics" else [TOPICS, IMAGE_TOPIC]
    notes = "CREATE TABLE messages(id INTEGER PRIMARY KEY, notes BLOB, topic_id INTEGER, timestamp INTEGER, data BLOB)"
    db3(path, f"PRAGMA page_size={PAGE_BYTES}", *others[:1], TOPICS if table == "topics" else notes, *others[1:])
    pages = [path.read_bytes()[at : at + PAGE_BYTES] for at in range(0, path.stat().st_size, PAGE_BYTES)]
    # What stands in the row itself of a record that fills further pages.
    in_row, step = (PAGE_BYTES - 12) * 32 // 255 - 23, PAGE_BYTES - 4
    long, after = num_pages * step + in_row, b"ab" if table == "topics" else b"\1\2" + bytes(12)
    for _ in range(2):  # with what else the record holds, it is as long as that
        # A record is the length of its head, the kinds of its columns, their values; the row's number stands apart.
        kinds = (0, 13 + 2 * long, 15, 15) if table == "topics" else (0, 12 + 2 * long, 1, 1, 36)
        head = b"".join(map(_varint, kinds))
        record = bytes([1 + len(head)]) + head + b"a" * long + after
        long -= len(record) - num_pages * step - in_row
    chain = [record[at : at + step] for at in range(in_row, len(record), step)]
    first = len(pages) + 1
    pages += [struct.pack(">I", first + n if n < len(chain) else 0) + part for n, part in enumerate(chain, start=1)]
    cells = [_varint(len(record)) + _varint(row) + record[:in_row] + struct.pack(">I", first) for row in range(1, num_rows + 1)]
    in_page = (PAGE_BYTES - 8) // (len(cells[-1]) + 2)
    below = []
    for row in range(0, num_rows, in_page):
        pages.append(_page(13, cells[row : row + in_page]))
        below.append(struct.pack(">I", len(pages)) + _varint(min(row + in_page, num_rows)))
    # The second table's root; the last page below it stands in its head.
    pages[2] = _page(5, below[:-1], below[-1][:4])
    whole = bytearray(b"".join(page.ljust(PAGE_BYTES, b"\0") for page in pages))
    whole[28:32] = struct.pack(">I", len(pages))
    path.write_bytes(whole)
    return path


def _page(kind: int, cells: Sequence[bytes], last: bytes = b"") -> bytes:
    """A page of SQLite's trees: 13 with rows, 5 with the pages below."""
    ends = [PAGE_BYTES - sum(map(len, cells[: n + 1])) for n in range(len(cells))]
    head = struct.pack(">BHHHB", kind, 0, len(cells), ends[-1], 0) + last + b"".join(struct.pack(">H", end) for end in ends)
    return head.ljust(ends[-1], b"\0") + b"".join(reversed(cells))


def _varint(number: int) -> bytes:
    """A number in SQLite's form: seven bits per byte, the highest first."""
    parts = [number & 127]
    while number := number >> 7:
        parts.append(128 | number & 127)
    return bytes(reversed(parts))


TOPICS = "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, offered_qos_profiles TEXT)"
MESSAGES = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
IMAGE_TOPIC = "INSERT INTO topics VALUES (1, '/left/image', 'sensor_msgs/msg/Image', 'cdr', '')"


def ros1_recording(path: Path, messages: Sequence[bags.Msg]) -> Path:
    """A ``.bag`` of messages without compression, as ``bags.write_bag`` makes one, but in one chunk and without an index."""
    numbers = {topic: number for number, topic in enumerate(dict.fromkeys((m.topic, m.msgtype) for m in messages))}
    inner = [ros1_topic(number, *topic) for topic, number in numbers.items()]
    inner += [ros1_message(numbers[m.topic, m.msgtype], bags.serialised(m, ros1=True), m.log_ns) for m in messages]
    content = b"".join(inner)
    return ros1_bag(path, ros1_chunk(content, "none", len(content)))


def png(size_px: tuple[int, int], bits: int, colour_type: int, *, whole: bool = True) -> bytes:
    """A PNG of that (height, width) whose pixels are all one value; without ``whole`` only its header says so."""
    height, width = size_px
    row = b"\0" + b"\1" * ((width * bits * {0: 1, 2: 3, 6: 4}[colour_type] + 7) // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush() if whole else b""
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    chunks = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
