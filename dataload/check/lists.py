"""The lists of a split as training uses them: which targets have their neighbours, and which targets two lists share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from dataload.check.report import Report, count
from dataload.config import DataConfig
from dataload.datasets.base import Dataset, some
from dataload.datasets.frame_table import wanted_frames
from dataload.datasets.sequences import SequenceDataset
from dataload.frames.frame_ref import NOT_ON_DISK, FrameRef
from dataload.system.figures import figure
from splits import split_folder, subset_source, subsets
from splits.errors import InputError

# The list of a dataset that has no split yet.
EVERYTHING = "all"
ORDER = ("train", "val", "test")
# Images this far apart have little in common.
MAX_INTERVAL_S = 1.0
NS_PER_S = 1e9
STAMP_DIGITS = 19
# Losing a larger share of targets than this is hardly intended.
MAX_LEFT_OUT = 0.5
Item = TypeVar("Item")
# By the folder of a sequence, the place in it and the camera.
_Targets = dict[tuple[str, int, str], FrameRef]


@dataclass(frozen=True, kw_only=True)
class FrameList:
    """A list of a split.

    Attributes:
        refs: all its targets.
        used: those that are on disk and, where they are trained on, have their neighbours.
        unplaced: those that are not on disk, of a dataset that finds frames by their names.
        frame_ids, use_stereo: which frames are used with each target: of test lists, which are only predicted, just the target.
        wanted: the frames that ``used`` uses, as ``frame_table.wanted_frames``.
    """

    name: str
    refs: tuple[FrameRef, ...]
    used: tuple[FrameRef, ...]
    unplaced: tuple[FrameRef, ...]
    frame_ids: tuple[int, ...]
    use_stereo: bool
    wanted: dict[Path, dict[int, str]]

    @property
    def is_trained_on(self) -> bool:
        """Whether it is a list of training or validation, whose frames are warped."""
        return _is_trained_on(self.name)


class _Lines(NamedTuple):
    name: str
    source: str
    refs: tuple[FrameRef, ...]


def read_lists(config: DataConfig, dataset: Dataset, split: str | None, report: Report) -> list[FrameList]:
    """The lists of a split, or for None one of all frames; those that cannot be read are problems.

    Raises:
        InputError: the split has no list at all, or a dataset without a split has no frames.
    """
    found = [_Lines(EVERYTHING, str(dataset.data_path), _all_refs(dataset))] if split is None else list(_read_lines(dataset, split, report))
    frame_ids, use_stereo = config.frame_ids, config.use_stereo
    if any(_is_trained_on(lines.name) for lines in found):
        try:
            dataset.check_sources(frame_ids, use_stereo=use_stereo)
        except InputError as error:
            report.problem(str(error))
            frame_ids, use_stereo = (0,), False
    lists = []
    for lines in found:
        trained_on = _is_trained_on(lines.name)
        try:
            if trained_on:
                lists.append(_frame_list(dataset, lines, frame_ids, use_stereo, report))
            else:
                lists.append(_frame_list(dataset, lines, (0,), False, report))
        except InputError as error:
            # The depth benchmark's own images, for one, are a dataset apart from those trained on.
            tell = report.problem if trained_on else report.warn
            tell(f"{lines.name}: {error}")
    for part in lists:
        frames = f", frames {' '.join(map(str, part.frame_ids))}" if part.is_trained_on else ""
        if part.is_trained_on and part.use_stereo:
            frames += " and the other camera"
        usable = f", {len(part.used):,} of them usable" if len(part.used) < len(part.refs) else ""
        folders = len({ref.folder for ref in part.refs})
        report.say(part.name, f"{count(len(part.refs), 'target')} of {count(folders, 'sequence')}{frames}{usable}")
    report.facts["lists"] = {part.name: {"targets": len(part.refs), "usable": len(part.used)} for part in lists}
    return lists


def report_neighbours(dataset: Dataset, lists: Sequence[FrameList], report: Report) -> None:
    """How many targets are left out and why, and how far apart the frames of sequences are."""
    for part in (part for part in lists if part.is_trained_on):
        faults = [dataset.target_fault(ref, frame_ids=part.frame_ids, use_stereo=part.use_stereo) for ref in part.refs]
        reasons = Counter(fault for fault in faults if fault)
        if reasons:
            why = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
            text = f"{part.name}: {sum(reasons.values()):,} of {count(len(part.refs), 'target')} left out: {why}"
            report.say("Neighbours", text)
            report.facts["lists"][part.name]["left_out"] = dict(reasons)
            if sum(reasons.values()) > MAX_LEFT_OUT * len(part.refs):
                report.warn(f"{text}; use other frame_ids, or sequences without gaps")
    if isinstance(dataset, SequenceDataset):
        folders = sorted({ref.folder for part in lists for ref in part.used})
        _report_order(dataset, folders, report)
        _report_intervals(dataset, folders, report)


def report_overlap(dataset: Dataset, lists: Sequence[FrameList], report: Report) -> None:
    """Targets that are in two lists, or twice in one; sequences that lists share with training."""
    targets = {part.name: _targets(dataset, part.refs) for part in lists}
    for part in lists:
        twice = len([ref for ref in part.refs if ref.frame_index != NOT_ON_DISK]) - len(targets[part.name])
        if twice:
            report.warn(f"{part.name}: {count(twice, 'line')} with a target that the list holds already; remove them")
    names = list(targets)
    for first, second in ((a, b) for index, a in enumerate(names) for b in names[index + 1 :]):
        both = targets[first].keys() & targets[second].keys()
        if both:
            named = some([targets[second][key].line for key in sorted(both)])
            text = f"{second} shares {count(len(both), 'target')} with {first} ({named})"
            if first == "train":
                report.problem(f"{text}: scores on them say nothing about new images; remove them from one of the lists")
            else:
                report.warn(f"{text}; what is chosen on one of the lists must not be evaluated on the other")
        elif first == "train":
            _report_shared(targets[first], targets[second], second, report)


def _report_shared(train: _Targets, others: _Targets, name: str, report: Report) -> None:
    """Sequences of a list that are trained on."""
    trained_on = {place for place, _, _ in train}
    folders = {place: ref.folder for (place, _, _), ref in others.items()}
    shared = [folder for place, folder in folders.items() if place in trained_on]
    if shared:
        report.warn(
            f"{name} has {len(shared):,} of its {count(len(folders), 'sequence')} in common with train ({some(shared)}): its frames look "
            "like those trained on, and its scores are too good; split by sequence where that matters"
        )


def spread(items: Sequence[Item], number: int) -> list[Item]:
    """At most ``number`` of the items, evenly spread; of one, the middle one."""
    if len(items) <= number:
        return list(items)
    if number == 1:
        return [items[len(items) // 2]]
    return [items[index] for index in np.linspace(0, len(items) - 1, number).round().astype(int)]


def a_few_of_each(items: Sequence[Item], groups: Sequence[Hashable], *, total: int, most: int) -> list[Item]:
    """At most ``total`` items spread over their groups, and at most ``most`` of each group."""
    members: dict[Hashable, list[Item]] = {}
    for item, group in zip(items, groups, strict=True):
        members.setdefault(group, []).append(item)
    chosen = spread(list(members.values()), total)
    each = min(most, max(1, total // max(1, len(chosen))))
    return [item for group in chosen for item in spread(group, each)]


def _read_lines(dataset: Dataset, split: str, report: Report) -> Iterator[_Lines]:
    """The lists of a named split, or those whose files lie in a folder."""
    names: Sequence[str]
    folder = split_folder(split)
    if folder is not None:
        # ``test_files_09.txt`` is the list ``test_09``.
        names = sorted(re.sub(r"_files(.*)$", r"\1", path.stem) for path in folder.glob("*_files*.txt"))
        names = [name for name in ORDER if name in names] + [name for name in names if name.startswith("test_")]
        if not names:
            raise InputError(f"{split} holds no train_files.txt, val_files.txt or test_files.txt; name another split")
    else:
        names = subsets(split)
    for name in names:
        source = subset_source(split, name)
        try:
            yield _Lines(name, source, dataset.read(split, name))
        except InputError as error:
            report.problem(str(error))


def _all_refs(dataset: Dataset) -> tuple[FrameRef, ...]:
    if not isinstance(dataset, SequenceDataset):
        raise InputError(f"--split is missing: dataset {type(dataset).__name__} does not list its frames itself")
    return dataset.all_refs()


def _frame_list(dataset: Dataset, lines: _Lines, frame_ids: tuple[int, ...], use_stereo: bool, report: Report) -> FrameList:
    """``InputError`` where the lines name no such frames of the dataset."""
    placed = tuple(ref for ref in lines.refs if ref.frame_index != NOT_ON_DISK)
    used = placed
    try:
        if _is_trained_on(lines.name):
            used = dataset.with_sources(placed, source=lines.source, frame_ids=frame_ids, use_stereo=use_stereo)
    except InputError as error:
        report.problem(str(error))
        # Targets that have their neighbours are still inspected with them; if there are none, the targets alone are.
        if isinstance(dataset, SequenceDataset):
            used = tuple(ref for ref in placed if not dataset.target_fault(ref, frame_ids=frame_ids, use_stereo=use_stereo))
        if not used or not isinstance(dataset, SequenceDataset):
            used, frame_ids, use_stereo = placed, (0,), False
    return FrameList(
        name=lines.name,
        refs=lines.refs,
        used=used,
        unplaced=tuple(ref for ref in lines.refs if ref.frame_index == NOT_ON_DISK),
        frame_ids=frame_ids,
        use_stereo=use_stereo,
        wanted=wanted_frames(dataset, used, frame_ids=frame_ids, use_stereo=use_stereo),
    )


def _is_trained_on(name: str) -> bool:
    return not name.startswith("test")


def _targets(dataset: Dataset, refs: Sequence[FrameRef]) -> _Targets:
    """The references by the folder of their sequence, whatever lines call it, their place in it and their camera."""
    folders: dict[str, str] = {}
    found: _Targets = {}
    for ref in refs:
        if ref.frame_index != NOT_ON_DISK:
            if ref.folder not in folders:
                folders[ref.folder] = dataset.relative(dataset.image_folder(ref.folder, "l"))
            found[folders[ref.folder], ref.frame_index, dataset.side(ref)] = ref
    return found


def _report_order(dataset: SequenceDataset, folders: Sequence[str], report: Report) -> None:
    """How names of frames are read, where that is not the plain way; an order that is not known is a problem."""
    readings: dict[str, list[str]] = {}
    for folder in folders:
        if fault := dataset.order_fault(folder):
            report.problem(fault)
        elif reading := dataset.timeline(folder).reading:
            readings.setdefault(reading, []).append(folder)
    for reading, members in readings.items():
        report.say("Order", f"names of {some(members)} are read as {reading}, which runs evenly forward")
    report.facts["order"] = readings


def _report_intervals(dataset: SequenceDataset, folders: Sequence[str], report: Report) -> None:
    """The usual interval of each sequence whose frames' names are times in nanoseconds; the gaps of all."""
    gaps = {folder: int(dataset.timeline(folder).gaps[-1]) for folder in folders if len(dataset.timeline(folder).names)}
    intervals = {folder: _interval_s(dataset.timeline(folder).names) for folder in folders}
    intervals_s = {folder: seconds for folder, seconds in intervals.items() if seconds is not None}
    with_gaps = [folder for folder in folders if gaps.get(folder)]
    text = f"{count(sum(gaps.values()), 'gap')} in {count(len(folders), 'sequence')}"
    if with_gaps:
        text += f", of {some(with_gaps)}"
    if intervals_s:
        usual_s = float(np.median(list(intervals_s.values())))
        text += f"; an image every {figure(usual_s, 2)} s, {figure(min(intervals_s.values()), 2)} to {figure(max(intervals_s.values()), 2)}"
        report.facts["interval_s"] = usual_s
        slow = [folder for folder, seconds in intervals_s.items() if seconds > MAX_INTERVAL_S]
        if slow:
            report.warn(
                f"{count(len(slow), 'sequence')} with more than {MAX_INTERVAL_S:g} s between images ({some(slow)}): neighbours this far "
                "apart show little of the same; extract more images per second (md-data from-bag --hz 10)"
            )
    report.facts["gaps"] = sum(gaps.values())
    report.say("Gaps", text)


def _interval_s(names: Sequence[str]) -> float | None:
    """The median interval of frames whose names are times in nanoseconds; None for other names."""
    if len(names) < 2 or not all(len(name) == STAMP_DIGITS and name.isascii() and name.isdecimal() for name in names):
        return None
    # Names of that many digits may be larger than numpy's whole numbers.
    return float(np.median(np.diff(np.array(list(map(int, names)), dtype=object)).astype(np.float64))) / NS_PER_S
