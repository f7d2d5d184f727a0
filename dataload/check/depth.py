"""The check that ground truth is there, in metres, and of the images' shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dataload.check.frames import Frames, Size, format_size
from dataload.check.lists import FrameList, spread
from dataload.check.report import Report, count
from dataload.datasets.base import Dataset, some
from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.datasets.presence import require_ground_truth
from dataload.datasets.sequences import SequenceDataset
from dataload.frames.depth_file import FORMATS
from dataload.frames.frame_ref import FrameRef
from dataload.ground_truth import dataset_for
from dataload.system.figures import figure, percent
from dataload.system.threads import in_threads
from splits.errors import InputError

# Depth maps of a list that are read.
MAX_MAPS = 64
# The middle of what a camera sees, from a desk to an open road.
PLAUSIBLE_MEDIAN_M = (0.3, 200.0)
LEAST_SHARE = 1e-3
# What depth cameras write instead of 1/256 m, and how far they reach.
PER_M_IN_MM = 1000
MAX_RANGE_MM = 20_000
# Depth is compared with predictions resized to it: other shapes show other parts of the scene.
ASPECT_TOLERANCE = 0.02


class _Map(NamedTuple):
    """What one depth map measures; metres."""

    ref: FrameRef
    size_px: Size
    median_m: float
    near_m: float
    far_m: float
    share: float


def inspect_depth(dataset: Dataset, lists: Sequence[FrameList], frames: Frames, split: str | None, report: Report) -> None:
    """Report how many targets of each list have ground truth, and whether some of it is plausible."""
    judge = dataset_for(split, dataset) if split is not None else dataset
    for part in lists:
        rule = dataset if part.is_trained_on else judge
        measured = [ref for ref in part.used if rule.depth_source(ref) is not None]
        report.facts["lists"][part.name]["with_depth"] = len(measured)
        if part.name.startswith("test") and len(measured) < len(part.used) and not (measured and rule.depth_is_optional):
            _warn_unscored(rule, part, report)
        if measured:
            _report_maps(rule, part, measured, frames, report)
        elif part.used:
            report.say("Depth", f"{part.name}: none")
            _report_unread(rule, part, report)


def _warn_unscored(dataset: Dataset, part: FrameList, report: Report) -> None:
    """Training needs no ground truth; evaluation does."""
    try:
        require_ground_truth(dataset, part.used)
    except InputError as error:
        report.warn(f"{part.name}: md-eval cannot score it: {error}")


def _report_maps(dataset: Dataset, part: FrameList, measured: Sequence[FrameRef], frames: Frames, report: Report) -> None:
    chosen = spread(measured, MAX_MAPS)
    outcomes = list(in_threads(partial(_measure, dataset, ref) for ref in chosen))
    faults = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
    if faults:
        report.problem(
            f"{part.name}: {sum(faults.values())} of {count(len(chosen), 'depth map')} read cannot be used: {next(iter(faults))}"
        )
    maps = [outcome for outcome in outcomes if isinstance(outcome, _Map)]
    if not maps:
        return
    median_m, share = (float(np.median([getattr(m, name) for m in maps])) for name in ("median_m", "share"))
    near_m, far_m = min(m.near_m for m in maps), max(m.far_m for m in maps)
    sizes = ", ".join(format_size(size) for size, _ in Counter(m.size_px for m in maps).most_common(3))
    report.say(
        "Depth",
        f"{part.name}: {len(measured):,} of {count(len(part.used), 'target')}; in {len(chosen)} of them "
        f"{figure(near_m)} to {figure(far_m)} m, median {figure(median_m)} m, {percent(share)} of pixels, {sizes}",
    )
    report.facts["lists"][part.name]["depth"] = {
        "maps_read": len(chosen), "median_m": median_m, "near_m": near_m, "far_m": far_m, "measured_share": share,
    }  # fmt: skip
    least, most = PLAUSIBLE_MEDIAN_M
    if not least <= median_m <= most:
        report.problem(
            f"{part.name}: depth of {figure(median_m)} m in the median, at most {figure(far_m)} m, is hardly metres; "
            "give the files' units per metre with --depth_scale, or as 'depth: {scale: VALUE}' in calibration.yaml"
        )
    if share < LEAST_SHARE:
        report.warn(f"{part.name}: depth measures only {percent(share)} of pixels")
    _report_assumed_scale(dataset, part, maps, report)
    _compare_shapes(dataset, part, maps, frames, report)


def _report_unread(dataset: Dataset, part: FrameList, report: Report) -> None:
    """Report files where depth is looked for, none of which is read."""
    folders = {places[0].parent: places[0] for places in map(dataset.depth_places, part.used) if places}
    for folder, wanted in folders.items():
        others = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        if others:
            report.problem(
                f"{part.name}: {dataset.relative(folder)} holds {count(len(others), 'file')} as {others[0]}, none of which is a "
                f"frame's depth: depth has its frame's name, as {wanted.name}, and is {FORMATS}; write it so, or remove the folder"
            )
            return


def _report_assumed_scale(dataset: Dataset, part: FrameList, maps: Sequence[_Map], report: Report) -> None:
    """Report a unit that is not given: integers of 1/256 m and of millimetres look alike, above all within the reach of depth cameras."""
    if not isinstance(dataset, SequenceDataset):
        return
    assumed = [found for found in maps if dataset.assumes_depth_scale(found.ref)]
    if not assumed:
        return
    near_m, far_m = min(found.near_m for found in assumed), max(found.far_m for found in assumed)
    in_mm = PNG_PER_M / PER_M_IN_MM
    tell = report.problem if far_m * PNG_PER_M <= MAX_RANGE_MM else report.warn
    tell(
        f"{part.name}: nothing says what depth's integers mean: read as 1/{PNG_PER_M:g} m they are {figure(near_m)} to {figure(far_m)} m, "
        f"as millimetres {figure(near_m * in_mm)} to {figure(far_m * in_mm)} m; write 'depth: {{scale: {PNG_PER_M:g}}}' or "
        f"'depth: {{scale: {PER_M_IN_MM}}}' into calibration.yaml, or give --depth_scale"
    )


def _measure(dataset: Dataset, ref: FrameRef) -> _Map | str:
    """What a frame's depth measures, or why it cannot be used."""
    try:
        depth_m = dataset.depth_m(ref)
    except InputError as error:
        return str(error)
    source = dataset.depth_source(ref)
    if depth_m is None:
        return f"{source} gives no depth"
    values_m = depth_m[depth_m > 0]
    if not values_m.size:
        return f"{source} measures no pixel; remove the file"
    height, width = depth_m.shape
    return _Map(
        ref, (height, width), float(np.median(values_m)), float(values_m.min()), float(values_m.max()), values_m.size / depth_m.size
    )


def _compare_shapes(dataset: Dataset, part: FrameList, maps: Sequence[_Map], frames: Frames, report: Report) -> None:
    others = []
    for found in maps:
        image_px = frames.size_px(dataset.image_folder(found.ref.folder, dataset.side(found.ref)))
        if image_px is None:
            continue
        aspects = [size[1] / size[0] for size in (found.size_px, image_px)]
        if abs(aspects[0] / aspects[1] - 1) > ASPECT_TOLERANCE:
            others.append(f"{found.ref.line}: {format_size(found.size_px)} of {format_size(image_px)}")
    if others:
        report.problem(
            f"{part.name}: {count(len(others), 'depth map')} of another shape than their images ({some(others)}): their pixels do not lie "
            "on each other; make depth for the whole image"
        )
