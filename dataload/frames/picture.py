"""From an image file to RGB pixels: one meaning of a file for training (all loaders and frame stores), checks, reports and prediction.

What counts is what a file holds, not its ending. Grey becomes three equal channels, palettes become their colours, 16 bits keep their upper
eight, transparency is dropped, CMYK is converted without its profile, and profiles and gamma are ignored. Pixels are those of the
upright picture, as EXIF's orientation says. Refused by name are animations and files of several pages (but for the second picture that
telephones add to a JPEG), floating-point values, which have no fixed white, and damage: a truncated file, a PNG whose checksums do not fit.
It imports numpy and Pillow alone; simplejpeg, twice as fast and the same pixels, where it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dataload.frames.picture_bounds import (
    Refusal,
    most_bytes,
    named_picture,
    open_picture,
    quieten_pillow,
    require_modest,
    require_pixels,
)
from dataload.frames.picture_header import (
    JPEG_START,
    ORIENTATION_TAG,
    PNG_START,
    SIDEWAYS,
    TURNED,
    UPRIGHT,
    Header,
    exif_orientation,
    late_png_orientation,
    png_fault,
    read_header,
)
from splits import reading
from splits.errors import InputError
from splits.faults import parsing

try:
    import simplejpeg
except ImportError:  # where only Pillow is installed
    simplejpeg = None

# What decodes JPEGs.
JPEG_DECODER = "Pillow" if simplejpeg is None else "simplejpeg"
# What counts as an image in a folder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# What else is found under the name of an image, by a word in its first bytes.
OTHER_CONTENTS = {
    b"git-lfs": "a pointer of Git LFS, not the file: run git lfs pull",
    b"ftyphei": "HEIC, which is not read: save it as JPEG or PNG",
    b"ftypmif1": "HEIC, which is not read: save it as JPEG or PNG",
    b"ftypavif": "AVIF, which is not read: save it as JPEG or PNG",
    b"ftypjp2": "JPEG 2000, which is not read: save it as JPEG or PNG",
    b"\xff\x4f\xff\x51": "JPEG 2000, which is not read: save it as JPEG or PNG",
    b"<html": "a web page",
    b"<!DOCTYPE": "a web page",
}
# What of a file counts before it is read: its first bytes, in a file of long notes more, and the end of a PNG.
HEAD_BYTES, MOST_PEEKED_BYTES, TAIL_BYTES = 4096, 2**22, 65536
# One segment of a JPEG.
MOST_NOTES_BYTES = 65536
LARGE_PIXELS = 2**24
_one_large = threading.Lock()
MOST_BITS_16 = 0xFFFF
WHAT, REMEDY = "an image", "restore the file, or leave it out"


class Picture(NamedTuple):
    """A picture, and what kind of file it comes from.

    Attributes:
        pixels: (H, W, 3) uint8, upright.
        format: Pillow's name of it.
        bits: per channel in the file.
        orientation: EXIF's, 1 to 8, by which the pixels have been turned.
        complaint: what the decoder found damaged inside, though it read it.
    """

    pixels: NDArray[np.uint8]
    format: str
    bits: int
    is_grey: bool
    orientation: int
    complaint: str = ""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) uint8 of an image file, upright.

    Raises:
        InputError: the file cannot be read, is damaged, or is of a kind that is not read; names it, the reason and the remedy.
    """
    return inspect_picture(path).pixels


def inspect_picture(path: Path) -> Picture:
    """The picture of an image file with what kind of file it is; ``InputError`` as ``read_picture``."""
    return _decode_named(path, read_bytes(path))


