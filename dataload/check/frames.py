"""The check that all frames of a split are there and whole: each file is decoded once, on all cores, and what it is and shows is noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataload.check.lists import FrameList
from dataload.check.report import Report, count
from dataload.config import DataConfig, usual_size
from dataload.datasets.base import OTHER_SIDE, Dataset, some
from dataload.datasets.presence import missing_files, require_files
from dataload.frames.frame_ref import FrameRef
from dataload.frames.picture import inspect_picture
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from dataload.system.threads import in_threads
from splits.errors import InputError

# Small enough that Ctrl-C and the bar are served several times per second.
FRAMES_PER_JOB = 8
JOBS_AHEAD = 4
# What a picture shows is measured on every STRIDE_PX-th pixel.
STRIDE_PX = 16
# Of a single colour: no channel varies by more levels; JPEG and noise of a constant picture stay within.
MOST_FLAT = 4
# The percentile of values taken as the brightest: a few hot pixels do not count.
BRIGHT_PERCENTILE = 99
# Squeezed by more than this, the network sees other shapes than the camera.
MAX_SQUEEZE = 1.2

Size = tuple[int, int]


class Kind(NamedTuple):
    """What kind of file a picture comes from; as ``Picture`` says."""

    format: str
    bits: int
    is_grey: bool
    orientation: int

    def __str__(self) -> str:
        turned = f", turned as its EXIF orientation {self.orientation} says" if self.orientation > 1 else ""
        return f"{self.bits}-bit {'grey' if self.is_grey else 'colour'} {self.format}{turned}"


class Finding(NamedTuple):
    """What one file holds; without a size it is damaged, and ``fault`` says how.

    Attributes:
        complaint: what is damaged inside of a picture that is read all the same.
        is_blank: of a single colour.
        brightest: the value that all but a hundredth stay below, of 255.
    """

    path: Path
    size_px: Size | None
    fault: str = ""
    kind: Kind | None = None
    complaint: str = ""
    is_blank: bool = False
    brightest: int = 0


@dataclass
class Frames:
    """What the files of the lists are.

    Attributes:
        sizes: how often each (height, width) occurs in a folder.
        examples: the first file of each size in each folder.
        present: what the files of a folder hold that are there and whole, by name.
        damaged: those that are not.
    """

    sizes: dict[Path, Counter[Size]] = field(default_factory=dict)
    examples: dict[tuple[Path, Size], Path] = field(default_factory=dict)
    present: dict[Path, dict[str, Finding]] = field(default_factory=dict)
    damaged: list[Finding] = field(default_factory=list)

    def size_px(self, folder: Path) -> Size | None:
        """The (height, width) of most images of a folder; None where none is whole."""
        sizes = self.sizes.get(folder)
        return sizes.most_common(1)[0][0] if sizes else None

    def whole(
        self, dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int] = (0,), use_stereo: bool = False
    ) -> list[FrameRef]:
        """The references whose frames all exist and can be decoded."""
        nothing: dict[str, Finding] = {}
        places: dict[tuple[str, str], dict[str, Finding]] = {}

        def is_there(ref: FrameRef, frame_id: int, side: str) -> bool:
            if (ref.folder, side) not in places:
                places[ref.folder, side] = self.present.get(dataset.image_folder(ref.folder, side), nothing)
            return dataset.image_name(ref.folder, side, ref.frame_index + frame_id) in places[ref.folder, side]

        return [
            ref
            for ref in refs
            if all(is_there(ref, frame_id, dataset.side(ref)) for frame_id in frame_ids)
            and (not use_stereo or is_there(ref, 0, OTHER_SIDE[dataset.side(ref)]))
        ]


def inspect_frames(config: DataConfig, dataset: Dataset, lists: Sequence[FrameList], report: Report, *, progress: bool) -> Frames:
    """Decode every frame that the lists use; report missing and damaged ones and mixed sizes."""
    wanted: dict[Path, set[str]] = {}
    absent: set[Path] = set()
    for part in lists:
        for folder, names in part.wanted.items():
            wanted.setdefault(folder, set()).update(names.values())
        asked = (part.frame_ids, part.use_stereo)
        for refs in (part.unplaced, part.used):
            with report.faults(part.name):
                require_files(dataset, refs, frame_ids=asked[0], use_stereo=asked[1])
        absent.update(missing_files(dataset, part.used, frame_ids=asked[0], use_stereo=asked[1]))
    num_missing = len(absent) + len({(ref.folder, ref.name, ref.side) for part in lists for ref in part.unplaced})
    paths = [folder / name for folder, names in sorted(wanted.items()) for name in sorted(names)]
    paths = [path for path in paths if path not in absent]
    started = time.perf_counter()
    frames = _decode_all(paths, progress=progress)
    seconds = time.perf_counter() - started
    speed = f" in {seconds:.1f} s ({len(paths) / seconds:,.0f} frames/s)" if paths else ""
    report.say("Frames", f"{count(len(paths), 'file')} decoded{speed}, {num_missing:,} missing, {len(frames.damaged):,} damaged")
    report.facts["frames"] = {
        "decoded": len(paths), "seconds": round(seconds, 3), "missing": num_missing,
        "damaged": [dataset.relative(seen.path) for seen in frames.damaged],
    }  # fmt: skip
    if frames.damaged:
        named = some([dataset.relative(seen.path) for seen in frames.damaged])
        report.problem(f"{count(len(frames.damaged), 'image')} damaged: {named}; {frames.damaged[0].fault}")
    _report_sizes(config, dataset, frames, report)
    return frames


def _decode_all(paths: Sequence[Path], *, progress: bool) -> Frames:
    frames, cores = Frames(), usable_cores()
    jobs = (partial(_look_at, paths[first : first + FRAMES_PER_JOB]) for first in range(0, len(paths), FRAMES_PER_JOB))
    with progress_bar(len(paths), "decoding", "frames", shown=progress, stays=False) as bar:
        for seen in in_threads(jobs, number=cores, ahead=JOBS_AHEAD * cores):
            for each in seen:
                _note(frames, each)
            bar.update(len(seen))
    return frames


def _look_at(paths: Sequence[Path]) -> list[Finding]:
    return [_look(path) for path in paths]


def _note(frames: Frames, seen: Finding) -> None:
    if seen.size_px is None:
        frames.damaged.append(seen)
        return
    folder = seen.path.parent
    frames.sizes.setdefault(folder, Counter())[seen.size_px] += 1
    frames.examples.setdefault((folder, seen.size_px), seen.path)
    frames.present.setdefault(folder, {})[seen.path.name] = seen


def _look(path: Path) -> Finding:
    try:
        picture = inspect_picture(path)
    except InputError as error:
        return Finding(path, None, str(error))
    height, width = picture.pixels.shape[:2]
    some_pixels = picture.pixels[::STRIDE_PX, ::STRIDE_PX]
    return Finding(
        path, (height, width), "", Kind(picture.format, picture.bits, picture.is_grey, picture.orientation), picture.complaint,
        is_blank=int(np.ptp(some_pixels, axis=(0, 1)).max()) <= MOST_FLAT, brightest=int(np.percentile(some_pixels, BRIGHT_PERCENTILE)),
    )  # fmt: skip


def _report_sizes(config: DataConfig, dataset: Dataset, frames: Frames, report: Report) -> None:
    total: Counter[Size] = Counter()
    for folder, sizes in frames.sizes.items():
        total.update(sizes)
        if len(sizes) > 1:
            (usual, usual_number), *others = sizes.most_common()
            named = some([f"{number:,} of {format_size(size)} as {frames.examples[folder, size].name}" for size, number in others])
            report.problem(
                f"{dataset.relative(folder)}: images of several sizes, {usual_number:,} of {format_size(usual)} but {named}; intrinsics "
                "hold for one size: move those of another size into their own sequence, or remove them"
            )
    if not total:
        return
    most = ", ".join(f"{number:,} of {format_size(size)}" for size, number in total.most_common(4))
    report.say("Sizes", f"{most} ..." if len(total) > 4 else most)
    report.facts["sizes"] = {format_size(size): number for size, number in total.most_common()}
    wanted = config.size_px
    for (height, width), number in total.most_common(4):
        squeeze = (width / height) / (wanted[1] / wanted[0])
        if not 1 / MAX_SQUEEZE <= squeeze <= MAX_SQUEEZE:
            report.warn(
                f"{count(number, 'image')} of {format_size((height, width))} squeezed to {format_size(wanted)}: pixels would be "
                f"{squeeze:.2f} times as wide as high; {usual_size(height, width, max(wanted))} keeps shapes"
            )
        if width < wanted[1] and height < wanted[0]:
            report.warn(
                f"{count(number, 'image')} of {format_size((height, width))} enlarged to {format_size(wanted)}; a smaller --height and "
                "--width do"
            )


def format_size(size_px: Size) -> str:
    """A size as camera makers write it, width first."""
    return f"{size_px[1]}x{size_px[0]}"
