"""Depth of videos and webcams: each frame beside its prediction, written as an mp4. Needs PyAV (the extra ``video``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from fractions import Fraction
from itertools import islice, repeat, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.footage.video_reader import Damage, decode_frames, open_video
from dataload.system.files import whole_file
from dataload.system.threads import in_threads
from engine.interrupt import Stop
from engine.pictures import BRIGHT_PERCENTILE, TINY, colour, side_by_side
from engine.resample import resize
from export.choices import OutputConfig
from export.prediction.predict import BATCH_SIZE, Predictor
from export.runtime.fitting import resize_image
from splits.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer

# How much of the colours' range is kept from one frame to the next.
RANGE_MEMORY = 0.9
# Fine enough for every usual frame rate; MPEG-4 allows no more than 65535.
TICKS_PER_S = 60_000
UNKNOWN_RATE = 25
# Tried in this order: H.264 at a quality, or what every FFmpeg has, at a bit rate.
ENCODERS = {"libx264": {"crf": "20", "preset": "fast"}, "mpeg4": {}}
BITS_PER_PIXEL = 0.3


# Shows the progress over a number of frames (0: unknown) under a name; yields a function to call with how many more are done.
Bar = Callable[[int, str], AbstractContextManager[Callable[[int], object]]]


class Source(NamedTuple):
    """What FFmpeg opens: a file, or a device or generator of ``format``. ``name`` is for messages, ``out`` the mp4 to write."""

    name: str
    out: Path
    file: str
    format: str | None = None
    options: dict[str, str] | None = None


class Frame(NamedTuple):
    """A decoded frame, upright (H,W,3), the same at the network's size (h,w,3), and when it is shown, where the file says so."""

    image: NDArray[np.uint8]
    resized: NDArray[np.uint8]
    time_s: float | None


class Result(NamedTuple):
    """How many frames were written, and what the input lacked (None: nothing)."""

    frames: int
    failure: str | None


def video_source(path: Path, config: OutputConfig) -> Source:
    """The video file ``path``."""
    return Source(str(path), config.video_path(path), str(path))


def webcam_source(index: int, config: OutputConfig, platform: str = sys.platform) -> Source:
    """The webcam of that number, as the platform calls it.

    Raises:
        InputError: Windows has no such camera.
    """
    out = config.video_path(Path(f"webcam{index}"))
    name = f"webcam {index}"
    if platform == "darwin":
        return Source(name, out, f"{index}:none", "avfoundation", {"framerate": "30"})
    if platform == "win32":
        return Source(name, out, f"video={_directshow_name(index)}", "dshow")
    return Source(name, out, f"/dev/video{index}", "v4l2")


