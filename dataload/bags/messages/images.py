"""sensor_msgs/Image and CompressedImage to pixels, and pixels to files.

What is a JPEG already is written as it is. Pixels are (h, w, 3) RGB or, of a camera without colour, (h, w).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.bags.formats.container import named
from dataload.frames.picture import Picture, decode_picture
from dataload.frames.picture_bounds import Refusal, open_picture
from dataload.frames.picture_header import UPRIGHT, read_header
from dataload.system.installing import pip_install
from splits.errors import InputError
from splits.faults import said_of
from splits.limits import IMAGE_PIXELS

# Half the bytes of full colour resolution (4:4:4), and decoded in training in 0.6 of its time; pictures are trained on at half their size
# or less, where the difference is gone.
JPEG_QUALITY, JPEG_SUBSAMPLING = 95, "4:2:0"
PNG_LEVEL = 1  # higher levels take many times as long for a few per cent
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
PNG_BITS, PNG_COLOUR_TYPE, COLOURED = 24, 25, (2, 6)  # where a PNG says them
# Of streams of video that are recorded as images: in their format, or as their first bytes.
VIDEO_FORMATS = ("h264", "h265", "h.264", "h.265", "avc", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora")
VIDEO_STARTS = (b"\x00\x00\x00\x01", b"\x00\x00\x01")
VIDEO_REMEDY = (
    "its messages are no pictures by themselves: record it again as raw or JPEG images (image_transport's republish makes them of a "
    "recording that is played), or save the stream as a video for md-data from-video"
)
# Channels of a pixel in the order red, green, blue. OpenCV's names without meaning are in its own order.
CHANNELS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0), "8UC3": (2, 1, 0), "8UC4": (2, 1, 0)}
WIDE = {"rgb16": "rgb", "bgr16": "bgr", "rgba16": "rgba", "bgra16": "bgra"}
GREY = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
# What drivers write for a sensor of this many bits: two bytes for each value.
NARROW = re.compile(r"(mono|bayer_[rgb]{4})(10|12|14)")
BAYER = {"bayer_rggb": "RGGB", "bayer_bggr": "BGGR", "bayer_gbrg": "GBRG", "bayer_grbg": "GRBG"}
# ROS's yuv422 is uyvy; the number counts bytes per pixel: two pixels share their colour.
YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuyv": "YUYV", "yuv422_yuy2": "YUYV", "nv12": "NV12", "nv21": "NV21", "i420": "I420"}


class BadFrame(Exception):
    """A message that holds no usable frame; says why, in a few words."""


@contextmanager
def decoding() -> Iterator[None]:
    """The boundary of decoders: whatever the content of a message brings about becomes ``BadFrame``; ``InputError`` passes."""
    try:
        yield
    except (BadFrame, InputError, ImportError):  # the last: a package is missing
        raise
    except (Refusal, MemoryError) as error:
        raise BadFrame(said_of(error)) from error
    except Exception as error:
        raise BadFrame("damaged") from error


def require_pixels(height: int, width: int) -> None:
    """``BadFrame`` where an image has no pixels, or more than are read; asked before anything is decoded."""
    if height <= 0 or width <= 0:
        raise BadFrame("damaged")
    if height * width > IMAGE_PIXELS.most:
        raise BadFrame(f"of more than {IMAGE_PIXELS.most:,} pixels, which are not read ({IMAGE_PIXELS.variable} takes more)")


def size_of(message: Any) -> tuple[int, int]:
    """(height, width) of the frame in a message, without decoding it; ``BadFrame`` where it holds none, or one too large to be read."""
    if not is_compressed(message):
        height, width = int(message.height), int(message.width)
    else:
        data = message.data.tobytes()
        header = read_header(data)
        height, width = _picture(data).pixels.shape[:2] if header is None else header.upright_size_px
    require_pixels(height, width)
    return height, width


def is_compressed(message: Any) -> bool:
    """Whether the message is a CompressedImage."""
    return hasattr(message, "format")


def require_pictures(message: Any, topic: str) -> None:
    """``InputError`` where the messages of a topic are pieces of a video."""
    if not is_compressed(message):
        return
    is_video = any(name in message.format.lower() for name in VIDEO_FORMATS)
    if is_video or message.data[:4].tobytes().startswith(VIDEO_STARTS):
        raise InputError(f"{topic} is a video stream ({named(message.format) or 'H.264 or alike'}); {VIDEO_REMEDY}")


def as_jpeg(message: Any) -> bytes | None:
    """The JPEG file that a message holds; None where it holds something else, or a kind or orientation that programs read differently.

    ``BadFrame`` where the file is cut off.
    """
    if not is_compressed(message) or "compressed bayer" in message.format:
        return None
    data = message.data.tobytes()
    if not data.startswith(JPEG_START):
        return None
    # Cameras pad their files.
    if JPEG_END not in data[-1024:]:
        raise BadFrame("damaged")
    header = read_header(data)
    return data if header is None or (header.is_common and header.orientation == UPRIGHT) else None


def decode(message: Any, topic: str, bits: int = 16) -> NDArray[np.uint8]:
    """The pixels of a message, (h, w, 3) or (h, w).

    Args:
        bits: how many of 16 bits the values of the topic use, where its encoding does not say; the upper 8 of them stay.

    Raises:
        BadFrame: the data are damaged, or fewer than the size needs.
        InputError: an encoding that is not known, or needs OpenCV where that is not installed.
    """
    values, pattern = _read(message, topic)
    pixels = _to_8_bits(values, said_bits(message) or bits)
    return pixels if pattern is None else _demosaic(pixels, pattern, topic)


def _read(message: Any, topic: str) -> tuple[NDArray[Any], str | None]:
    """The values of a message, of 8 or 16 bits, (h, w) or (h, w, 3), and the pattern of their colours where they are a mosaic."""
    size_of(message)  # which refuses sizes that no camera has
    with decoding():
        return _read_compressed(message, topic) if is_compressed(message) else _read_raw(message, topic)


def _picture(data: bytes) -> Picture:
    with decoding():
        return decode_picture(data)


def is_16_bit(message: Any) -> bool:
    """Whether the message's values are cut down to 8 bits."""
    if is_compressed(message):
        return message.data[: len(PNG_START)].tobytes() == PNG_START and message.data.size > PNG_BITS and message.data[PNG_BITS] == 16
    return message.encoding.endswith(("16", "16UC1")) or said_bits(message) is not None