def pixels_of(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """The RGB pixels (H, W, 3) uint8 of an image that Pillow has opened or made, upright, by the rules of a file's.

    Raises:
        InputError: it is damaged, or of a kind that is not read; calls it ``name``.
    """
    quieten_pillow()
    with named_picture(name, REMEDY):
        try:
            require_pixels((image.height, image.width))
            _require_one(image)
            if not (image.width and image.height):
                raise Refusal(f"it is {image.width} x {image.height} pixels; leave it out")
            image.load()
            # Pillow turns a TIFF itself.
            return _rgb8(image) if image.format == "TIFF" else turn(_rgb8(image), _orientation_of(image))
        except (AssertionError, AttributeError) as error:
            # What Pillow raises of a file that is gone; its older releases the second.
            if isinstance(error, AttributeError) and getattr(image, "fp", image) is not None:
                raise
            raise InputError(f"{name} was closed before it was read; give it within its with block, or give its path") from error


def _orientation_of(image: Image.Image) -> int:
    """The orientation of an image that a program may have changed since it was opened."""
    notes = image.info.get("exif")
    if isinstance(notes, bytes) and len(notes) > MOST_NOTES_BYTES:  # which Pillow would take long for
        return exif_orientation(notes)
    with suppress(Exception):
        value = image.getexif().get(ORIENTATION_TAG)
        return value if isinstance(value, int) and value in TURNED else UPRIGHT
    return UPRIGHT


def _decode_named(path: Path, data: bytes) -> Picture:
    with named_picture(path, REMEDY):
        try:
            return decode_picture(data)
        except UnidentifiedImageError as error:  # whose words name the bytes, not the file
            what = next((what for word, what in OTHER_CONTENTS.items() if word in data[:HEAD_BYTES]), "")
            raise InputError(f"{path} is {what or 'a damaged image (or no image at all)'}; {REMEDY}") from error


def read_grey(path: Path, least_width_px: int) -> NDArray[np.uint8]:
    """The grey of the picture (h, w); a common JPEG is decoded at a fraction of its size, not below that width. ``InputError`` as above."""
    data = read_bytes(path)
    header = _within_limit(read_header(data))
    if header is not None and header.is_common and header.orientation == UPRIGHT and data.startswith(JPEG_START) and simplejpeg is not None:
        with suppress(ValueError):
            require_modest(data)
            return simplejpeg.decode_jpeg(data, colorspace="GRAY", min_width=least_width_px, min_height=1)[..., 0]
    return np.asarray(Image.fromarray(_decode_named(path, data).pixels).convert("L"))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; ``InputError`` where it is not there, cannot be read, is empty, or larger than images are."""
    data = reading.read_bytes(path, WHAT, REMEDY, most_bytes())
    if not data:
        raise InputError(f"{path} is empty (0 bytes); copy it again or leave it out")
    return data


def picture_size_px(path: Path) -> tuple[int, int]:
    """(height, width) of the upright picture, by the file's header where all decoders agree on it; ``InputError`` as ``read_picture``."""
    header = _peek(path)
    if header is None or not header.is_common:
        height, width, _ = read_picture(path).shape
        return height, width
    return header.upright_size_px


def is_plain(path: Path) -> bool:
    """Whether every decoder makes the pixels of ``read_picture`` of a file, unless it is damaged: a common kind that lies upright.

    ``InputError`` where the file cannot be read.
    """
    header = _peek(path)
    if header is None or not header.is_common or header.orientation != UPRIGHT:
        return False
    return not header.is_progressive or _is_modest(read_bytes(path))


def _is_modest(data: bytes) -> bool:
    with suppress(Refusal):
        require_modest(data)
        return True
    return False


def _peek(path: Path) -> Header | None:
    with reading.open_file(path, WHAT, REMEDY) as file, parsing(path, WHAT, REMEDY):
        head = file.read(HEAD_BYTES)
        header = read_header(head)
        if header is None and head.startswith((JPEG_START, PNG_START)):  # long notes before the picture
            header = read_header(head + file.read(MOST_PEEKED_BYTES))
        if header is not None and head.startswith(PNG_START):
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            header = header._replace(is_common=header.is_common and b"eXIf" not in file.read(TAIL_BYTES))
    return _within_limit(header)


def _within_limit(header: Header | None) -> Header | None:
    """The header; not common where its picture has more pixels than are read."""
    if header is not None:
        with suppress(Refusal):
            require_pixels(header.size_px)
            return header
        return header._replace(is_common=False)
    return header


def decode_picture(data: bytes) -> Picture:
    """The picture of a file's bytes.

    Raises:
        Refusal: it is of a kind that is not read, or larger than pictures are; names the remedy.
        Exception: whatever a decoder raises of damage.
    """
    header = read_header(data)
    if header is not None:
        require_pixels(header.size_px)
    require_modest(data)
    is_png = data.startswith(PNG_START)
    if is_png and (fault := png_fault(data)):
        raise ValueError(fault)
    complaint = ""
    if header is not None and header.is_common and not is_png and simplejpeg is not None:
        try:
            with _alone(header.size_px):
                pixels = turn(simplejpeg.decode_jpeg(data, colorspace="RGB"), header.orientation)
            return Picture(pixels, "JPEG", header.bits, header.is_grey, header.orientation)
        except ValueError as error:  # harmless garbage, or damage that Pillow names best
            complaint = str(error)
    with open_picture(data) as image:
        format, bits, is_grey = image.format or "", _bits(image), image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        if header is not None:
            bits, is_grey, orientation = header.bits, header.is_grey, header.orientation
            if is_png and orientation == UPRIGHT:
                orientation = late_png_orientation(data)
        else:
            orientation = exif_orientation(data if format == "TIFF" else image.info.get("exif", b""))
        _require_one(image)
        with _alone((image.height, image.width)):
            image.load()
            # Pillow turns a TIFF itself.
            pixels = _rgb8(image) if format == "TIFF" else turn(_rgb8(image), orientation)
    return Picture(pixels, format, bits, is_grey, orientation, complaint)


@contextmanager
def _alone(size_px: tuple[int, int]) -> Iterator[None]:
    """Let one thread at a time decode a picture that takes hundreds of megabytes meanwhile."""
    if size_px[0] * size_px[1] <= LARGE_PIXELS:
        yield
        return
    with _one_large:
        yield


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) as EXIF's orientation says they are to be seen."""
    if orientation not in TURNED:
        return pixels
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def encode_plain(pixels: NDArray[np.uint8]) -> bytes:
    """An uncompressed file (PPM) of pixels (H, W, 3), which every decoder reads."""
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


def _bits(image: Image.Image) -> int:
    if image.mode == "F":
        return 32
    return 16 if image.mode.startswith("I") else 8


def _require_one(image: Image.Image) -> None:
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        raise Refusal(f"it holds {count} pictures, and a frame is one; save each to a file of its own")


def _rgb8(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise Refusal("floating-point values have no fixed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip them
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > MOST_BITS_16):
            raise Refusal("values of 32 bits have no fixed white; save it with 8 or 16 bits")
        return np.repeat((values.astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
