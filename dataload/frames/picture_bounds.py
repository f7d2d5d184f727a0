"""What an image file asks of its decoder, found by walking its parts before one sees it: a file of a few bytes may ask for anything.

Decoders make room for the size that a header claims, read each field of a directory that a field points to as often as it says, go
through a JPEG's picture once per scan, and collect comments without end. Whatever is refused here is far from what cameras and programs
write.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice

from PIL import Image

from dataload.frames.picture_header import (
    APP1,
    APP14,
    EXIF_START,
    JPEG_START,
    MAX_FIELDS,
    MAX_SEGMENTS,
    PNG_EDGE_BYTES,
    PNG_START,
    START_OF_SCAN,
    jpeg_segments,
)
from dataload.frames.tiff_directory import Directories
from splits.errors import InputError
from splits.faults import said_of
from splits.limits import IMAGE_PIXELS

# Formats that hold one picture and no program; Pillow's others are for printing, run an interpreter, or know no bounds (JPEG 2000).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
SMALLER = f"save it smaller, or set {IMAGE_PIXELS.variable} to more"
# Four channels of 16 bits, uncompressed.
MOST_BYTES_PER_PIXEL = 8
# Progressive JPEGs have about ten scans; each goes through the whole picture.
MAX_SCANS = 64
# No camera has a longer side, and resizing strips of a picture takes far more than their pixels.
MAX_SIDE_PX = 2**16 - 1
# Pillow reads these pixel by pixel in Python: numbers as text, values up to another number than 255, and runs.
MAX_SLOW_PIXELS = 2**22
# A picture of 50 million pixels in pieces of 1 KiB has fewer.
MAX_PARTS = 2**18
MAX_COMMENT_BYTES = 2**16
# The directories of a TIFF that Pillow reads with the first: EXIF's, of places, of the camera's maker, of exchange.
DIRECTORY_TAGS = (0x8769, 0x8825, 0x927C, 0xA005)
TILE_TAGS = (0x0142, 0x0143)
MAX_PAGES = 1000
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GIF_STARTS = (b"GIF87a", b"GIF89a")
PPM_START = re.compile(rb"P[0-6fy]")
SCAN_START = bytes([0xFF, START_OF_SCAN])
APP15, COMMENT = 0xEF, 0xFE
HEAD_BYTES = 4096
RUN_LENGTHS = (1, 2)  # BMP's compressions

# What Pillow finds odd is either read all the same, or refused with a message of our own.
QUIET = ("ignore", None, Warning, re.compile(r"PIL\..*"), 0)


class Refusal(ValueError):
    """Why a file that is not damaged is not read, and the remedy."""


@contextmanager
def named_picture(name: object, remedy: str) -> Iterator[None]:
    """The boundary of what decodes a picture: whatever its content raises in the block becomes one line that calls it ``name``.

    Raises:
        InputError: it is refused, or damaged; then ``remedy`` says what to do.
    """
    try:
        yield
    except InputError:
        raise
    except Refusal as refusal:
        raise InputError(f"{name} cannot be read as an image: {refusal}") from refusal
    except Exception as error:  # decoders raise anything of damage
        raise InputError(f"{name} is a damaged image ({said_of(error)}); {remedy}") from error


def most_bytes() -> int:
    """The most bytes of an image file."""
    return MOST_BYTES_PER_PIXEL * IMAGE_PIXELS.most


def require_pixels(size_px: tuple[int, int]) -> None:
    """``Refusal`` where a picture of (height, width) has more pixels, or a longer side, than are read."""
    height, width = size_px
    if max(size_px) > MAX_SIDE_PX:
        raise Refusal(f"a side of more than {MAX_SIDE_PX:,} pixels is not read, and it has {width:,} x {height:,}; cut it up")
    if height * width > IMAGE_PIXELS.most:
        raise Refusal(f"more than {IMAGE_PIXELS.most:,} pixels are not read, and it has {width:,} x {height:,}; {SMALLER}")


@contextmanager
def open_picture(data: bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """The picture of a file's bytes as Pillow opens it, not decoded yet, once nothing in it asks for more than pictures need.

    Raises:
        Refusal: it is too large, holds several pictures, or asks for more than any picture needs.
        Exception: whatever Pillow raises of damage, in the block too.
    """
    require_modest(data)
    if data.startswith(JPEG_START):
        data = _without_notes(data)
    _let_pillow_read(IMAGE_PIXELS.most)
    quieten_pillow()
    try:
        opened = Image.open(BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise Refusal(f"more than {IMAGE_PIXELS.most:,} pixels are not read; {SMALLER}") from error
    with opened as image:
        require_pixels((image.height, image.width))
        yield image


def quieten_pillow() -> None:
    """Keep Pillow's warnings off the terminal, in the filters that are in force now."""
    if QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=QUIET[3].pattern)


