"""Lists of your own sequences for training, validation and test: each sequence whole in one list, without frames at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataload.datasets.base import some
from dataload.datasets.sequences import SequenceDataset
from dataload.frames.frame_ref import FrameRef
from dataload.system.files import whole_files
from dataload.system.locks import hold, require_free_below
from splits.errors import InputError

SUBSETS = ("train", "val", "test")
# Training keeps at least this part of its share, or sequences are cut in time instead of being kept whole.
LEAST_OF_TRAIN = 0.5
# The share of a cut sequence that is left out between its parts; at least what keeps their frames apart.
GUARD_SHARE = 0.01

Lists = dict[str, list[FrameRef]]


class SplitLists(NamedTuple):
    """The lines of each list, and how they came about.

    Attributes:
        lines: of train, val and test; a list whose share is 0 is empty.
        sequences: of each list, as its lines name them.
        left_out: how many frames are in no list, by the reason.
        notes: further remarks.
    """

    lines: dict[str, list[str]]
    sequences: dict[str, list[str]]
    left_out: dict[str, int]
    notes: list[str]

    def write(self, folder: Path, *, force: bool = False) -> list[Path]:
        """Write ``{train,val,test}_files.txt``, all or none; returns the files. Empty lists are not written.

        Existing lists that differ are kept: they may be edited by hand, and a run resumed on other lists would continue with other frames
        than it began with.

        Args:
            force: replace them.

        Raises:
            InputError: other lists are there.
        """
        texts = {folder / f"{subset}_files.txt": "".join(f"{line}\n" for line in self.lines[subset]) for subset in SUBSETS}
        others = [path.name for path, text in texts.items() if path.is_file() and path.read_bytes() != text.encode()]
        if others and not force:
            raise InputError(f"{folder} holds other lists already ({', '.join(others)}); --replace_split replaces them, or remove them")
        written = [path for path, text in texts.items() if text]
        if others or [path for path in texts if path.is_file()] != written:
            folder.mkdir(parents=True, exist_ok=True)
            # The training list last: without it nobody trains on what the other two hold.
            with whole_files(written[::-1], stale=[path for path in texts if path not in written]) as temporaries:
                for path, temporary in zip(written[::-1], temporaries, strict=True):
                    temporary.write_bytes(texts[path].encode())
        return written

    def describe(self) -> list[str]:
        """Short lines: what each list holds, what is left out and why."""
        said = []
        for subset in SUBSETS:
            if self.lines[subset]:
                count, names = len(self.lines[subset]), self.sequences[subset]
                said.append(f"{subset:<6}{count:>7} of {len(names)} sequence{'s' if len(names) > 1 else ''}: {some(names)}")
            else:
                said.append(f"{subset:<6}{0:>7}: not written")
        if self.left_out:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            said.append(f"{sum(self.left_out.values())} frames are in no list: {why}")
        return [*said, *self.notes]


def check_shares(val_share: float, test_share: float) -> None:
    """``InputError`` where nothing is left for training."""
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise InputError(f"--val {val_share:g} and --test {test_share:g} leave nothing for training; together they must be below 1")


def make_split(
    dataset: SequenceDataset,
    *,
    val_share: float,
    test_share: float,
    seed: int = 0,
    keep_static: bool = False,
    progress: bool = True,
    frame_ids: Sequence[int] = (0, -1, 1),
) -> SplitLists:
    """Lists of the frames that are on disk, by sequence: no sequence is in two of them, unless there are too few.

    Targets are those with neighbours, between which and the target the camera moves. Training takes both cameras of stereo sequences,
    validation and test the left one.

    Args:
        val_share, test_share: shares of all targets, met as closely as whole sequences allow.
        seed: chooses which sequences.
        keep_static: take targets of a camera at rest too; then no image is read.
        frame_ids: the neighbours that training will want.

    Raises:
        InputError: shares that leave nothing for training, no sequence, or too few targets.
    """
    check_shares(val_share, test_share)
    targets, reasons = _targets(dataset, keep_static=keep_static, progress=progress, frame_ids=frame_ids)
    by_sequence: dict[str, list[FrameRef]] = {}
    for ref in targets:
        by_sequence.setdefault(ref.folder, []).append(ref)
    shares = {"test": test_share, "val": val_share}
    chosen = _whole_sequences(dataset, by_sequence, shares, seed)
    notes = []
    if chosen is None:
        guard = max(frame_ids) - min(frame_ids) + 1
        lists, guarded = _cut_in_time(dataset, by_sequence, shares, guard)
        reasons["between the parts of a sequence"] += guarded
        notes.append(_cut_note(len(by_sequence)))
    else:
        lists = {subset: [ref for ref in targets if chosen.get(ref.folder, "train") == subset] for subset in SUBSETS}
    for subset in ("val", "test"):
        left = [ref for ref in lists[subset] if dataset.side(ref) == "l"]
        reasons["of the right camera, which is for training"] += len(lists[subset]) - len(left)
        lists[subset] = left
    return SplitLists(
        lines={subset: [dataset.split_line(ref) for ref in lists[subset]] for subset in SUBSETS},
        sequences={subset: list(dict.fromkeys(ref.folder for ref in lists[subset])) for subset in SUBSETS},
        left_out={reason: count for reason, count in reasons.items() if count},
        notes=notes,
    )


def _targets(
    dataset: SequenceDataset, *, keep_static: bool, progress: bool, frame_ids: Sequence[int]
) -> tuple[list[FrameRef], Counter[str]]:
    """The frames that can be trained on, in order, and how many cannot, by the reason."""
    refs = dataset.all_refs()
    faults = [dataset.target_fault(ref, frame_ids=frame_ids, use_stereo=False) for ref in refs]
    reasons = Counter(fault for fault in faults if fault)
    targets = [ref for ref, fault in zip(refs, faults, strict=True) if not fault]
    for ref in {ref.folder: ref for ref in targets}.values():
        dataset.split_line(ref)  # an unknown camera is an error before all images are read
    if targets and not keep_static:
        from dataload.footage.motion import STANDING, static_targets

        faults = static_targets(dataset, targets, frame_ids=frame_ids, progress=progress)
        reasons += Counter(fault for fault in faults if fault)
        if reasons[STANDING] and all(faults):
            raise InputError(f"{dataset.data_path}: all {len(targets)} targets lie {STANDING}; --keep_static takes them nevertheless")
        targets = [ref for ref, fault in zip(targets, faults, strict=True) if not fault]
    if not targets:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise InputError(f"{dataset.data_path}: none of {len(refs)} frames can be trained on: {why}; add longer sequences")
    return targets, reasons


def _whole_sequences(
    dataset: SequenceDataset, by_sequence: dict[str, list[FrameRef]], shares: dict[str, float], seed: int
) -> dict[str, str] | None:
    """The list of each sequence that is not for training; None where there are too few sequences to leave training enough.

    In a random order each sequence is taken if that brings the list nearer to its share, so that it ends within half a sequence of it.
    """
    counts = {name: sum(dataset.side(ref) == "l" for ref in refs) for name, refs in by_sequence.items()}
    total = sum(counts.values())
    names = [list(counts)[place] for place in np.random.default_rng(seed).permutation(len(counts))]
    chosen: dict[str, str] = {}
    for subset, share in shares.items():
        wanted, taken = share * total, 0
        for name in names:
            if name not in chosen and abs(taken + counts[name] - wanted) < abs(taken - wanted):
                chosen[name] = subset
                taken += counts[name]
        free = [name for name in names if name not in chosen]
        if share > 0 and not taken and free:
            chosen[min(free, key=counts.__getitem__)] = subset
    left = total - sum(counts[name] for name in chosen)
    lacking = any(share > 0 and subset not in chosen.values() for subset, share in shares.items())
    return None if lacking or left < LEAST_OF_TRAIN * (1 - sum(shares.values())) * total else chosen


def _cut_in_time(
    dataset: SequenceDataset, by_sequence: dict[str, list[FrameRef]], shares: dict[str, float], least_guard: int
) -> tuple[Lists, int]:
    """Train from the beginning of each sequence, val and test from its end, and how many targets between them are in none.

    Enough places lie between two lists that no image of the one, neighbours included, is or follows an image of the other.
    """
    lists: Lists = {subset: [] for subset in SUBSETS}
    longest = max(by_sequence, key=lambda name: len(by_sequence[name]))
    for name, refs in by_sequence.items():
        places = sorted({ref.frame_index for ref in refs if dataset.side(ref) == "l"})
        guard = max(least_guard, round(GUARD_SHARE * len(places)))
        end = len(dataset.timeline(name).names)
        for subset, share in shares.items():
            count = round(share * len(places))
            if share > 0 and name == longest:
                count = max(1, count)
            before = [place for place in places if place < end]
            if count and before:
                start = before[-count:][0]
                lists[subset] += [ref for ref in refs if start <= ref.frame_index < end]
                end = start - guard
        lists["train"] += [ref for ref in refs if ref.frame_index < end]
    if not lists["train"] or any(share > 0 and not lists[subset] for subset, share in shares.items()):
        total = sum(map(len, by_sequence.values()))
        raise InputError(f"{dataset.data_path}: {total} targets are too few for three lists; add frames, or give --val 0 --test 0")
    return lists, sum(map(len, by_sequence.values())) - sum(map(len, lists.values()))


def _cut_note(sequences: int) -> str:
    what = "the only sequence is" if sequences == 1 else f"the {sequences} sequences are too few to stay whole, and are"
    return f"{what} cut in time: validation and test show the same places as training, later; add sequences for an independent test"


def split_from(
    folder: Path,
    dataset_name: str,
    out: Path | None,
    *,
    val_share: float,
    test_share: float,
    seed: int = 0,
    keep_static: bool = False,
    replace_split: bool = False,
) -> list[str]:
    """Make the split of a dataset's folder, by default in ``<folder>/splits/<its usual name>``; lines that say what was written.

    Raises:
        InputError: no such folder or dataset, one whose splits are published, nothing to split, or another process writes the lists or a
            sequence.
    """
    from dataload.datasets import SPLITS_FOLDER, dataset_class, make_dataset

    cls = dataset_class(dataset_name)
    if not issubclass(cls, SequenceDataset):
        raise InputError(f"dataset {dataset_name} has published splits; use evo or folder for your own sequences")
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one that holds the sequences of dataset {dataset_name}")
    place = out or folder / SPLITS_FOLDER / (cls.default_split or dataset_name)
    with hold(place, "wait until it has ended, or name another --out", folder=True):
        require_free_below(folder, "wait until it has ended, then make the lists of all sequences")
        dataset = make_dataset(dataset_name, folder)
        assert isinstance(dataset, SequenceDataset)
        made = make_split(dataset, val_share=val_share, test_share=test_share, seed=seed, keep_static=keep_static)
        return [*map(str, made.write(place, force=replace_split)), *made.describe()]
