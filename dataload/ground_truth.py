"""Evaluation's ground truth: made from the dataset, kept in one file of plain arrays, read back.

The file holds the measured pixels only: ``values`` (float32 metres of all images, row by row), ``columns`` (of each value) and
``row_counts`` (how many values each row has), ``shapes`` (N, 2), ``frames`` (the split line of each image) and ``sources`` (the file
each image's depth was made from, relative to the dataset's folder).
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import Dataset
from dataload.datasets.presence import require_ground_truth
from dataload.frames.depth_file import clean_metres
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import MOST_SIDE_PX, PackedDepths, SparseDepth
from dataload.system.arrays import Archive, PickledError, open_archive
from dataload.system.console import console
from dataload.system.files import whole_file
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from dataload.system.threads import in_threads
from splits import split_folder
from splits.errors import InputError
from splits.limits import IMAGE_PIXELS

FILE_NAME, WHAT = "gt_depths.npz", "a file of ground truth"
ARRAYS = ("values", "columns", "row_counts", "shapes", "frames")
ANNOTATED_SPLITS = ("eigen_benchmark",)
# More threads would only wait for the interpreter.
MAX_THREADS = 8
# Small enough that Ctrl-C and the bar are served several times per second.
FRAMES_PER_JOB = 16
# How much the depth of a frame may differ between machines and versions.
TOLERANCE = 0.01
REMAKE = "make it again: md-data gt --data_path DIR --split NAME_OR_FOLDER"


class _LazyDepths(Sequence[SparseDepth]):
    """Depths that are made from their files whenever they are asked for."""

    def __init__(self, dataset: Dataset, refs: Sequence[FrameRef]) -> None:
        self.dataset, self.refs = dataset, refs

    def __len__(self) -> int:
        return len(self.refs)

    @overload
    def __getitem__(self, index: int) -> SparseDepth: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SparseDepth]: ...
    def __getitem__(self, index: int | slice) -> SparseDepth | Sequence[SparseDepth]:
        if isinstance(index, slice):
            return _LazyDepths(self.dataset, self.refs[index])
        return make_depth(self.dataset, self.refs[index])


def default_path(split: str, data_path: Path) -> Path:
    """Where ground truth is kept: in the split's folder, or ``<data_path>/gt_depths_<split>.npz`` for a named split."""
    folder = split_folder(split)
    return Path(data_path) / f"gt_depths_{split}.npz" if folder is None else folder / FILE_NAME


def dataset_for(split: str, dataset: Dataset) -> Dataset:
    """The dataset whose rule makes a split's ground truth: annotated depth for ``eigen_benchmark``, else the dataset's own."""
    from dataload.datasets.kitti_depth import KittiDepth

    if split in ANNOTATED_SPLITS and not isinstance(dataset, KittiDepth):
        return KittiDepth(dataset.data_path, dataset.image_ext)
    return dataset


def make_depth(dataset: Dataset, ref: FrameRef) -> SparseDepth:
    """One frame's depth by the published evaluation's rule; ``InputError`` where its file is missing, damaged or measures nothing."""
    depth = dataset.eval_sparse_depth(ref)
    if not depth.values_m.size:
        raise InputError(
            f"{dataset.depth_source(ref)} gives no pixel of '{ref.folder} {ref.frame_index}' a depth; "
            "fetch it again, or take the line out of the split's test list"
        )
    return depth


def ground_truth(dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool = False) -> PackedDepths:
    """Depth of every reference by the published evaluation's rule, all made at once and kept packed; threads may take items.

    Raises:
        InputError: scans, depth images or a calibration are missing (looked for first) or damaged, or an image gets no depth at all.
    """
    require_ground_truth(dataset, refs)
    return PackedDepths.join(_make_parts(dataset, refs, progress=progress))


def lazy_ground_truth(dataset: Dataset, refs: Sequence[FrameRef]) -> Sequence[SparseDepth]:
    """The same depths, each made from its files when it is taken; for threads that score while the model trains.

    Taking an item raises ``InputError`` as ``ground_truth`` does.
    """
    return _LazyDepths(dataset, refs)


def write_ground_truth(path: Path, dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool = True) -> Path:
    """Make the ground truth of ``refs`` and keep it in ``path``, which appears complete or not at all.

    Raises:
        InputError: as ``ground_truth``; or ``path`` cannot be written, which is tried first.
    """
    path = Path(path)
    require_ground_truth(dataset, refs)
    with whole_file(path) as temporary, _open_output(temporary, path) as file:
        parts = _make_parts(dataset, refs, progress=progress)
        with zipfile.ZipFile(file, "w") as archive:
            _save(archive, "values", [part.values_m for part in parts])
            _save(archive, "columns", [part.columns for part in parts])
            _save(archive, "row_counts", [part.row_counts for part in parts])
            _save(archive, "shapes", [part.shapes for part in parts])
            _save(archive, "frames", [np.array([ref.line for ref in refs])])
            _save(archive, "sources", [np.array([_source_name(dataset, ref) for ref in refs])])
    return path