def _let_pillow_read(pixels: int) -> None:
    """Where the user has set the limit above Pillow's own, theirs counts."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def require_modest(data: bytes) -> None:
    """``Refusal`` where a file of any format asks for more than its picture needs, by the bytes alone."""
    if data.startswith(JPEG_START):
        require_few_scans(data)
    elif data.startswith(PNG_START):
        _walk_png(data)
    elif data.startswith(TIFF_STARTS):
        _walk_tiff(data)
    elif data.startswith(GIF_STARTS):
        _walk_gif(data)
    elif PPM_START.match(data):
        _require_quick_ppm(data)
    elif data.startswith(b"BM"):
        _require_quick_bmp(data)


def require_few_scans(data: bytes) -> None:
    """``Refusal`` where a JPEG has more scans than programs write: within compressed pixels no byte 0xFF is followed by 0xDA."""
    if data.count(SCAN_START) > MAX_SCANS:
        raise Refusal(f"its picture comes in more than {MAX_SCANS} scans; save it again")


def _without_notes(data: bytes) -> bytes:
    """A JPEG without the segments that do not concern its pixels: Pillow reads the EXIF and the list of pictures in them, at any length."""
    kept, place = [JPEG_START], len(JPEG_START)
    with suppress(struct.error, IndexError):  # cut off, as the decoder says
        for number, segment in enumerate(jpeg_segments(data), start=1):
            if segment.marker == START_OF_SCAN:
                return b"".join([*kept, data[place:]])
            if number == MAX_SEGMENTS:
                raise Refusal(f"it has more than {MAX_SEGMENTS:,} segments; save it again")
            # JFIF's and Adobe's say what the channels are.
            if not (APP1 <= segment.marker < APP14 or segment.marker in (APP15, COMMENT)):
                kept.append(data[segment.begin : segment.end])
            place = segment.end
    # Behind bytes that are no segment a decoder may find further ones.
    return b"".join([*kept, data[place:].replace(EXIF_START, b"none\0\0")])


def _walk_tiff(data: bytes) -> None:
    """``Refusal`` of several pages, of fields that point to more than the file has, and of a tile that is larger than a picture may be."""
    directories, pages, inner = Directories(data), set[int](), set[int]()
    asked_bytes = asked_fields = 0
    with suppress(struct.error):  # cut off, as the decoder says
        place = first = directories.start()
        while place and place not in pages and len(pages) < MAX_PAGES:
            pages.add(place)
            place = directories.next(place)
        left = [first]
        while left and asked_fields <= MAX_FIELDS:
            place = left.pop()
            if place in inner or not 0 < place < len(data):
                continue
            inner.add(place)
            fields = {}
            for field in islice(directories.fields(place), MAX_FIELDS + 1):
                asked_fields += 1
                asked_bytes += field.elsewhere_bytes
                fields[field.tag] = field.value
            left += [fields[tag] for tag in DIRECTORY_TAGS if tag in fields]
            height, width = (fields.get(tag, 0) for tag in TILE_TAGS)
            require_pixels((height, width))
    if len(pages) > 1:
        raise Refusal(f"it holds {len(pages)} pictures, and a frame is one; save each to a file of its own")
    if asked_fields > MAX_FIELDS or asked_bytes > 2 * len(data):
        raise Refusal("its fields are more, or point to more bytes, than a picture needs; save it again")


def _walk_png(data: bytes) -> None:
    """``Refusal`` where a PNG has more chunks than a picture may need."""
    place, number = len(PNG_START), 0
    while place + PNG_EDGE_BYTES <= len(data):
        number += 1
        if number > MAX_PARTS:
            raise Refusal(f"it comes in more than {MAX_PARTS:,} chunks; save it again")
        place += PNG_EDGE_BYTES + int.from_bytes(data[place : place + 4], "big")


def _walk_gif(data: bytes) -> None:
    """``Refusal`` of several pictures, of endless comments and parts."""
    place = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    pictures = parts = comment_bytes = 0
    while place < len(data):
        parts += 1
        kind = data[place]
        if kind == 0x3B or parts > MAX_PARTS:
            break
        if kind not in (0x21, 0x2C):  # a byte between the parts
            place += 1
            continue
        label = data[place + 1 : place + 2]
        if kind == 0x2C:
            pictures += 1
            flags = int.from_bytes(data[place + 9 : place + 10], "big")
            place += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            place += 2
        while place < len(data) and data[place] and parts <= MAX_PARTS:
            parts += 1
            comment_bytes += data[place] if kind == 0x21 and label == b"\xfe" else 0
            place += 1 + data[place]
        place += 1
    if parts > MAX_PARTS or comment_bytes > MAX_COMMENT_BYTES:
        raise Refusal("it has more comments or parts than a picture needs; save it again")
    if pictures > 1:
        raise Refusal(f"it holds {pictures} pictures, and a frame is one; save each to a file of its own")


def _require_quick_ppm(data: bytes) -> None:
    """``Refusal`` of a large PPM or PGM that only a slow decoder reads, or whose header does not end."""
    head = data[:HEAD_BYTES]
    words = re.sub(rb"#[^\r\n]*", b"", head).split(maxsplit=4)
    numbers = [word for word in words[1:4] if word.isdigit() and len(word) < 10]
    if len(numbers) < 2:
        raise Refusal("its header is longer than sizes need; save it again")
    quick = (b"255", b"65535") if head[1:2] == b"5" else (b"255",)
    if head[1:2] in b"123" or (head[1:2] in b"56" and numbers[2:] and numbers[2] not in quick):
        _require_slow_pixels(int(numbers[0]) * int(numbers[1]), "values as text, or up to another number than 255 and 65,535,")


def _require_quick_bmp(data: bytes) -> None:
    if len(data) > 34:
        width, height, _, compression = struct.unpack_from("<iiiI", data, 18)
        if compression in RUN_LENGTHS:
            _require_slow_pixels(abs(width * height), "runs")


def _require_slow_pixels(pixels: int, why: str) -> None:
    if pixels > MAX_SLOW_PIXELS:
        raise Refusal(f"{why} are read up to {MAX_SLOW_PIXELS:,} pixels, and it has {pixels:,}; save it as PNG")