def _directshow_name(index: int) -> str:
    import av

    cameras = [device.name for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
    if index >= len(cameras):
        raise InputError(f"webcam {index} does not exist; there are {len(cameras)}, counted from 0")
    return cameras[index]


def open_source(source: Source) -> InputContainer:
    """Open it.

    Raises:
        InputError: no such device, a damaged file, or one without pictures.
    """
    return open_video(source.name, source.file, device=source.format, options=source.options)


def predict_source(predictor: Predictor, source: Source, colormap: str, stop: Stop, bar: Bar) -> Result:
    """Write ``source.out``: each frame, its inverse depth in colours on the right; until the source ends or ``stop`` is requested.

    The file appears whole, when it is finished. Frames keep their times and are upright; sound is not kept.

    Raises:
        InputError: nothing in it can be decoded.
        OSError: the disk is full.
    """
    damage, colours = Damage(), SmoothRange()
    with open_source(source) as container, whole_file(source.out) as temporary:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(UNKNOWN_RATE)
        reading = closing(_batches(_frames(container, predictor.size_px, damage)))  # its thread ends before the container closes
        with Movie(temporary, Fraction(rate)) as movie, reading as batches, bar(stream.frames, source.name) as advance:
            for batch in batches:
                for frame, inv_depth in zip(batch, predictor.run(np.stack([frame.resized for frame in batch])), strict=True):
                    movie.add(_panels(frame.image, inv_depth, colours.follow(inv_depth), colormap), frame.time_s)
                    advance(1)
                if stop.requested:
                    break
        if not movie.frames:
            raise InputError(f"{source.name} cannot be read as a video ({damage or 'it holds no frame'})")
    return Result(movie.frames, f"{source.name}: {damage}" if str(damage) else None)


def _panels(image: NDArray[np.uint8], inv_depth: NDArray[np.float32], ends: tuple[float, float], colormap: str) -> NDArray[np.uint8]:
    full = resize(inv_depth, (image.shape[0], image.shape[1]))
    return side_by_side([image, colour((full - ends[0]) / max(ends[1] - ends[0], TINY), colormap)])


def _batches(frames: Iterator[Frame]) -> Generator[list[Frame], None, None]:
    """Frames in batches; while one is predicted, a thread decodes the next."""
    decode = repeat(lambda: list(islice(frames, BATCH_SIZE)))
    with closing(in_threads(decode, number=1, ahead=1)) as batches:
        yield from takewhile(bool, batches)


def _frames(container: InputContainer, size_px: tuple[int, int], damage: Damage) -> Iterator[Frame]:
    for decoded in decode_frames(container, damage):
        image = decoded.upright_pixels()
        yield Frame(image, resize_image(Image.fromarray(image), size_px), decoded.time_s)


class SmoothRange:
    """The ends of the colours, least inverse depth and 95th percentile, as exponential moving averages: each frame's own would flicker."""

    def __init__(self) -> None:
        self._ends: tuple[float, float] | None = None

    def follow(self, inv_depth: NDArray[np.float32]) -> tuple[float, float]:
        """Move towards the ends of ``inv_depth`` (h,w), and return where they are now."""
        low, high = float(np.min(inv_depth)), float(np.percentile(inv_depth, BRIGHT_PERCENTILE))
        if self._ends is not None:
            low = RANGE_MEMORY * self._ends[0] + (1 - RANGE_MEMORY) * low
            high = RANGE_MEMORY * self._ends[1] + (1 - RANGE_MEMORY) * high
        self._ends = low, high
        return self._ends


class Movie:
    """An mp4 being written: H.264 where FFmpeg has libx264, else MPEG-4. Its first picture gives the size, and all others take it."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self.frames, self._last_tick = 0, -1
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Write what the encoder still holds and the file's index; nothing more where the block failed, as the file is then not kept."""
        if self._container is not None:
            try:
                if kind is None:
                    self._write(None)
            finally:
                self._container.close()

    def add(self, picture: NDArray[np.uint8], time_s: float | None) -> None:
        """Append ``picture`` (H,W,3), shown from ``time_s`` on; None is one frame after the last."""
        import av

        if self._container is None:
            self._open(picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
        width, height = self._stream.width, self._stream.height
        if picture.shape[0] < height or picture.shape[0] > height + 1 or picture.shape[1] != width:
            picture = np.asarray(Image.fromarray(picture).resize((width, height)))
        ticks = round(TICKS_PER_S / self.rate)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height]), format="rgb24")
        frame.time_base = Fraction(1, TICKS_PER_S)
        frame.pts = max(self._last_tick + 1, self._last_tick + ticks if time_s is None else round(time_s * TICKS_PER_S))
        frame.duration = ticks
        self._last_tick = frame.pts
        self._write(frame)
        self.frames += 1

    def _write(self, frame: Any) -> None:
        """Encode a frame, or with None what is left; ``InputError`` where the encoder refuses, as it does pictures beyond its own size."""
        import av

        try:
            self._container.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            size = f"{self._stream.width}x{self._stream.height}"
            raise InputError(
                f"no video of {size} pixels, frame and prediction side by side, can be written ({error.strerror}); make the input smaller"
            ) from error

    def _open(self, width: int, height: int) -> None:
        import av

        # An absolute path is no address, as "a:b" is.
        self._container = av.open(os.path.abspath(self.path), "w", format="mp4")
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        self._stream = self._container.add_stream(encoder, rate=self.rate, options=ENCODERS[encoder])
        self._stream.bit_rate = 0 if "crf" in ENCODERS[encoder] else round(BITS_PER_PIXEL * width * height * self.rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = max(width, 2), max(height, 2), "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