def read_ground_truth(path: Path, refs: Sequence[FrameRef] | None = None) -> PackedDepths:
    """Depths of a file that ``write_ground_truth`` made, or of plain maps in metres, one per reference.

    It is checked at once and unpacked when taken, by any number of threads.

    Args:
        refs: if given, the file must be of exactly these frames.

    Raises:
        InputError: missing, damaged, of other frames, or in Monodepth2's pickled form, which is not read because a pickle can run code.
    """
    depths, frames = _read_file(Path(path), refs)
    if refs is not None and [ref.line for ref in refs] != frames:
        raise _other_frames(path, frames, refs)
    return depths


def scored_positions(dataset: Dataset, refs: Sequence[FrameRef]) -> list[int]:
    """The positions of the references that are scored: all of them, or where the dataset's depth is optional those that have some.

    How many are left out is logged; where none has depth all are kept, and are then found missing.
    """
    scored = list(range(len(refs)))
    if dataset.depth_is_optional:
        scored = [index for index in scored if dataset.depth_source(refs[index]) is not None] or scored
    _log_unscored(len(scored), len(refs))
    return scored


def read_scored(path: Path, dataset: Dataset, refs: Sequence[FrameRef]) -> tuple[list[int], PackedDepths]:
    """The positions of the references that a file of ``write_ground_truth`` has depths of, and those depths.

    The file must be of all references, or where the dataset's depth is optional of some; ``InputError`` as ``read_ground_truth``.
    """
    if not dataset.depth_is_optional:
        return list(range(len(refs))), read_ground_truth(path, refs)
    depths, frames = _read_file(Path(path), refs)
    held = set(frames)
    scored = [index for index, ref in enumerate(refs) if ref.line in held]
    if [refs[index].line for index in scored] != frames:
        raise _other_frames(path, frames, refs)
    _log_unscored(len(scored), len(refs))
    return scored, depths


def require_current(path: Path, dataset: Dataset, refs: Sequence[FrameRef], depths: Sequence[SparseDepth]) -> None:
    """``InputError`` where the depths of a kept file are not what the dataset gives of these references now: of other data, or of old.

    The first, the middle and the last are made again where their sources are on disk. A file that differs by a constant factor is accepted
    with a warning where no ``depth_scale`` is given: one was given when the file was made.
    """
    for place in sorted({0, len(refs) // 2, len(refs) - 1}):
        try:
            now, kept = make_depth(dataset, refs[place]), depths[place]
        except InputError:  # scoring needs no sources
            continue
        count, factor = len(kept.values_m) / len(now.values_m), float(np.median(kept.values_m) / np.median(now.values_m))
        if kept.size_px == now.size_px and abs(count - 1) < TOLERANCE and abs(factor - 1) < TOLERANCE:
            continue
        source = dataset.depth_source(refs[place])
        same_pixels = kept.size_px == now.size_px and count == 1 and np.allclose(kept.values_m, factor * now.values_m, rtol=TOLERANCE)
        if same_pixels and getattr(dataset, "depth_scale", None) is None:
            console.warning(
                "Ground truth in %s is %.4g times what %s gives; --depth_scale was given when it was made", path, factor, source
            )
            return
        raise InputError(
            f"{path} was made of other data, or with another --depth_scale: {source} gives {len(now.values_m)} pixels of "
            f"{np.median(now.values_m):.2f} m in the median, the file has {len(kept.values_m)} of {np.median(kept.values_m):.2f} m; "
            f"{REMAKE}, or give --eval_from_file"
        )


def _log_unscored(scored: int, total: int) -> None:
    if scored < total:
        console.info("%d of %d images have no ground truth and are not scored", total - scored, total)


def _other_frames(path: Path, frames: Sequence[str], refs: Sequence[FrameRef]) -> InputError:
    return InputError(f"{path} holds the ground truth of other frames ({len(frames)}) than the split's test list ({len(refs)}); {REMAKE}")


def _make_parts(dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool) -> list[PackedDepths]:
    # Threads, not processes: a frame takes about a millisecond, much of it outside the interpreter, and all 697 of the Eigen split are
    # done about as soon as further processes would have started and sent their parts.
    jobs = (partial(_make_part, dataset, refs[first : first + FRAMES_PER_JOB]) for first in range(0, len(refs), FRAMES_PER_JOB))
    parts = []
    with progress_bar(len(refs), "ground truth", "images", shown=progress) as bar:
        for part in in_threads(jobs, number=min(usable_cores(), MAX_THREADS)):
            parts.append(part)
            bar.update(len(part))
    return parts or [PackedDepths.pack([])]


def _make_part(dataset: Dataset, refs: Sequence[FrameRef]) -> PackedDepths:
    return PackedDepths.pack([make_depth(dataset, ref) for ref in refs])


def _save(archive: zipfile.ZipFile, name: str, parts: Sequence[NDArray[Any]]) -> None:
    """Write the parts as the one array that they make up along their first axis, as ``numpy.savez`` would, without making it first."""
    header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(parts[0]))
    header["shape"] = (sum(len(part) for part in parts), *parts[0].shape[1:])
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.tobytes())


