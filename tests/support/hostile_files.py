"""Files that ask for far more than they are, made by formula: small ones that claim large content, and content that no reader expects."""

import io
import struct
import zipfile
import zlib

import numpy as np
from picture_kinds import IMAGE, JPEG, chunk, exif, save
from PIL import Image

SIDE = 50_000


def jpeg_of(width: int, height: int, *, progressive: bool = False) -> bytes:
    """A JPEG whose header claims a size, and whose pixels are those of a small one."""
    data = save(IMAGE, "JPEG", progressive=progressive)
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def jpeg_of_scans(number: int) -> bytes:
    """A progressive JPEG of 24 million pixels whose last scan comes so many times."""
    data = save(Image.new("L", (6000, 4000)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * number + data[-2:]


def exif_of_fields(number: int, each_bytes: int) -> bytes:
    """EXIF whose fields all point to the same bytes."""
    fields = b"".join(struct.pack(">HHLL", 0x1000 + tag, 7, each_bytes, 8) for tag in range(number))
    return b"Exif\0\0MM\0*" + struct.pack(">L", 8) + struct.pack(">H", number) + fields + b"\0\0\0\0"


def jpeg_of_notes(segments: int) -> bytes:
    """A JPEG with EXIF in many segments, which decoders join."""
    note = exif_of_fields(5000, 60_000)
    parts = b"".join(b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note for _ in range(segments))
    # Of CMYK, which only Pillow decodes.
    cmyk = save(IMAGE.convert("CMYK"), "JPEG")
    return cmyk[:2] + parts + cmyk[2:]


def png_of(width: int, height: int, bits: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    """A PNG of black pixels, a thousandth of what they unpack to; of gigabytes only the start is there."""
    line = b"\0" * (1 + width * bits // 8 * {0: 1, 2: 3, 6: 4}[colour])
    packed = zlib.compressobj(9)
    body = b"".join(packed.compress(line) for _ in range(min(height, 2**28 // len(line)))) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_of_notes() -> bytes:
    """A PNG whose texts and colour profile unpack to a gigabyte."""
    packed = zlib.compress(b"x" * 2**24, 9)
    texts = b"".join(chunk(b"zTXt", b"note%d\0\0" % number + packed) for number in range(64))
    itxt = chunk(b"iTXt", b"note\0\1\0\0\0" + packed)
    return png_of(96, 64, before=chunk(b"iCCP", b"p\0\0" + packed) + texts + itxt)


def tiff_of(fields: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF of one directory: tag, type, count and value or place of each field."""
    packed = b"".join(struct.pack("<HHL", tag, kind, count) + struct.pack("<L", value) for tag, kind, count, value in fields)
    return b"II*\0" + struct.pack("<LH", 8, len(fields)) + packed + b"\0\0\0\0" + tail


def tiff_of_tile(side: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of a great many."""
    place = 8 + 2 + 12 * 11 + 4
    fields = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    fields += [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, place), (325, 4, 1, 100_000), (339, 3, 1, 1)]
    return tiff_of(fields, zlib.compress(b"\0" * 2**26, 9))


def tiff_of_fields() -> bytes:
    """A TIFF with 50,000 fields of 600 KB, all of the same bytes."""
    return tiff_of([(1 + tag, 7, 600_000, 8) for tag in range(50_000)])


def tiff_of_pages(number: int) -> bytes:
    """A TIFF with a chain of empty directories."""
    data = save(IMAGE.convert("L"), "TIFF")
    start = int.from_bytes(data[4:8], "little")
    link = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    chain = b"".join(struct.pack("<HL", 0, len(data) + 6 * (place + 1) if place + 1 < number else 0) for place in range(number))
    return data[:link] + struct.pack("<L", len(data)) + data[link + 4 :] + chain


def gif_of_comment(megabytes: int) -> bytes:
    """A GIF whose comment is so long."""
    data = save(IMAGE.quantize(16), "GIF")
    place = data.index(b"\x2c", 13)
    return data[:place] + b"\x21\xfe" + (b"\xff" + b"c" * 255) * (megabytes * 2**12) + b"\0" + data[place:]


def gif_of_pictures(number: int) -> bytes:
    """A GIF of a great many pictures of one pixel."""
    one = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + one * number + b"\x3b"


def ppm_of_text(values: int) -> bytes:
    """A PPM with its values as text."""
    return b"P3 %d 3000 255\n" % (values // 9000) + b"7 " * values


def ppm_of_comment(megabytes: int) -> bytes:
    """A PPM whose header has a comment of megabytes."""
    return b"P6 " + b"#" * (megabytes * 2**20) + b"\n4 4 255\n" + b"\0" * 48


def bmp_of_runs(width: int, height: int) -> bytes:
    """A BMP of runs that say little of a large picture."""
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    colours = b"\0\0\0\0" * 256
    return b"BM" + struct.pack("<LHHL", 0, 0, 0, 14 + 40 + 1024) + header + colours + b"\0\0" * 1000


def webp_of(side: int) -> bytes:
    """A WEBP of one colour, whose header has the size put in."""
    data = save(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True, method=0)
    place = data.index(b"VP8L") + 9
    return data[:place] + struct.pack("<L", (side - 1) | (side - 1) << 14) + data[place + 4 :]


PICTURES = {
    "bomb.jpg": lambda: jpeg_of(SIDE, SIDE),
    "progressive.jpg": lambda: jpeg_of(SIDE, SIDE, progressive=True),
    "limit.jpg": lambda: jpeg_of(7000, 7000, progressive=True),
    "scans.jpg": lambda: jpeg_of_scans(5000),
    "notes.jpg": lambda: jpeg_of_notes(100),
    "note.jpg": lambda: JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 60_016) + exif_of_fields(5000, 60_000)[:60_014] + JPEG[2:],
    "segments.jpg": lambda: JPEG[:2] + b"\xff\xe0\0\2" * 5_000_000 + JPEG[2:],
    "junk.jpg": lambda: JPEG[:2] + b"A" * 100 + jpeg_of_notes(50)[2:],
    "strip.png": lambda: png_of(8, 8_000_000),
    "bomb.png": lambda: png_of(SIDE, SIDE),
    "bomb16.png": lambda: png_of(SIDE, SIDE, 16, 0),
    "limit.png": lambda: png_of(7000, 7000, 16, 6),
    "notes.png": png_of_notes,
    "exif.png": lambda: png_of(96, 64, before=chunk(b"eXIf", exif_of_fields(50_000, 600_000)[6:])),
    "chunks.png": lambda: png_of(96, 64, before=chunk(b"teSt", b"") * 2_000_000),
    "tile.tif": lambda: tiff_of_tile(40_000),
    "fields.tif": tiff_of_fields,
    "pages.tif": lambda: tiff_of_pages(3_000_000),
    "comment.gif": lambda: gif_of_comment(40),
    "pictures.gif": lambda: gif_of_pictures(1_000_000),
    "text.ppm": lambda: ppm_of_text(9_000_000 * 2),
    "comment.ppm": lambda: ppm_of_comment(100),
    "runs.bmp": lambda: bmp_of_runs(60_000_000, 1),
    "limit.bmp": lambda: bmp_of_runs(7000, -7000),
    "bomb.webp": lambda: webp_of(16_000),
    "limit.webp": lambda: webp_of(7000),
    "exif.webp": lambda: save(IMAGE, "WEBP", exif=exif_of_fields(50_000, 600_000)),
    "orientation.webp": lambda: save(IMAGE, "WEBP", exif=exif(6)),
}
"""Image files by name; what is made of each at most is a picture of 64 million pixels."""


def npy_of(shape: tuple[int, ...], descr: str = "<f4", data: bytes = b"") -> bytes:
    """An array's file that claims a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue() + data


def npy_of_header(header: bytes, version: int = 1, length: int | None = None) -> bytes:
    """An array's file with any header, which claims any length."""
    length = len(header) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little") + header


def zip_of(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind, compresslevel=9) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def zip_of_entries(number: int) -> bytes:
    """A zip that lists so many entries, all of the same name, and holds none."""
    entry = struct.pack("<I24xH16x", 0x02014B50, 1) + b"a"
    return b"PK\3\4" + entry * number + struct.pack("<I4xHHIIH", 0x06054B50, 0xFFFF, 0xFFFF, number * len(entry), 4, 0)


def zip_of_zeros(names: list[str], each_bytes: int, shape: tuple[int, ...], descr: str) -> bytes:
    """A zip of arrays of zeros, a thousandth of what they unpack to."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(npy_of(shape, descr))
                for _ in range(each_bytes // 2**24):
                    member.write(b"\0" * 2**24)
    return out.getvalue()
