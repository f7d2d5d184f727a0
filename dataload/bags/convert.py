"""One recording to one sequence of the Evo layout: resumable, and under its name only when it is whole."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataload.bags.formats.container import CUT_OFF, Damage, named
from dataload.bags.formats.reading import Bag, find_files, parse
from dataload.bags.messages.images import BadFrame, decoding
from dataload.bags.options import ConvertOptions
from dataload.bags.plan import DEPTH_FOLDER, FOLDERS, LEFT_FOLDER, RIGHT_FOLDER, Job, make_plan
from dataload.footage.identity import GROWN, OTHER, compare, describe, identify
from dataload.frames.calibration import FILE_NAME, Calibration, read_calibration, write_calibration
from dataload.system.files import publish_folder, remove_whole, whole_file
from dataload.system.leftovers import hidden_name
from dataload.system.locks import clear_leftovers, hold
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from dataload.system.threads import Room, in_threads
from splits.errors import InputError
from splits.faults import name_faults, parsing
from splits.reading import read_json

MARKER = ".converting.json"  # what an unfinished sequence is made of, and how
IMAGE_SUFFIXES = (".jpg", ".png")
LOOK_AHEAD = 3  # messages per core that are read before they are needed
STAMP_DIGITS = 19
# What waits to be decoded, and what decoding and encoding hold, each at most; large frames are made by fewer threads.
MESSAGES_BYTES, FRAMES_BYTES, BYTES_PER_PIXEL = 2**28, 2**30, 12
MOST_REASONS = 20  # a recording may be damaged in as many ways as it has frames


@dataclass(kw_only=True)
class Report:
    """The outcome of one conversion.

    Attributes:
        stamps_ns: of the left images that are there.
        dropped: why frames were left out, and how many.
        damage: what of the recording could not be read; empty if all could.
        already: it was converted by an earlier run; nothing was read.
    """

    bag: Path
    folder: Path
    calibration: Calibration
    stamps_ns: list[int]
    right: int
    depth: int
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damage: str = ""
    already: bool = False


def convert(path: Path, folder: Path, options: ConvertOptions, *, progress: bool = True) -> Report:
    """Write a recording as the sequence ``folder``, whose name is the sequence's; held while it is written.

    It is made in a hidden folder beside it, and gets its name when it is complete; what an interrupted conversion of the same recording
    has made there is kept. If the recording has grown since it was converted, because it was cut off then, all of it is made again. What
    cannot be read of the recording is left out and named in the report.

    Raises:
        InputError: the folder holds something else, or was made of another recording or with other settings, or is being written by
            another process; the recording has nothing to convert.
        OSError: a file cannot be written.
    """
    with hold(folder, "wait until it has ended, or give another --out", folder=True):
        recording = identify(path, find_files(path)[0])
        work = _work_folder(folder)
        clear_leftovers(work, inside=True)
        made = _find_earlier(folder)
        if made is not None and made.calibration is not None and not _has_grown(path, folder, options, made):
            remove_whole(work)
            return _read_report(path, folder, made.calibration)
        begun = _find_earlier(work)
        if begun is not None and _has_grown(path, work, options, begun):
            remove_whole(work)
        again = made is not None and made.calibration is not None
        return _convert(path, folder, options, recording, again=again, progress=progress)


def _work_folder(folder: Path) -> Path:
    """Where a sequence is made; one that an earlier version has begun under its final name is moved there."""
    place = folder.resolve()
    work = place.with_name(hidden_name(place.name, ".converting"))
    if (place / MARKER).is_file() and not (place / FILE_NAME).exists() and not work.exists():
        place.rename(work)
    return work


def _convert(path: Path, folder: Path, options: ConvertOptions, recording: dict[str, Any], *, again: bool, progress: bool) -> Report:
    work = _work_folder(folder)
    with Bag(path) as bag:
        contents = bag.scan()
        if not contents.tracks:
            raise InputError(f"it holds no messages{f' that can be read: {contents.damage}' if contents.damage else ''}")
        plan = make_plan(bag, contents, options)
        with name_faults(folder, work):
            work.mkdir(parents=True, exist_ok=True)
            with whole_file(work / MARKER) as temporary:
                temporary.write_text(json.dumps({"options": options.settings(), "recording": recording}), encoding="utf-8")
        dropped = Counter(plan.dropped)
        _run(bag, plan.jobs, work, folder, dropped, size_px=plan.size_px, progress=progress)
    kept = _drop_unmatched(work)
    if not kept[LEFT_FOLDER]:
        remove_whole(work)  # it holds no file but the marker
        raise InputError(f"no frame of {plan.roles.image} could be decoded ({_counts(dropped)})")
    source = {**plan.calibration.source, "recording": recording}
    unread = sum(n for why, n in dropped.items() if why.endswith(CUT_OFF))
    damage = contents.damage or (f"{unread} messages are cut off" if unread else "")
    if damage:
        source["damage"] = damage
    calibration = replace(plan.calibration, source=source)
    with name_faults(folder, work):
        write_calibration(work / FILE_NAME, calibration)
        (work / MARKER).unlink(missing_ok=True)
    publish_folder(work, folder.resolve())
    notes = [*plan.notes, *(["converted again: the recording has grown since the last conversion"] if again else [])]
    return _report(path, folder, calibration, kept, dropped=dict(dropped), notes=notes, damage=damage)


def _report(path: Path, folder: Path, calibration: Calibration, kept: dict[str, set[int]], **more: Any) -> Report:
    right, depth = len(kept[RIGHT_FOLDER]), len(kept[DEPTH_FOLDER])
    return Report(bag=path, folder=folder, calibration=calibration, stamps_ns=sorted(kept[LEFT_FOLDER]), right=right, depth=depth, **more)


def _read_report(path: Path, folder: Path, calibration: Calibration) -> Report:
    """The report of a sequence that is complete already."""
    kept = {name: _stamps(folder / name).keys() for name in FOLDERS}
    damage = str(calibration.source.get("damage", ""))
    return _report(path, folder, calibration, {name: set(stamps) for name, stamps in kept.items()}, damage=damage, already=True)


class _Earlier(NamedTuple):
    """An earlier conversion to a sequence: its options and recording, and the calibration, None where it is not finished."""

    options: object
    recording: object
    calibration: Calibration | None


def _find_earlier(folder: Path) -> _Earlier | None:
    """What an earlier conversion recorded, None where there was none; ``InputError`` where the folder holds something else."""
    if (folder / FILE_NAME).is_file():
        calibration = read_calibration(folder / FILE_NAME)
        return _Earlier(calibration.source.get("options"), calibration.source.get("recording"), calibration)
    if (folder / MARKER).is_file():
        what, remedy = "the marker of an interrupted conversion", "remove that folder, or name another --out"
        facts = read_json(folder / MARKER, what, remedy)
        with parsing(folder / MARKER, what, remedy):
            return _Earlier(facts["options"], facts["recording"], None)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and holds something else; name another --out or remove it")
    return None


def _has_grown(path: Path, folder: Path, options: ConvertOptions, earlier: _Earlier) -> bool:
    """Whether the recording has grown since it was converted; ``InputError`` where another one was, or with other options."""
    likeness = compare(earlier.recording, find_files(path)[0])
    if likeness == OTHER:
        raise InputError(
            f"{folder} was made of another recording, {describe(earlier.recording)}, not of {path} as it is now; convert this one alone "
            "with --sequence NAME, or remove that folder"
        )
    if earlier.options != options.settings():
        now, then = _as_options(options.settings()), _as_options(earlier.options)
        raise InputError(f"{folder} was converted with other options ({then}, now {now}); name another --out or remove it")
    return likeness == GROWN


def _as_options(settings: object) -> str:
    if not isinstance(settings, dict):
        return "unknown ones"
    return named(" ".join(f"--{name} {value}" for name, value in settings.items())) or "the defaults"


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in dropped.items()) or "none"


def note_drop(dropped: Counter[str], why: str) -> None:
    """Count a frame that is left out under its reason, or where there are too many different ones under a common one."""
    dropped[why if why in dropped or len(dropped) < MOST_REASONS else "frames: damaged in other ways"] += 1


def _run(bag: Bag, jobs: list[Job], work: Path, folder: Path, dropped: Counter[str], *, size_px: tuple[int, int], progress: bool) -> None:
    """Read in the order of the recording, decode and encode in threads; only as many messages are held at once as keep these busy."""
    there = {name: _stamps(work / name) for name in FOLDERS}
    for name in {job.folder for job in jobs}:
        (work / name).mkdir(exist_ok=True)

    room = Room(MESSAGES_BYTES)
    number = max(1, min(usable_cores(), FRAMES_BYTES // (BYTES_PER_PIXEL * math.prod(size_px))))

    def to_do() -> Iterator[Callable[[], str]]:
        for job in jobs:
            if job.stamp_ns in there[job.folder]:
                bar.update()
                continue
            try:
                raw = bag.raw(job.place)
            except Damage as damage:
                note_drop(dropped, _describe_drop(job, str(damage)))
                bar.update()
                continue
            room.take(len(raw))
            yield partial(_write, job, raw, work, folder, room)

    with (
        progress_bar(len(jobs), folder.name, "files", shown=progress, in_logs=True) as bar,
        closing(in_threads(to_do(), number=number, ahead=LOOK_AHEAD * number)) as written,
    ):
        for why in written:
            if why:
                note_drop(dropped, why)
            bar.update()


def _write(job: Job, raw: bytes, work: Path, folder: Path, room: Room) -> str:
    """Make one file of what will be ``folder``; returns why there is none, or "". What ``raw`` took of the room is given back."""
    try:
        with decoding():
            content, ending = job.write(parse(job.topic, raw))
    except (BadFrame, InputError) as error:  # of one message, whatever it says: the others are as good as they were
        return _describe_drop(job, str(error))
    finally:
        room.give(len(raw))
    name = f"{folder.name}_{job.stamp_ns:0{STAMP_DIGITS}d}{ending}"
    with name_faults(folder, work), whole_file(work / job.folder / name, flush=False) as temporary:
        temporary.write_bytes(content)
    return ""


def _describe_drop(job: Job, why: str) -> str:
    kind = {LEFT_FOLDER: "left", RIGHT_FOLDER: "right", DEPTH_FOLDER: "depth"}[job.folder]
    return f"{kind} frames: {why}"


def _stamps(folder: Path) -> dict[int, Path]:
    """The frames of a folder by their stamps, without the empty files that a power cut may leave."""
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.iterdir() if path.suffix in IMAGE_SUFFIXES and not path.name.startswith(".") and path.stat().st_size]
    return {int(path.stem[-STAMP_DIGITS:]): path for path in paths if path.stem[-STAMP_DIGITS:].isdigit()}


def _drop_unmatched(folder: Path) -> dict[str, set[int]]:
    """Remove what belongs to left images that could not be decoded; returns the stamps that stay, by folder."""
    found = {name: _stamps(folder / name) for name in FOLDERS}
    for name in (RIGHT_FOLDER, DEPTH_FOLDER):
        for stamp in found[name].keys() - found[LEFT_FOLDER].keys():
            found[name].pop(stamp).unlink()
    return {name: set(stamps) for name, stamps in found.items()}
