"""The check that all frames of a split are there and whole: each file is decoded once, on all cores, and its size is noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataload.check.lists import FrameList
from dataload.check.report import Report, count
from dataload.config import DataConfig, usual_size
from dataload.datasets.base import OTHER_SIDE, Dataset, some
from dataload.datasets.presence import missing_files, require_files
from dataload.frames.frame_ref import FrameRef
from dataload.pipeline.decode import decode
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from dataload.system.threads import in_threads
from splits.errors import InputError

# Small enough that Ctrl-C and the bar are served several times a second.
FRAMES_PER_JOB = 8
JOBS_AHEAD = 4
# A picture whose every STRIDE_PX-th pixel is the same shows nothing.
STRIDE_PX = 16
# Squeezed by more than this, the network sees other shapes than the camera.
MAX_SQUEEZE = 1.2

Size = tuple[int, int]


class _Finding(NamedTuple):
    """What one file holds; without a size it is damaged."""

    path: Path
    size_px: Size | None
    fault: str = ""
    is_blank: bool = False


@dataclass
class Frames:
    """What all files of the lists are.

    Attributes:
        sizes: how often each (height, width) occurs in a folder.
        examples: the first file of each size in each folder.
        present: names of the files of a folder that are there and whole.
        damaged, blank: those that are not, and those that show nothing.
    """

    sizes: dict[Path, Counter[Size]] = field(default_factory=dict)
    examples: dict[tuple[Path, Size], Path] = field(default_factory=dict)
    present: dict[Path, set[str]] = field(default_factory=dict)
    damaged: list[_Finding] = field(default_factory=list)
    blank: list[Path] = field(default_factory=list)

    def size_px(self, folder: Path) -> Size | None:
        """The (height, width) of most images of a folder; None where none is whole."""
        sizes = self.sizes.get(folder)
        return sizes.most_common(1)[0][0] if sizes else None

    def whole(
        self, dataset: Dataset, refs: Sequence[FrameRef], *, frame_ids: Sequence[int] = (0,), use_stereo: bool = False
    ) -> list[FrameRef]:
        """The references all of whose frames are there and can be decoded."""
        nothing: set[str] = set()
        places: dict[tuple[str, str], set[str]] = {}

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
    """Decode every frame that the lists use; report missing, damaged and blank ones and mixed sizes."""
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
        "damaged": [dataset.relative(seen.path) for seen in frames.damaged], "blank": [dataset.relative(path) for path in frames.blank],
    }  # fmt: skip
    if frames.damaged:
        named = some([dataset.relative(seen.path) for seen in frames.damaged])
        report.problem(f"{count(len(frames.damaged), 'image')} damaged: {named}; {frames.damaged[0].fault}")
    if frames.blank:
        named = some([dataset.relative(path) for path in frames.blank])
        report.warn(f"{count(len(frames.blank), 'image')} of a single colour: {named}; take their lines out of the split")
    _report_sizes(config, dataset, frames, report)
    return frames


def _decode_all(paths: Sequence[Path], *, progress: bool) -> Frames:
    frames, cores = Frames(), usable_cores()
    jobs = (partial(_look_at, paths[first : first + FRAMES_PER_JOB]) for first in range(0, len(paths), FRAMES_PER_JOB))
    with progress_bar(len(paths), "decoding", "frame", shown=progress and bool(paths), stays=False) as bar:
        for seen in in_threads(jobs, number=cores, ahead=JOBS_AHEAD * cores):
            for each in seen:
                _note(frames, each)
            bar.update(len(seen))
    return frames


def _look_at(paths: Sequence[Path]) -> list[_Finding]:
    return [_look(path) for path in paths]


def _note(frames: Frames, seen: _Finding) -> None:
    if seen.size_px is None:
        frames.damaged.append(seen)
        return
    folder = seen.path.parent
    frames.sizes.setdefault(folder, Counter())[seen.size_px] += 1
    frames.examples.setdefault((folder, seen.size_px), seen.path)
    frames.present.setdefault(folder, set()).add(seen.path.name)
    if seen.is_blank:
        frames.blank.append(seen.path)


def _look(path: Path) -> _Finding:
    try:
        image = decode(path)
    except InputError as error:
        return _Finding(path, None, str(error))
    some_pixels = image[::STRIDE_PX, ::STRIDE_PX]
    height, width = image.shape[:2]
    return _Finding(path, (height, width), is_blank=bool((some_pixels == some_pixels[0, 0]).all()))


def _report_sizes(config: DataConfig, dataset: Dataset, frames: Frames, report: Report) -> None:
    total: Counter[Size] = Counter()
    for folder, sizes in frames.sizes.items():
        total.update(sizes)
        if len(sizes) > 1:
            (usual, usual_number), *others = sizes.most_common()
            named = some([f"{number:,} of {format_size(size)} as {frames.examples[folder, size].name}" for size, number in others])
            report.problem(
                f"{dataset.relative(folder)}: images of several sizes, {usual_number:,} of {format_size(usual)} but {named}; intrinsics "
                "hold for one size: put those of another size into a sequence of their own, or take them away"
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
