"""Videos to sequences of frames in the layout of ``--dataset folder``: ``<out>/<video's name>/<number>.jpg``."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dataload.datasets import SPLITS_FOLDER
from dataload.datasets.timeline import image_names
from dataload.footage.identity import OTHER, SAME, compare, describe, identify
from dataload.footage.video_reader import Damage, DecodedFrame, decode_frames, open_video
from dataload.frames.calibration import FILE_NAME, Calibration, Intrinsics, write_calibration
from dataload.frames.camera_formats import LEFT
from dataload.frames.picture import IMAGE_SUFFIXES, read_picture
from dataload.system.files import find_like_named, whole_folder
from dataload.system.locks import hold
from dataload.system.progress import progress_bar
from dataload.system.threads import Room, in_threads
from splits.errors import InputError
from splits.faults import parsing
from splits.reading import read_json

if TYPE_CHECKING:
    from av.container import InputContainer
    from tqdm import tqdm

# As KITTI's: a car moves about a metre between neighbours, enough to see depth by, and at 30 per second the disk would hold three times as
# much of nearly the same.
FPS = 10.0
JPEG_QUALITY = 95
# Fast; higher levels save a few per cent.
PNG_LEVEL = 3
# Most files round their times: a frame that is early by this share of a period counts as on time.
SLACK = 0.05
# Written last: what a sequence was made of and how. A folder without it was not made here.
MARKER, MARKER_IS = "video.json", "what md-data from-video writes beside the frames of a video"
MOST_COUNT = 10**9  # of frames, or of pixels
# Names that a sequence's folder cannot have: these folders of a dataset hold something else.
TAKEN = (SPLITS_FOLDER, "left", "right", "depth")
# A video that ends this much earlier than it says is cut off; sound often lasts a little longer than pictures.
MISSING_S, MISSING_SHARE = 2.0, 0.05
IMAGES_REMEDY = "folders of images need no conversion: md-data splits --from the folder above them, then --dataset folder"
# Frames that wait to be written hold their memory, some bytes per pixel with what is made of them: eight, or fewer large ones.
FRAMES_AHEAD, FRAMES_BYTES, BYTES_PER_PIXEL = 8, 2**29, 8


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which frames of a video are taken, and how they are written.

    Attributes:
        fps: frames per second; all where the video has fewer.
        start_s, end_s: from and to which second of the video; None is its end.
        png: without loss, at several times the bytes.
        intrinsics: fx, fy, cx, cy in pixels of the upright frames, or of frames of the width and height that follow.
    """

    fps: float = FPS
    start_s: float = 0.0
    end_s: float | None = None
    png: bool = False
    intrinsics: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"--fps {self.fps:g} must be above 0 frames per second")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise InputError(f"--start {self.start_s:g} must be a second of the video, 0 or more")
        if self.end_s is not None and not self.end_s > self.start_s:
            raise InputError(f"--end {self.end_s:g} must be later than --start {self.start_s:g}")
        if self.intrinsics is not None:
            if len(self.intrinsics) not in (4, 6):
                raise InputError(
                    "--intrinsics: give FX FY CX CY in pixels of the frames, or FX FY CX CY WIDTH HEIGHT of frames of that size"
                )
            self.camera((1, 1))

    def camera(self, size_px: tuple[int, int]) -> Intrinsics | None:
        """The camera of frames of that (height, width); None where it is not known."""
        if self.intrinsics is None:
            return None
        fx, fy, cx, cy, *size = self.intrinsics
        width, height = map(int, size) if size else (size_px[1], size_px[0])
        return Intrinsics(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, width_px=width, height_px=height)


class VideoSequence(NamedTuple):
    """The sequence made from a video.

    Attributes:
        frames, size_px: how many, of which (height, width).
        fault: what of the video could not be read; empty where all could.
        already: an earlier run made it.
    """

    folder: Path
    frames: int
    size_px: tuple[int, int]
    fault: str
    already: bool = False


def sequences_of(videos: Sequence[Path], sequence: str | None) -> dict[str, Path]:
    """The video of each sequence, called by its file's name without the ending, or the one by ``sequence``.

    Raises:
        InputError: no such file, or names that are taken or the same.
    """
    if sequence is not None and len(videos) > 1:
        raise InputError(
            f"--sequence {sequence} names one sequence, and there are {len(videos)} videos; leave it out, or convert them apart"
        )
    named: dict[str, Path] = {}
    for video in videos:
        if not video.is_file():
            raise InputError(f"{video} {_describe_no_file(video)}")
        if video.suffix.lower() in IMAGE_SUFFIXES:
            raise InputError(f"{video} is an image; {IMAGES_REMEDY}")
        name = video.stem if sequence is None else sequence
        if not name or name in TAKEN or name.startswith(".") or "/" in name or "\\" in name:
            raise InputError(f"{video}: a sequence cannot be called {name!r}; give it another name with --sequence")
        if name in named and named[name].resolve() != video.resolve():
            raise InputError(f"{named[name]} and {video} would both be sequence {name}; convert them apart, one with --sequence")
        named[name] = video
    return named


