"""sensor_msgs/Image and CompressedImage to pixels, and pixels to files.

What is a JPEG already is written as it is. Pixels are (h, w, 3) RGB or, of a camera without colour, (h, w).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.frames.picture import DAMAGE, Picture, decode_picture
from dataload.frames.picture_header import UPRIGHT, read_header
from splits.errors import InputError

# Half the bytes of full colour resolution (4:4:4), and decoded in training in 0.6 of its time; pictures are trained on at half their size
# or less, where the difference is gone.
JPEG_QUALITY, JPEG_SUBSAMPLING = 95, "4:2:0"
PNG_LEVEL = 1  # higher levels take many times as long for a few per cent
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
# Channels of a pixel in the order red, green, blue. OpenCV's names without meaning are in its own order.
CHANNELS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0), "8UC3": (2, 1, 0), "8UC4": (2, 1, 0)}
WIDE = {"rgb16": "rgb", "bgr16": "bgr", "rgba16": "rgba", "bgra16": "bgra"}
GREY = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
BAYER = {"bayer_rggb": "RGGB", "bayer_bggr": "BGGR", "bayer_gbrg": "GBRG", "bayer_grbg": "GRBG"}
# ROS's yuv422 is uyvy; the number counts bytes per pixel: two pixels share their colour.
YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuyv": "YUYV", "yuv422_yuy2": "YUYV", "nv12": "NV12", "nv21": "NV21", "i420": "I420"}


class BadFrame(Exception):
    """A message that holds no usable frame; says why, in a few words."""


def size_of(message: Any) -> tuple[int, int]:
    """(height, width) of the frame in a message, without decoding it; ``BadFrame`` where it holds none."""
    if not is_compressed(message):
        return int(message.height), int(message.width)
    data = message.data.tobytes()
    header = read_header(data)
    if header is not None:
        return header.upright_size_px
    height, width, _ = _picture(data).pixels.shape
    return height, width


def is_compressed(message: Any) -> bool:
    """Whether the message is a CompressedImage."""
    return hasattr(message, "format")


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


def decode(message: Any, topic: str) -> NDArray[np.uint8]:
    """The pixels of a message, (h, w, 3) or (h, w).

    Raises:
        BadFrame: the data are damaged, or fewer than the size needs.
        InputError: an encoding that is not known, or needs OpenCV where that is not installed.
    """
    if not is_compressed(message):
        return _decode_raw(message, topic)
    picture = _picture(message.data.tobytes())
    pixels = picture.pixels[..., 0] if picture.is_grey else picture.pixels
    bayer = next((name for name in BAYER if f"compressed {name}" in message.format), None)
    return _demosaic(pixels, bayer, topic) if bayer and pixels.ndim == 2 else pixels


def _picture(data: bytes) -> Picture:
    try:
        return decode_picture(data)
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise BadFrame("damaged") from error


def is_16_bit(message: Any) -> bool:
    """Whether the message's values are cut down to 8 bits."""
    return not is_compressed(message) and message.encoding.endswith(("16", "16UC1"))


def encode(pixels: NDArray[np.uint8], *, png: bool) -> tuple[bytes, str]:
    """A file of pixels, and its ending."""
    out = BytesIO()
    image = Image.fromarray(pixels)
    if png:
        image.save(out, "PNG", compress_level=PNG_LEVEL)
        return out.getvalue(), ".png"
    image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
    return out.getvalue(), ".jpg"


def rows(message: Any, dtype: str, channels: int = 1) -> NDArray[Any]:
    """The values of an Image, (h, w) or (h, w, channels) in the machine's order of bytes, without the padding of its rows.

    Raises:
        BadFrame: fewer data than the size needs.
    """
    height, width = int(message.height), int(message.width)
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    row_bytes = width * channels * kind.itemsize
    step = int(message.step) or row_bytes
    data = message.data
    # The last row need not be padded.
    if not height or not width or step < row_bytes or data.size < (height - 1) * step + row_bytes:
        raise BadFrame("damaged")
    strided = np.lib.stride_tricks.as_strided(data, (height, row_bytes), (step, 1), writeable=False)
    values = np.ascontiguousarray(strided).view(kind).astype(kind.newbyteorder("="), copy=False)
    return values.reshape((height, width, channels) if channels > 1 else (height, width))


def opencv(why: str) -> Any:
    """OpenCV; ``InputError`` saying what it is needed for where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"{why} needs OpenCV ({error}): pip install opencv-python-headless") from error
    return cv2


def _decode_raw(message: Any, topic: str) -> NDArray[np.uint8]:
    encoding = message.encoding
    base = encoding.removesuffix("8") if encoding.removesuffix("8") in CHANNELS else WIDE.get(encoding, encoding)
    if base in CHANNELS:
        channels = 4 if base in ("rgba", "bgra", "8UC4") else 3
        values = rows(message, "u2" if encoding in WIDE else "u1", channels)
        return _as_rgb(_to_8_bits(values), CHANNELS[base])
    if encoding in GREY:
        return _to_8_bits(rows(message, GREY[encoding]))
    pattern, bits = encoding.rstrip("0123456789"), encoding[len("bayer_rggb") :]
    if pattern in BAYER and bits in ("8", "16"):
        return _demosaic(_to_8_bits(rows(message, "u2" if bits == "16" else "u1")), pattern, topic)
    if encoding in YUV:
        return _from_yuv(message, topic)
    raise InputError(
        f"{topic}: encoding {encoding!r} is not known; known are rgb8, bgr8, rgba8, bgra8, mono8, mono16, bayer_*, yuv422, nv12 and "
        "compressed JPEG or PNG; name another topic with --image_topic"
    )


def _as_rgb(values: NDArray[np.uint8], order: tuple[int, ...]) -> NDArray[np.uint8]:
    if values.shape[2] == 3 and order == (0, 1, 2):
        return values
    # Channel by channel: a third of the time that numpy takes to gather pixels.
    out = np.empty((*values.shape[:2], 3), np.uint8)
    for i, channel in enumerate(order):
        out[..., i] = values[..., channel]
    return out


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return (values >> 8).astype(np.uint8) if values.dtype.itemsize == 2 else values


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