def _open_output(temporary: Path, path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return temporary.open("wb")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name another file with --out") from error


def _read_file(path: Path, refs: Sequence[FrameRef] | None) -> tuple[PackedDepths, list[str]]:
    """The depths of a file and the split line of each; of plain maps, those of ``refs`` that measure anything."""
    if not path.is_file():
        raise InputError(f"{path} is missing; {REMAKE}")
    try:
        with open_archive(path, WHAT, REMAKE) as file:
            if not set(ARRAYS) <= set(file.names):
                return _plain_maps(path, file, refs)
            *arrays, frames = (file[name] for name in ARRAYS)
            depths, lines = PackedDepths(*arrays), frames.tolist()
            if len(lines) != len(depths) or not all(isinstance(line, str) for line in lines):
                raise ValueError(f"its frames are {frames.dtype} of shape {frames.shape}, where {len(depths)} lines should be")
            if not (np.isfinite(depths.values_m).all() and np.min(depths.values_m, initial=1) > 0):
                raise ValueError("it holds depths that are not above 0 m")
            for height, width in np.unique(depths.shapes, axis=0).tolist():
                IMAGE_PIXELS.require(height * width, path)
            return depths, lines
    except InputError as error:
        if not isinstance(error.__cause__, PickledError):
            raise
        raise InputError(
            f"{path} is Monodepth2's own file, a pickle, which is not read because it can run code; {REMAKE}, "
            "or save its maps with numpy.savez('gt_depths.npz', *maps)"
        ) from error


def _plain_maps(path: Path, file: Archive, refs: Sequence[FrameRef] | None) -> tuple[PackedDepths, list[str]]:
    """Maps (h,w) of metres, 0 or not finite = missing, that someone else made: one per frame of the list, in its order."""
    depths = [_measured(path, depth_map) for depth_map in _maps_of(file)]
    if not depths:
        raise InputError(f"{path} is no ground truth file: it holds nothing; {REMAKE}")
    lines = [str(number) for number in range(len(depths))] if refs is None else [ref.line for ref in refs]
    if len(lines) != len(depths):
        raise InputError(f"{path} holds {len(depths)} maps, the split's test list {len(lines)} images; both must be of the same list")
    console.info("%s holds plain maps: taken for metres, one per image of the test list, in its order", path)
    measured = [number for number, depth in enumerate(depths) if depth.values_m.size]
    return PackedDepths.pack(depths[number] for number in measured), [lines[number] for number in measured]


def _maps_of(file: Archive) -> Iterator[NDArray[Any]]:
    """The maps of an archive one by one: together they may be larger than memory, where what is measured of them is not."""
    for name in file.names:
        array = file[name]
        yield from array if len(file.names) == 1 and array.ndim == 3 else [array]


def _measured(path: Path, depth_map: NDArray[Any]) -> SparseDepth:
    if depth_map.ndim != 2 or depth_map.dtype.kind != "f":
        held = f"{depth_map.dtype} of shape {depth_map.shape}"
        raise InputError(f"{path} is no ground truth file: it holds {held}, not depth maps of floats in metres; {REMAKE}")
    IMAGE_PIXELS.require(depth_map.size, path)
    if max(depth_map.shape) > MOST_SIDE_PX:
        raise InputError(f"{path} holds a map of shape {depth_map.shape}, which is no picture's; {REMAKE}")
    return SparseDepth.of(clean_metres(depth_map))


def _source_name(dataset: Dataset, ref: FrameRef) -> str:
    source = dataset.depth_source(ref)
    return "" if source is None else dataset.relative(source)