def _describe_no_file(path: Path) -> str:
    if any(True for _ in image_names(path)):
        return f"is a folder of images; {IMAGES_REMEDY}"
    if path.is_dir():
        return "is a folder; name the videos in it"
    near = find_like_named(path)
    return f"does not exist; {f'did you mean {near}?' if near else 'check the path'}"


def extract(name: str, video: Path, out: Path, options: FrameOptions) -> VideoSequence:
    """Write a video's frames into ``<out>/<name>``, which appears when it is complete; an existing one of this video is kept.

    Frames are numbered by their period of 1 / fps seconds from the start, so that what is missing shows as a gap. The frames of a video
    that has grown since, because it was cut off then, are made again.

    Raises:
        InputError: no video, none of its frames in that time, or another sequence in that folder, or one that another process writes.
        OSError: a full disk.
    """
    folder = out / name
    with hold(folder, "wait until it has ended, or choose another --out or --sequence", folder=True):
        made = _existing_sequence(folder, video, options) if folder.exists() else None
        if made is None:
            made = _make_sequence(folder, video, options)
        camera = options.camera(made.size_px)
        if camera is not None:
            write_calibration(folder / FILE_NAME, Calibration(cameras={LEFT: camera}, source={"video": video.name, "hz": options.fps}))
    return made


def _make_sequence(folder: Path, video: Path, options: FrameOptions) -> VideoSequence:
    recording = identify(video, [video])
    with whole_folder(folder) as partial:
        frames, size_px, fault = _write_frames(video, partial, options)
        size = {"height_px": size_px[0], "width_px": size_px[1]}
        facts = {"recording": recording, **_how(options), "frames": frames, **size, "fault": fault}
        (partial / MARKER).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if (folder / FILE_NAME).is_file():  # the video has grown, its camera is the same
            shutil.copyfile(folder / FILE_NAME, partial / FILE_NAME)
    return VideoSequence(folder, frames, size_px, fault)


def _how(options: FrameOptions) -> dict[str, Any]:
    """The options that, with the video, decide which frames a sequence holds."""
    return {"fps": options.fps, "start_s": options.start_s, "end_s": options.end_s, "png": options.png}


def _existing_sequence(folder: Path, video: Path, options: FrameOptions) -> VideoSequence | None:
    """The sequence that is there already; None where the video has grown since; ``InputError`` where it is another one."""
    remedy = "choose another --out or --sequence"
    if not (folder / MARKER).exists():
        raise InputError(f"{folder} exists already, and is not from md-data from-video; {remedy}")
    facts = read_json(folder / MARKER, MARKER_IS, remedy)
    with parsing(folder / MARKER, MARKER_IS, remedy):
        made = _sequence_of(folder, facts)
    likeness = compare(facts.get("recording"), [video])
    if likeness == OTHER:
        raise InputError(
            f"{folder} was made of another video, {describe(facts.get('recording'))}, not of {video} as it is now; convert this one alone "
            "with --sequence NAME, or remove that folder"
        )
    other = [f"{name} {facts.get(name)}" for name, value in _how(options).items() if facts.get(name) != value]
    if other:
        raise InputError(
            f"{folder} exists already, made with other options ({', '.join(other)}); remove it to make it from {video.name} again, "
            "or choose another --out or --sequence"
        )
    return made if likeness == SAME else None


def _sequence_of(folder: Path, facts: Any) -> VideoSequence:
    """The sequence that a marker describes; raises what its content brings about."""
    counts, fault = [facts[name] for name in ("frames", "height_px", "width_px")], facts["fault"]
    if not all(type(count) is int and 0 < count < MOST_COUNT for count in counts) or not isinstance(fault, str):
        raise ValueError("its numbers are none of frames and pixels")
    frames, height, width = counts
    return VideoSequence(folder, frames, (height, width), fault, already=True)


@dataclass
class _Tally:
    """What has been taken of a video so far."""

    frames: int = 0
    size_px: tuple[int, int] | None = None
    last_s: float = 0.0


