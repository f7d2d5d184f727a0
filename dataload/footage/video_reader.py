"""Videos and cameras opened and decoded: frames upright, with their times; what is damaged is skipped and reported. Needs PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.system.installing import pip_install
from dataload.system.machine import usable_cores
from splits.errors import InputError
from splits.faults import first_line, parsing
from splits.limits import VIDEO_FRAME_BYTES

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

DEVICE_TIMEOUT_S = 10
# Files that hold their pictures themselves. FFmpeg's others name further files and addresses (playlists, lists of parts), and would read
# what somebody else has written there, whatever the file is called.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,mxf_opatom,h264,hevc,vvc,av1,obu,"
    "ivf,m4v,mjpeg,mpjpeg,vc1,h263,h261,dirac,nut,dv,gif,apng,rm,nsv,gxf,wtv,dhav,yuv4mpegpipe,webp"
)
# A decoder keeps up to sixteen frames for each of its threads: large ones are decoded by fewer.
PIXELS_IN_THREADS = 2**26


@dataclass
class Damage:
    """What could not be decoded: packets left out, and why reading ended early."""

    packets: int = 0
    ended: str | None = None

    def __str__(self) -> str:
        left_out = f"{self.packets} damaged packets are left out" if self.packets else ""
        return "; ".join(part for part in (left_out, f"reading ended early ({self.ended})" if self.ended else "") if part)


class DecodedFrame(NamedTuple):
    """A frame as it was decoded, its pixels not yet converted.

    Attributes:
        time_s: when it is shown, from the video's beginning; None where the file does not say.
    """

    frame: VideoFrame
    time_s: float | None

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.frame.rotation % 180 else (height, width)

    def upright_pixels(self) -> NDArray[np.uint8]:
        """The picture (h, w, 3), turned as players turn it."""
        pixels = self.frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        return np.rot90(pixels, self.frame.rotation // 90)  # both count counterclockwise


def require_av() -> None:
    """Raise InputError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(f"videos and webcams need PyAV ({error}): {pip_install('video')}") from error


def open_video(name: str, file: str, *, device: str | None = None, options: dict[str, str] | None = None) -> InputContainer:
    """Open what FFmpeg calls ``file``, called ``name`` in messages.

    Args:
        device: FFmpeg's format of a device or generator; None for a file.

    Raises:
        InputError: no such device, a damaged file, or one without pictures.
    """
    import av

    if device is None and Path(file).stat().st_size == 0:
        raise InputError(f"{name} is empty (0 bytes); copy it again")
    most = {"max_pixels": str(VIDEO_FRAME_BYTES.most)}  # asked before a picture is decoded, which is also done to find out its format
    try:
        if device is None:
            # An absolute path is no address.
            only = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
            container = av.open(os.path.abspath(file), options=only | most | (options or {}))
        else:
            container = av.open(file, format=device, options=options or {}, timeout=DEVICE_TIMEOUT_S)
    except Exception as error:  # FFmpeg's, and what PyAV makes of names and numbers that are none
        refused = device is None and isinstance(error, av.error.ArgumentError)
        reason = "a list of other files, or no camera's format" if refused else getattr(error, "strerror", None) or first_line(error)
        if device is not None:
            raise InputError(f"{name} cannot be opened ({file}: {reason}); check that it is plugged in and free") from error
        raise InputError(f"{name} cannot be read as a video ({reason})") from error
    try:
        with parsing(name, "a video", "convert it, for instance with ffmpeg"):
            _require_pictures(container, name, most)
    except BaseException:
        container.close()
        raise
    return container


def _require_pictures(container: InputContainer, name: str, most: dict[str, str]) -> None:
    """``InputError`` where there are none, or larger ones than are read."""
    if not container.streams.video:
        raise InputError(f"{name} holds no pictures, only sound or text")
    context = container.streams.video[0].codec_context
    if context is None:
        raise InputError(f"{name} is in a format that FFmpeg has no decoder for")
    pixels, bits = context.height * context.width, context.format.padded_bits_per_pixel if context.format else 0
    if not pixels:
        most_bytes = f"{VIDEO_FRAME_BYTES.most:,} bytes each ({VIDEO_FRAME_BYTES.variable} takes more)"
        raise InputError(f"{name} shows no picture that can be read: it is damaged, or its pictures have more than {most_bytes}")
    VIDEO_FRAME_BYTES.require(pixels * bits // 8, name)
    context.options = most
    context.thread_count = max(1, min(usable_cores(), PIXELS_IN_THREADS // pixels))


def decode_frames(container: InputContainer, damage: Damage, *, from_s: float = 0.0) -> Iterator[DecodedFrame]:
    """The frames of the first video stream in the order they are shown; ``damage`` collects what could not be decoded.

    Args:
        from_s: what is shown before that time need not be decoded; some of it is yielded nevertheless.
    """
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    start_s = _seek(container, from_s) if from_s > 0 else None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            decoded = [] if packet is None else packet.decode()
        except av.error.InvalidDataError:
            damage.packets += 1
            continue
        except Exception as error:  # FFmpeg's, and what PyAV makes of numbers that are none
            damage.ended = getattr(error, "strerror", None) or first_line(error)
            return
        if packet is None:
            return
        for frame in decoded:
            start_s = frame.time if start_s is None else start_s
            yield DecodedFrame(frame, None if frame.time is None or start_s is None else frame.time - start_s)


def _seek(container: InputContainer, from_s: float) -> float | None:
    """Go to the last frame before ``from_s`` that stands alone; returns the time of the video's beginning, None where it stays there."""
    import av

    stream = container.streams.video[0]
    if stream.start_time is None or stream.time_base is None:
        return None
    try:
        container.seek(stream.start_time + int(from_s / stream.time_base), stream=stream)
    except (av.error.FFmpegError, ArithmeticError):  # a file without an index is read from its beginning
        return None
    return float(stream.start_time * stream.time_base)
