"""What the first bytes of a JPEG or PNG file say of the picture in it; a few microseconds, where decoding takes milliseconds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from dataload.frames.tiff_directory import Directories

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# SOF of baseline, extended and progressive Huffman coding; the others are lossless, hierarchical or arithmetic.
JPEG_FRAMES, OTHER_JPEG_FRAMES = (0xC0, 0xC1, 0xC2), (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
PROGRESSIVE = 0xC2
JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xDA))
START_OF_SCAN, APP1, APP14 = 0xDA, 0xE1, 0xEE
EXIF_START, ADOBE_START = b"Exif\0\0", b"Adobe"
# Of PNG's colour types: grey, palette, grey with alpha; the others are RGB.
GREY_TYPES = (0, 4)
PNG_EDGE_BYTES = 12  # length, name and checksum of a chunk
ORIENTATION_TAG, BYTE_ORDERS = 0x0112, (b"II", b"MM")
# Far more than programs write: a colour profile takes up to 255 segments.
MAX_SEGMENTS, MAX_FIELDS = 4096, 4096
UPRIGHT, TURNED, SIDEWAYS = 1, range(2, 9), range(5, 9)


class Header(NamedTuple):
    """What a file says of its picture.

    Attributes:
        size_px: (height, width) as stored.
        bits: per channel.
        orientation: EXIF's, 1 (upright) to 8.
        is_common: a kind that all decoders read alike, but for the orientation, which they leave out.
        is_progressive: a JPEG that comes in several scans, each of which goes through the whole picture.
    """

    size_px: tuple[int, int]
    bits: int
    is_grey: bool
    orientation: int
    is_common: bool
    is_progressive: bool = False

    @property
    def upright_size_px(self) -> tuple[int, int]:
        """(height, width) of the picture as it is seen."""
        return (self.size_px[1], self.size_px[0]) if self.orientation in SIDEWAYS else self.size_px


def read_header(head: bytes) -> Header | None:
    """The header in a file's first bytes; None where they hold none whole, of either format."""
    try:
        if head.startswith(JPEG_START):
            return _jpeg_header(head)
        return _png_header(head) if head.startswith(PNG_START) else None
    except (struct.error, IndexError):  # the bytes end within it
        return None


def exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where it has none, or none that can be read. Its other fields are skipped."""
    data, value = exif.removeprefix(EXIF_START), UPRIGHT
    if not data.startswith(BYTE_ORDERS):
        return UPRIGHT
    directories = Directories(data)
    with suppress(struct.error):  # cut off
        for field in islice(directories.fields(directories.start()), MAX_FIELDS):
            if field.tag == ORIENTATION_TAG and not field.elsewhere_bytes:
                value = field.value
    return value if value in TURNED else UPRIGHT


class Segment(NamedTuple):
    """A segment of a JPEG before its pixels: its content goes from ``start`` to ``end``; ``begin`` is where its marker stands."""

    marker: int
    begin: int
    start: int
    end: int


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG, up to the start of its pixels, which is the last one, or to bytes that are no segment.

    Raises:
        struct.error, IndexError: the bytes end within it.
    """
    place = len(JPEG_START)
    for _ in range(MAX_SEGMENTS):
        begin = place
        while data[place] == data[place + 1] == 0xFF:  # padding
            place += 1
        marker = data[place + 1]
        if data[place] != 0xFF or marker in JPEG_WITHOUT_LENGTH:
            return
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        yield Segment(marker, begin, place + 4, end)
        if marker == START_OF_SCAN:
            return
        place = end


def _jpeg_header(head: bytes) -> Header | None:
    exif, transform = b"", None
    found: Header | None = None
    for marker, _, start, end in jpeg_segments(head):
        if marker == START_OF_SCAN:
            return None if found is None else found._replace(orientation=exif_orientation(exif))
        if marker in JPEG_FRAMES or marker in OTHER_JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", head, start)
            names = bytes(head[start + 6 + 3 * channel] for channel in range(channels))
            is_common = marker in JPEG_FRAMES and bits == 8 and channels in (1, 3) and 0 not in (height, width)
            # Colours that are stored as RGB are a matter of taste to decoders.
            is_common = is_common and transform != 0 and names != b"RGB"
            found = Header((height, width), bits, channels == 1, UPRIGHT, is_common, marker == PROGRESSIVE)
        elif marker == APP1 and end <= len(head) and head.startswith(EXIF_START, start):
            exif = head[start:end]
        elif marker == APP14 and head.startswith(ADOBE_START, start):
            transform = head[start + 11]
    # Bytes between the parts are skipped by some decoders and refused by others.
    return None if found is None else found._replace(is_common=False, orientation=exif_orientation(exif))


def _png_header(head: bytes) -> Header | None:
    width, height, bits, colour = struct.unpack_from(">IIBB", head, len(PNG_START) + 8)
    exif, is_common, place = b"", bits <= 8 and 0 not in (height, width), len(PNG_START)
    for _ in range(MAX_SEGMENTS):
        name = head[place + 4 : place + 8]
        if name == b"IDAT":
            return Header((height, width), bits, colour in GREY_TYPES, exif_orientation(exif), is_common)
        (length,) = struct.unpack_from(">I", head, place)
        end = place + PNG_EDGE_BYTES + length
        if end > len(head):
            return None
        # Some decoders skip a damaged text chunk and some do not; with acTL it is an animation.
        is_common = is_common and name != b"acTL" and chunk_is_whole(head, place, length)
        if name == b"eXIf":
            exif = head[place + 8 : end - 4]
        place = end
    return None


def chunk_is_whole(data: bytes, place: int, length: int) -> bool:
    """Whether the checksum of a PNG's chunk, which begins at ``place``, fits its bytes."""
    end = place + 8 + length
    return end + 4 <= len(data) and zlib.crc32(memoryview(data)[place + 4 : end]) == struct.unpack_from(">I", data, end)[0]


def png_fault(data: bytes) -> str:
    """Which chunk of a whole PNG file is damaged, from the first to its end; empty where none is."""
    place = len(PNG_START)
    while place + PNG_EDGE_BYTES <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name = data[place + 4 : place + 8].decode("latin-1")
        if not chunk_is_whole(data, place, length):
            return f"its chunk {name!r} does not fit its checksum"
        if name == "IEND":
            return ""
        place += PNG_EDGE_BYTES + length
    return "it is cut off"


def late_png_orientation(data: bytes) -> int:
    """The orientation that a whole PNG file says behind its pixels, where some programs add it."""
    place = data.rfind(b"eXIf")
    return UPRIGHT if place < 0 else exif_orientation(EXIF_START + data[place + 4 :])