def _write_frames(video: Path, folder: Path, options: FrameOptions) -> tuple[int, tuple[int, int], str]:
    """Write the frames; returns how many, their (height, width), and what of the video could not be read."""
    damage, taken = Damage(), _Tally()
    with open_video(str(video), str(video)) as container:
        jobs = _write_jobs(container, folder, options, damage, taken)
        with _bar(container, video.name, options) as bar, closing(in_threads(jobs, ahead=FRAMES_AHEAD)) as written:
            for _ in written:
                bar.update()
        length_s = _length_s(container)
    if taken.size_px is None:
        part = f"from second {options.start_s:g}" + ("" if options.end_s is None else f" to {options.end_s:g}")
        raise InputError(f"{video} holds no frame {part} that can be read ({str(damage) or f'it lasts {length_s or taken.last_s:.1f} s'})")
    cut_off = length_s is not None and taken.last_s < length_s - max(MISSING_S, MISSING_SHARE * length_s)
    if options.end_s is None and cut_off and damage.ended is None:
        damage.ended = f"at {taken.last_s:.1f} of {length_s:.1f} s"
    return taken.frames, taken.size_px, str(damage)


def _write_jobs(
    container: InputContainer, folder: Path, options: FrameOptions, damage: Damage, taken: _Tally
) -> Iterator[Callable[[], None]]:
    """Reads the frames to be taken and yields what writes each; ends where their size changes."""
    room = Room(FRAMES_BYTES)
    for decoded, time_s, number in _frames_with_times(container, damage, options):
        taken.last_s = time_s
        if number is None:
            continue
        size_px = taken.size_px = taken.size_px or decoded.size_px
        if decoded.size_px != size_px:
            damage.ended = f"its pictures change their size from {size_px[1]}x{size_px[0]} at {time_s:.1f} s"
            return
        taken.frames += 1
        room.take(BYTES_PER_PIXEL * math.prod(size_px))
        yield partial(_write, folder / f"{number:06d}", decoded, options.png, room)


def _frames_with_times(
    container: InputContainer, damage: Damage, options: FrameOptions
) -> Iterator[tuple[DecodedFrame, float, int | None]]:
    """Each frame until the end with its time and, if it is the first in its period, the period's number."""
    stream = container.streams.video[0]
    own_fps = float(stream.average_rate or stream.guessed_rate or 25)
    last = -1
    for index, decoded in enumerate(decode_frames(container, damage, from_s=options.start_s)):
        time_s = decoded.time_s if decoded.time_s is not None else index / own_fps
        if options.end_s is not None and time_s >= options.end_s:
            return
        number = math.floor((time_s - options.start_s) * options.fps + SLACK)
        is_first = number > last
        last = max(last, number)
        yield decoded, time_s, number if is_first and number >= 0 else None


def _write(path: Path, decoded: DecodedFrame, png: bool, room: Room) -> None:
    try:
        with parsing(path.parent.name, "a video whose frames can be written", "scale it down, for instance with ffmpeg"):
            content = _encode(decoded, png=png)
        path.with_suffix(".png" if png else ".jpg").write_bytes(content)
    finally:
        room.give(BYTES_PER_PIXEL * math.prod(decoded.size_px))


def _encode(decoded: DecodedFrame, *, png: bool) -> bytes:
    import numpy as np
    import simplejpeg
    from PIL import Image

    pixels = np.ascontiguousarray(decoded.upright_pixels())
    if not png:
        return bytes(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, "RGB", "420"))
    written = BytesIO()
    Image.fromarray(pixels).save(written, "PNG", compress_level=PNG_LEVEL)
    return written.getvalue()


def _length_s(container: InputContainer) -> float | None:
    """How long the video lasts by its own account."""
    stream = container.streams.video[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


def _bar(container: InputContainer, name: str, options: FrameOptions) -> tqdm[Any]:
    stream = container.streams.video[0]
    end_s = min(_length_s(container) or math.inf, options.end_s or math.inf)
    rate = min(options.fps, float(stream.average_rate or options.fps))
    total = None if math.isinf(end_s) else max(1, round((end_s - options.start_s) * rate))
    return progress_bar(total, name, "frames", stays=False)


def write_sheet(out: Path, folders: Sequence[Path]) -> Path:
    """``<out>/splits/contact_sheet.jpg``: frames of the sequences, evenly chosen, at most 24."""
    from dataload.footage.contact_sheet import MAX_TILES, Tile, reduced, write_contact_sheet

    images = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in (".jpg", ".png")]
    count = min(MAX_TILES, len(images))
    shown = (images[(2 * number + 1) * len(images) // (2 * count)] for number in range(count))
    tiles = [Tile(f"{path.parent.name} {path.stem}", reduced(read_picture(path))) for path in shown]
    return write_contact_sheet(out / SPLITS_FOLDER / "contact_sheet.jpg", tiles)
