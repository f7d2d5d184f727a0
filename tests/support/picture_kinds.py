"""Image files of many kinds, made by formula: what each of them shows, or what is said of it where it is refused."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HEIGHT, WIDTH = 64, 96
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([COLUMNS * 2, ROWS * 3, COLUMNS + ROWS], -1).astype(np.uint8)
RGB[:12, :12] = (250, 20, 10)
ALPHA = np.where(COLUMNS < WIDTH // 2, 0, 255).astype(np.uint8)
GREY_16 = (COLUMNS * 400 + ROWS * 300).astype(np.uint16)
RGB_16 = np.stack([GREY_16, GREY_16[::-1], GREY_16[:, ::-1]], -1)
IMAGE, GREY = Image.fromarray(RGB), Image.fromarray(RGB).convert("L")
# What turns an upright picture into what a camera has stored under each orientation.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def stored(orientation: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: np.ndarray, colour: int, bits: int = 8, before: bytes = b"", after: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of values (h, w) or (h, w, channels), with chunks before and after its pixels."""
    height, width = values.shape[:2]
    parts = (
        [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    )
    lines = b""
    for row, column, down, right in parts:
        part = values[row::down, column::right].astype(">u2" if bits == 16 else "u1")
        part = part.reshape(len(part), -1)
        packed = (
            part.view(np.uint8) if bits >= 8 else np.packbits(np.unpackbits(part[..., None], -1)[..., -bits:].reshape(len(part), -1), -1)
        )
        lines += b"".join(b"\0" + line.tobytes() for line in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    ends = chunk(b"IDAT", zlib.compress(lines)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + ends


def flipped(data: bytes, word: bytes, offset: int) -> bytes:
    """The bytes with one changed, so far behind the last place of a word."""
    place = data.rindex(word) + offset
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def as_pillow(data: bytes) -> np.ndarray:
    """What Pillow alone makes of a lossy file."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


JPEG = save(IMAGE, "JPEG", quality=95)
PNG = save(IMAGE, "PNG")
CMYK = save(IMAGE.convert("CMYK"), "JPEG", quality=95)
PALETTE = IMAGE.quantize(32)
OVER = Image.fromarray(np.dstack([RGB, ALPHA]))
HIGH, HIGH_RGB = three((GREY_16 >> 8).astype(np.uint8)), (RGB_16 >> 8).astype(np.uint8)
L = np.asarray(GREY)
GAMMA = chunk(b"gAMA", struct.pack(">I", 100_000))
AFTER = b"\xff\xe1" + struct.pack(">H", len(exif(6)) + 2) + exif(6) + b"\xff\xc4"
NOTE = b"Exif\0\0" + b"\0" * 9000  # longer than what is read of a file at first
DAMAGED, OTHER = "is a damaged image (", "cannot be read as an image: "

LOSSY = {
    "jpeg": JPEG,
    "jpeg 4:4:4": save(IMAGE, "JPEG", quality=95, subsampling=0),
    "jpeg 4:2:2": save(IMAGE, "JPEG", quality=95, subsampling=1),
    "jpeg grey": save(GREY, "JPEG", quality=95),
    "jpeg progressive": save(IMAGE, "JPEG", quality=95, progressive=True),
    "jpeg stored as rgb": save(IMAGE, "JPEG", quality=95, keep_rgb=True),
    "jpeg cmyk": CMYK,
    "jpeg ycck": CMYK.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"),
    "jpeg with restarts": save(IMAGE, "JPEG", quality=95, restart_marker_rows=1),
    "jpeg with a long note": JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(NOTE) + 2) + NOTE + JPEG[2:],
    "jpeg with bytes between its parts": JPEG.replace(b"\xff\xc4", b"A" * 20 + b"\xff\xc4", 1),
    "jpeg orientation 6 behind its size": save(stored(6), "JPEG", quality=95).replace(b"\xff\xc4", AFTER, 1),
    "jpeg with bytes behind": JPEG + b"padding" * 9,
    "webp lossy": save(IMAGE, "WEBP", quality=90),
} | {f"jpeg orientation {turned}": save(stored(turned), "JPEG", quality=95, exif=exif(turned)) for turned in STORED}

READ: dict[str, tuple[bytes, np.ndarray]] = {name: (data, as_pillow(data)) for name, data in LOSSY.items()} | {
    "png": (PNG, RGB),
    "png grey": (save(GREY, "PNG"), three(L)),
    "png 1 bit": (png(L >> 7, 0, 1), three((L >> 7) * 255)),
    "png 2 bits": (png(L >> 6, 0, 2), three((L >> 6) * 85)),
    "png 4 bits": (png(L >> 4, 0, 4), three((L >> 4) * 17)),
    "png palette": (save(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "png palette, transparent": (save(PALETTE, "PNG", transparency=b"\0\x80" * 16), np.asarray(PALETTE.convert("RGB"))),
    "png alpha": (save(OVER, "PNG"), RGB),
    "png grey alpha": (png(np.dstack([L, ALPHA]), 4), three(L)),
    "png transparent colour": (save(IMAGE, "PNG", transparency=(250, 20, 10)), RGB),
    "png 16 bits": (png(GREY_16, 0, 16), HIGH),
    "png 16 bits rgb": (png(RGB_16, 2, 16), HIGH_RGB),
    "png 16 bits alpha": (png(np.dstack([RGB_16, ALPHA * np.uint16(257)]), 6, 16), HIGH_RGB),
    "png 16 bits grey alpha": (png(np.dstack([GREY_16, ALPHA * np.uint16(257)]), 4, 16), HIGH),
    "png interlaced": (png(RGB, 2, interlaced=True), RGB),
    "png gamma": (png(RGB, 2, before=GAMMA), RGB),
    "png sRGB": (png(RGB, 2, before=chunk(b"sRGB", b"\0")), RGB),
    "png orientation 6": (png(STORED[6](RGB), 2, before=chunk(b"eXIf", exif(6)[6:])), RGB),
    "png orientation 3 behind its pixels": (png(STORED[3](RGB), 2, after=chunk(b"eXIf", exif(3)[6:])), RGB),
    "png with bytes behind": (PNG + b"padding" * 9, RGB),
    "gif": (save(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
    "bmp": (save(IMAGE, "BMP"), RGB),
    "bmp grey": (save(GREY, "BMP"), three(L)),
    "bmp palette": (save(PALETTE, "BMP"), np.asarray(PALETTE.convert("RGB"))),
    "webp": (save(IMAGE, "WEBP", lossless=True), RGB),
    "webp alpha": (save(OVER, "WEBP", lossless=True, exact=True), RGB),
    "webp orientation 8": (save(stored(8), "WEBP", lossless=True, exif=exif(8)), RGB),
    "tif": (save(IMAGE, "TIFF"), RGB),
    "tif lzw": (save(IMAGE, "TIFF", compression="tiff_lzw"), RGB),
    "tif 1 bit": (save(GREY.point(lambda v: v // 128 * 255).convert("1"), "TIFF"), three((L >> 7) * 255)),
    "tif palette": (save(PALETTE, "TIFF"), np.asarray(PALETTE.convert("RGB"))),
    "tif 16 bits": (save(Image.fromarray(GREY_16), "TIFF"), HIGH),
    "tif alpha": (save(OVER, "TIFF"), RGB),
    "tif orientation 3": (save(stored(3), "TIFF", tiffinfo={0x0112: 3}), RGB),
    "tif orientation 6": (save(stored(6), "TIFF", tiffinfo={0x0112: 6}), RGB),
    "ppm": (save(IMAGE, "PPM"), RGB),
    "pgm": (save(GREY, "PPM"), three(L)),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty (0 bytes); copy it again or leave it out"),
    "text": (b"no picture", DAMAGED + "or no image at all)"),
    "web page": (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS, not the file: run git lfs pull"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, which is not read: save it as JPEG or PNG"),
    "jpeg cut off": (JPEG[: len(JPEG) * 2 // 3], DAMAGED + "image file is truncated"),
    "jpeg without its end": (JPEG[:-2], DAMAGED + "image file is truncated"),
    "jpeg with bytes before": (b"xx" + JPEG, DAMAGED),
    "jpeg of 12 bits": (JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), DAMAGED),
    "jpeg too large": (JPEG.replace(struct.pack(">HH", HEIGHT, WIDTH), b"\xc3\x50\xc3\x50"), OTHER + "more than"),
    "png cut off": (PNG[: len(PNG) * 2 // 3], DAMAGED),
    "png without its end": (PNG[:-12], DAMAGED + "it is cut off)"),
    "png of wrong pixels": (flipped(PNG, b"IEND", -9), DAMAGED + "its chunk 'IDAT' does not fit its checksum)"),
    "png of a wrong note": (flipped(png(RGB, 2, before=GAMMA), b"gAMA", 5), DAMAGED + "its chunk 'gAMA' does not fit its checksum)"),
    "png animation": (save(IMAGE, "PNG", save_all=True, append_images=[GREY.convert("RGB")]), OTHER + "it holds 2 pictures"),
    "gif animation": (save(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]), OTHER + "it holds 2 pict"),
    "webp animation": (save(IMAGE, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]), OTHER + "it holds 2 pict"),
    "tif of pages": (save(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), OTHER + "it holds 2 pictures"),
    "tif of floats": (save(Image.fromarray(GREY_16.astype(np.float32)), "TIFF"), OTHER + "floating-point values have no"),
    "tif of 32 bits": (save(Image.fromarray(GREY_16.astype(np.int32) * 256), "TIFF"), OTHER + "values of 32 bits have no"),
}
