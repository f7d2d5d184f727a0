"""The inspection of a dataset: whether it is fit to be trained on, as far as that shows without training; a module per question."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataload.check.cameras import inspect_cameras
from dataload.check.contract import contract_faults
from dataload.check.depth import inspect_depth
from dataload.check.frames import Frames, inspect_frames
from dataload.check.lists import FrameList, a_few_of_each, read_lists, report_neighbours, report_overlap, spread
from dataload.check.looks import inspect_looks
from dataload.check.report import Report, count
from dataload.check.stereo import inspect_stereo
from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.datasets.base import Dataset
from dataload.datasets.presence import require_data_path
from dataload.footage.contact_sheet import MAX_TILES, Tile, write_contact_sheet
from dataload.footage.motion import STANDING, static_targets
from dataload.frames.frame_ref import FrameRef
from dataload.frames.picture import read_picture
from dataload.system.files import require_writable_folder
from splits.errors import InputError
from splits.faults import describe_fault

# Targets per list that are checked for movement.
MAX_WATCHED = 300
# Frames without movement teach a network that nothing moves; the automask hides some of them, not most.
MAX_STANDING = 0.3
MAX_CONTRACT_REFS = 8
MAX_TILES_PER_SEQUENCE = 4


def inspect(config: DataConfig, split: str | None, *, sheet: Path | None = None, progress: bool = False) -> Report:
    """Inspect the lists of a split, or for None all frames of a dataset that lists them itself.

    Args:
        config: what training would be given; its ``split`` is not read.
        sheet: where a picture of some frames and their depth goes; for None there is none.

    Raises:
        InputError: there is nothing to inspect: no such folder, no list, or no frame.
    """
    report = Report()
    dataset = open_dataset(config)
    require_data_path(dataset)
    report.say("Dataset", f"{config.dataset} at {dataset.data_path}, {'all frames' if split is None else f'split {split}'}")
    report.facts |= {"dataset": config.dataset, "data_path": str(dataset.data_path), "split": split}
    lists = read_lists(config, dataset, split, report)
    report_neighbours(dataset, lists, report)
    report_overlap(dataset, lists, report)
    frames = inspect_frames(config, dataset, lists, report, progress=progress)
    inspect_looks(config, dataset, frames, report)
    inspect_cameras(dataset, lists, frames, report)
    _inspect_motion(dataset, lists, frames, report)
    inspect_depth(dataset, lists, frames, split, report)
    inspect_stereo(dataset, lists, frames, report)
    _inspect_contract(config, dataset, lists, frames, report)
    if sheet is not None:
        _write_sheet(sheet, dataset, lists, frames, report)
    return report


def default_sheet(data_path: Path, split: str | None) -> Path:
    """Where the contact sheet goes: into ``<data_path>/splits``, where no frames are looked for."""
    return data_path / "splits" / ("contact_sheet.jpg" if split is None else f"contact_sheet_{Path(split).name}.jpg")


def _inspect_motion(dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    """Report at how many targets the camera stands still: it has not moved between the target and one of its neighbours."""
    for part in lists:
        has_neighbours = any(part.frame_ids)
        watched = spread(frames.whole(dataset, part.used, frame_ids=part.frame_ids), MAX_WATCHED) if has_neighbours else []
        if not watched:
            continue
        standing = static_targets(dataset, watched, frame_ids=part.frame_ids, progress=False).count(STANDING)
        share = standing / len(watched)
        seen = count(len(watched), "target")
        report.say("Standing", f"{part.name}: at {f'{standing:,} of {seen} ({100 * share:.0f} %)' if standing else f'none of {seen}'}")
        report.facts["lists"][part.name]["standing"] = {"checked": len(watched), "standing": standing}
        if share > MAX_STANDING:
            report.warn(
                f"{part.name}: the camera stands still at {100 * share:.0f} % of {count(len(watched), 'target')} checked, and nothing is "
                "learned there; make the split with md-data splits --from, which leaves such frames out"
            )


def _inspect_contract(config: DataConfig, dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    """Whether the dataset's class keeps its promises, on frames that are there."""
    refs = [ref for part in lists for ref in frames.whole(dataset, part.used)]
    chosen = a_few_of_each(refs, [(ref.folder, ref.side) for ref in refs], total=MAX_CONTRACT_REFS, most=2)
    if not chosen:
        return
    with report.faults():
        for fault in contract_faults(dataset, chosen, size_px=config.size_px):
            report.problem(f"dataset {config.dataset}: {fault}; correct {type(dataset).__module__}:{type(dataset).__name__}")


def _write_sheet(path: Path, dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    refs = [(part.name, ref) for part in lists for ref in frames.whole(dataset, part.used)]
    chosen = a_few_of_each(refs, [(name, ref.folder) for name, ref in refs], total=MAX_TILES, most=MAX_TILES_PER_SEQUENCE)
    if not chosen:
        return
    try:
        require_writable_folder(path.parent, "name another place for the contact sheet: --sheet FILE.jpg")
        write_contact_sheet(path, [_tile(dataset, *named) for named in chosen])
    except (InputError, OSError) as error:  # a missing picture spoils nothing else
        report.warn(f"no contact sheet: {describe_fault(error)}")
        return
    report.say("Sheet", f"{len(chosen)} frames in {path}: look at them")
    report.facts["sheet"] = str(path)


def _tile(dataset: Dataset, name: str, ref: FrameRef) -> Tile:
    depth_m: NDArray[np.float32] | None = None
    if dataset.depth_source(ref) is not None:
        with suppress(InputError):  # inspect_depth reports it
            depth_m = dataset.depth_m(ref)
    label = f"{name}: {ref.folder.rpartition('/')[2]} {ref.name or ref.frame_index} {dataset.side(ref)}"
    return Tile(label, read_picture(dataset.image_path(ref)), depth_m)
