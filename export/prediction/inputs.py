"""The inputs that ``--image`` names: images, folders, patterns, videos, a webcam; and images decoded, upright, in 8-bit RGB."""

from __future__ import annotations

import glob
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dataload.frames.picture import IMAGE_SUFFIXES, read_picture
from dataload.system.files import find_like_named
from dataload.system.locks import hold
from dataload.system.shell import quoted
from export.choices import ENDINGS, VIDEO_ENDING, OutputConfig
from splits.errors import InputError

EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
VIDEO_EXTENSIONS = (
    "mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "mts", "m2ts", "ts", "wmv", "flv", "3gp", "ogv", "h264", "h265",
)  # fmt: skip
# Our own pictures and videos, which are no input when a folder is predicted again.
OWN_ENDINGS = (*(ending for ending in ENDINGS.values() if ending.startswith("_")), VIDEO_ENDING)

# With more outputs than this, whole folders are held.
MOST_HELD_FILES = 16


class Inputs(NamedTuple):
    """What is to be predicted; only one of the three is filled."""

    images: list[Path]
    videos: list[Path]
    webcam: int | None = None


def find_inputs(sources: Sequence[Path], ext: str | None = None) -> Inputs:
    """The files that ``sources`` (images, videos, folders, patterns) name, each once; or the webcam, when its number is all there is.

    Args:
        ext: take only this extension of a folder or pattern (with or without its dot, any case); None takes all of ``EXTENSIONS``.

    Raises:
        InputError: no such path, nothing in it, not permitted, or images and videos together.
    """
    if len(sources) == 1 and str(sources[0]).isdecimal() and not sources[0].exists():
        return Inputs([], [], int(str(sources[0])))
    files = list(dict.fromkeys(path for source in sources for path in _files_of(source, ext)))
    if len(sources) > 1:  # a pattern that the shell has resolved
        files = [path for path in files if not path.name.endswith(OWN_ENDINGS)]
        if not files:
            raise InputError("--image names only pictures that md-predict wrote; give the images they were made of")
    videos = [path for path in files if _extension(path) in VIDEO_EXTENSIONS]
    if videos and len(videos) < len(files):
        image = next(path for path in files if path not in videos)
        raise InputError(f"{image} is an image and {videos[0]} a video; predict images and videos apart")
    return Inputs([], files) if videos else Inputs(files, [])


def _extension(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _files_of(source: Path, ext: str | None) -> list[Path]:
    try:
        if source.is_file():
            return [source]
        if source.is_dir():
            pattern = f"name others by a quoted pattern such as {quoted(Path(glob.escape(str(source)), '**', '*.gif'))}"
            return _choose(source.iterdir(), ext, f"folder {source} holds no", pattern)
        if source.exists():
            raise InputError(f"{source} is neither a file nor a folder; give an image, a video or a folder of images")
    except PermissionError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); check its permissions") from error
    if not glob.has_magic(str(source)):
        raise InputError(_describe_missing(source))
    own = ext is None and _extension(source).isalnum()  # '*.gif' names its extension itself
    found = map(Path, glob.glob(str(source), recursive=True))
    return _choose(found, _extension(source) if own else ext, f"{source} matches no", "check the pattern")


def _choose(paths: Iterable[Path], ext: str | None, failure: str, remedy: str) -> list[Path]:
    wanted = EXTENSIONS if ext is None else (ext.lower().removeprefix("."),)
    files = sorted(path for path in paths if _extension(path) in wanted and path.is_file())
    files = [path for path in files if not path.name.endswith(OWN_ENDINGS)]
    if not files:
        raise InputError(f"{failure} {', '.join(wanted)} image; {remedy}")
    return files


def _describe_missing(path: Path) -> str:
    """The message on a missing path, with the nearest name in its folder."""
    near = find_like_named(path)
    hint = f"did you mean {near}?" if near else "give an image, a video, a folder of images or a quoted pattern"
    return f"{path} does not exist; {hint}"


def check_outputs(files: Sequence[Path], out: Path | None) -> None:
    """Make sure, before anything is computed, that each file has an output of its own and that the folders can be written to.

    Raises:
        InputError: two files of one name, or a folder that cannot be made or written to.
    """
    homes = Counter((out or path.parent, path.stem) for path in files)
    for (folder, stem), count in homes.items():
        if count > 1:
            twice = [path for path in files if path.stem == stem and (out or path.parent) == folder]
            apart = len({path.parent for path in twice}) > 1
            remedy = "leave out --out, or predict their folders apart" if apart else "choose one kind with --ext"
            raise InputError(f"{' and '.join(map(str, twice))} would write the same files {folder / stem}_*; {remedy}")
    for folder in dict.fromkeys(folder for folder, _ in homes):
        require_writable(folder)


@contextmanager
def hold_outputs(inputs: Inputs, config: OutputConfig) -> Iterator[None]:
    """Hold what is to be written: a few files each, so that others may be written beside them; of more, their folders.

    Raises:
        InputError: another process writes there.
    """
    videos = inputs.videos if inputs.webcam is None else [Path(f"webcam{inputs.webcam}")]
    outputs = [config.path(image, name) for image in inputs.images for name in config.formats]
    outputs += [config.video_path(video) for video in videos]
    if len(outputs) > MOST_HELD_FILES:
        outputs = list(dict.fromkeys(path.parent for path in outputs))
    with ExitStack() as stack:
        for path in outputs:
            stack.enter_context(hold(path, "wait until it has ended, or give another --out", folder=True))
        yield


def require_writable(folder: Path) -> None:
    """Make ``folder`` where it is missing, and a file in it for a moment, which is the one check that also knows read-only disks.

    Raises:
        InputError: neither works.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); choose another folder with --out") from error


def read_image(path: Path) -> Image.Image:
    """The image upright, in 8-bit RGB; ``InputError`` as ``read_picture``."""
    return Image.fromarray(read_picture(path))