def said_bits(message: Any) -> int | None:
    """How many of 16 bits are in use by the encoding's own account."""
    said = None if is_compressed(message) else NARROW.fullmatch(message.encoding)
    return None if said is None else int(said[2])


def largest_value(message: Any, topic: str) -> int:
    """The largest value of a message of 16 bits; raises as ``decode``."""
    values, _ = _read(message, topic)
    return int(values.max(initial=0))


def encode(pixels: NDArray[np.uint8], *, png: bool) -> tuple[bytes, str]:
    """A file of pixels, and its ending."""
    out = BytesIO()
    image = Image.fromarray(pixels)
    if png:
        image.save(out, "PNG", compress_level=PNG_LEVEL)
        return out.getvalue(), ".png"
    image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
    return out.getvalue(), ".jpg"


def read_png(data: bytes) -> NDArray[Any]:
    """The values of a PNG as they are, (h, w) or (h, w, channels); ``BadFrame`` where it is damaged, or too large to be read."""
    with decoding():
        header = read_header(data)
        if header is None:
            raise BadFrame("damaged")
        require_pixels(*header.size_px)
        with open_picture(data, ("PNG",)) as image:
            return np.asarray(image)


def rows(message: Any, dtype: str, channels: int = 1) -> NDArray[Any]:
    """The values of an Image, (h, w) or (h, w, channels) in the machine's order of bytes, without the padding of its rows.

    Raises:
        BadFrame: fewer data than the size needs.
    """
    height, width = int(message.height), int(message.width)
    require_pixels(height, width)
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    row_bytes = width * channels * kind.itemsize
    step = int(message.step) or row_bytes
    data = message.data
    # The last row need not be padded.
    if step < row_bytes or data.size < (height - 1) * step + row_bytes:
        raise BadFrame("damaged")
    strided = np.lib.stride_tricks.as_strided(data, (height, row_bytes), (step, 1), writeable=False)
    values = np.ascontiguousarray(strided).view(kind).astype(kind.newbyteorder("="), copy=False)
    return values.reshape((height, width, channels) if channels > 1 else (height, width))


