"""Videos made on the spot, also turned as phones turn them; what a video holds."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")

SIZE_PX = (96, 192)
BIT_PX = 16
TEXTURE = np.asarray(
    Image.fromarray(np.random.default_rng(7).integers(0, 256, (8, 80, 3), dtype=np.uint8)).resize(
        (1000, SIZE_PX[0]), Image.Resampling.BICUBIC
    )
)
ENCODER = {"crf": "8", "g": "8", "preset": "veryfast"}
# The rotation that a player has to make, clockwise in degrees, as an mp4 tells it.
MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def picture(number: int) -> np.ndarray:
    """A texture that moves by 4 px per frame; top left the frame's number, the last of its eight bits first, white on black."""
    start = 4 * number % (TEXTURE.shape[1] - SIZE_PX[1])
    image = TEXTURE[:, start : start + SIZE_PX[1]].copy()
    for bit in range(8):
        image[:BIT_PX, bit * BIT_PX : (bit + 1) * BIT_PX] = 255 * (number >> bit & 1)
    return image


def save_video(
    path: Path,
    *,
    count: int = 40,
    rate: int = 20,
    times: list[int] | None = None,
    picture: Callable[[int], np.ndarray] = picture,
    encoder: dict[str, str] = ENCODER,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of ``count`` pictures; ``times`` are theirs in 1 / rate seconds, ``options`` the container's."""
    height_px, width_px = picture(0).shape[:2]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=rate, options=encoder)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> tuple[Fraction, str, list[np.ndarray], list[float]]:
    """Rate, codec, frames and their times."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.pix_fmt == "yuv420p"
        return stream.average_rate, stream.codec_context.name, [f.to_ndarray(format="rgb24") for f in frames], [f.time for f in frames]


def turn(path: Path, clockwise: int) -> None:
    """Write a display matrix into the header of an mp4, as phones do."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in MATRICES[clockwise])
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