def opencv(why: str) -> Any:
    """OpenCV; ``InputError`` saying what it is needed for where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"{why} needs OpenCV ({error}): {pip_install('opencv')}") from error
    return cv2


def _read_compressed(message: Any, topic: str) -> tuple[NDArray[Any], str | None]:
    data = message.data
    if is_16_bit(message) and data[PNG_COLOUR_TYPE] in COLOURED:  # of which Pillow keeps the upper 8 bits, whatever they hold
        cv2 = opencv(f"{topic}: PNG of 16 bits and three colours")
        read = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if read is None:
            raise BadFrame("damaged")
        return read[..., 2::-1], None
    if is_16_bit(message):
        return read_png(data.tobytes()).astype(np.uint16), _mosaic(message)
    picture = _picture(data.tobytes())
    values = picture.pixels[..., 0] if picture.is_grey else picture.pixels
    return values, _mosaic(message) if values.ndim == 2 else None


def _mosaic(message: Any) -> str | None:
    """The pattern of colours of a compressed message whose image is a mosaic."""
    return next((name for name in BAYER if f"compressed {name}" in message.format), None)


def _read_raw(message: Any, topic: str) -> tuple[NDArray[Any], str | None]:
    encoding = message.encoding
    base = encoding.removesuffix("8") if encoding.removesuffix("8") in CHANNELS else WIDE.get(encoding, encoding)
    if base in CHANNELS:
        channels = 4 if base in ("rgba", "bgra", "8UC4") else 3
        values = rows(message, "u2" if encoding in WIDE else "u1", channels)
        return _as_rgb(values, CHANNELS[base]), None
    if encoding in GREY:
        return rows(message, GREY[encoding]), None
    pattern, bits = encoding.rstrip("0123456789"), encoding[len("bayer_rggb") :]
    if NARROW.fullmatch(encoding):
        return rows(message, "u2"), pattern if pattern in BAYER else None
    if pattern in BAYER and bits in ("8", "16"):
        return rows(message, "u2" if bits == "16" else "u1"), pattern
    if encoding in YUV:
        return _from_yuv(message, topic), None
    raise InputError(
        f"{topic}: encoding {named(encoding)!r} is not known; known are rgb8, bgr8, rgba8, bgra8, mono8, mono16, bayer_*, yuv422, nv12 and "
        "compressed JPEG or PNG; name another topic with --image_topic"
    )


def _as_rgb(values: NDArray[Any], order: tuple[int, ...]) -> NDArray[Any]:
    if values.shape[2] == 3 and order == (0, 1, 2):
        return values
    # Channel by channel: a third of the time that numpy takes to gather pixels.
    out = np.empty((*values.shape[:2], 3), values.dtype)
    for i, channel in enumerate(order):
        out[..., i] = values[..., channel]
    return out


def _to_8_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.minimum(values >> (bits - 8), 255).astype(np.uint8) if values.dtype.itemsize == 2 else values


def _demosaic(values: NDArray[np.uint8], pattern: str, topic: str) -> NDArray[np.uint8]:
    cv2 = opencv(f"{topic}: {pattern}8")
    return cv2.cvtColor(values, getattr(cv2, f"COLOR_Bayer{BAYER[pattern]}2RGB"))


def _from_yuv(message: Any, topic: str) -> NDArray[np.uint8]:
    cv2 = opencv(f"{topic}: {message.encoding}")
    name = YUV[message.encoding]
    if name in ("UYVY", "YUYV"):
        values = rows(message, "u1", 2)
    else:
        # Brightness, then colour of a quarter of the pixels: half as many rows again.
        height, width, step = int(message.height), int(message.width), int(message.step) or int(message.width)
        tall = height * 3 // 2
        if height % 2 or width % 2 or message.data.size < tall * step or (name == "I420" and step != width):
            raise BadFrame("damaged")
        values = np.ascontiguousarray(message.data[: tall * step].reshape(tall, step)[:, :width])
    return cv2.cvtColor(values, getattr(cv2, f"COLOR_YUV2RGB_{name}"))
