"""Evaluation's ground truth: made from the dataset, kept in one file of plain arrays, read back.

The file holds the measured pixels only: ``values`` (float32 metres of all images, row by row), ``masks`` (which pixels they are:
each image's bits packed by themselves), ``shapes`` (N, 2) and ``frames`` (the split line of each image).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import Dataset
from dataload.split import FrameRef
from splits.errors import InputError

FILE_NAME = "gt_depths.npz"
ARRAYS = ("values", "masks", "shapes", "frames")
ANNOTATED_SPLITS = ("eigen_benchmark",)
REMAKE = "make it anew: md-data gt --data_path DIR --split NAME_OR_FOLDER"


class _Packed(NamedTuple):
    values: NDArray[np.float32]
    mask: NDArray[np.uint8]
    shape: tuple[int, int]


def default_path(split: str, data_path: Path) -> Path:
    """Where ground truth is kept: in the split's folder, or ``<data_path>/gt_depths_<split>.npz`` for a named split."""
    return Path(split) / FILE_NAME if Path(split).is_dir() else Path(data_path) / f"gt_depths_{split}.npz"


def dataset_for(split: str, dataset: Dataset) -> Dataset:
    """The dataset whose rule makes a split's ground truth: annotated depth for ``eigen_benchmark``, else the dataset's own."""
    from dataload.datasets.kitti_depth import KittiDepth

    if split in ANNOTATED_SPLITS and not isinstance(dataset, KittiDepth):
        return KittiDepth(dataset.data_path, dataset.image_ext)
    return dataset


def ground_truth(dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool = False) -> Iterator[NDArray[np.float32]]:
    """Depth maps (h, w) float32 in metres, 0 = missing, of every reference by the published evaluation's rule.

    All are made at once, so that what is missing is known first, and kept packed until their turn.

    Raises:
        InputError: a scan, depth image or calibration is missing or damaged.
    """
    packed = list(_pack_all(dataset, refs, progress=progress))
    return map(_unpack, packed)


def write_ground_truth(path: Path, dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool = True) -> Path:
    """Make the ground truth of ``refs`` and keep it in ``path``, which appears complete or not at all; raises as ``ground_truth``."""
    packed = list(_pack_all(dataset, refs, progress=progress))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(
                file,
                values=np.concatenate([p.values for p in packed]),
                masks=np.concatenate([p.mask for p in packed]),
                shapes=np.array([p.shape for p in packed], dtype=np.int64),
                frames=np.array([_frame_name(ref) for ref in refs]),
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_ground_truth(path: Path, refs: Sequence[FrameRef] | None = None) -> Iterator[NDArray[np.float32]]:
    """Depth maps (h, w) float32 in metres, 0 = missing, of a file that ``write_ground_truth`` made; checked at once, unpacked one by one.

    Args:
        refs: if given, the file must be of exactly these frames.

    Raises:
        InputError: missing, damaged, of other frames, or in Monodepth2's pickled form, which is not read because a pickle can run code.
    """
    values, masks, shapes, frames = _read_arrays(Path(path))
    if refs is not None and [_frame_name(ref) for ref in refs] != frames.tolist():
        raise InputError(
            f"{path} holds the ground truth of other frames ({len(frames)}) than the split's test list ({len(refs)}); {REMAKE}"
        )
    return _unpack_all(values, masks, shapes)


def _unpack_all(values: NDArray[np.float32], masks: NDArray[np.uint8], shapes: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    first_value, first_byte = 0, 0
    for height, width in shapes.tolist():
        end_byte = first_byte + (height * width + 7) // 8
        mask = masks[first_byte:end_byte]
        end_value = first_value + int(np.unpackbits(mask, count=height * width).sum())
        yield _unpack(_Packed(values[first_value:end_value], mask, (height, width)))
        first_value, first_byte = end_value, end_byte


def _pack_all(dataset: Dataset, refs: Sequence[FrameRef], *, progress: bool) -> Iterator[_Packed]:
    """The packed depths in order. Threads, not processes: numpy and Pillow let go of the interpreter for most of the work."""
    from tqdm import tqdm

    def make(ref: FrameRef) -> _Packed:
        depth = dataset.eval_depth_m(ref)
        mask = depth > 0
        return _Packed(depth[mask], np.packbits(mask), (depth.shape[0], depth.shape[1]))

    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        yield from tqdm(pool.map(make, refs), total=len(refs), desc="ground truth", unit="image", disable=None if progress else True)
    finally:
        pool.shutdown(cancel_futures=True)


def _unpack(packed: _Packed) -> NDArray[np.float32]:
    depth = np.zeros(packed.shape, dtype=np.float32)
    mask = np.unpackbits(packed.mask, count=depth.size).view(bool).reshape(packed.shape)
    depth[mask] = packed.values
    return depth


def _read_arrays(path: Path) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    if not path.is_file():
        raise InputError(f"{path} is missing; {REMAKE}")
    try:
        with np.load(path, allow_pickle=False) as file:
            if "data" in file.files:
                raise InputError(f"{path} is Monodepth2's own file, a pickle, which is not read because it can run code; {REMAKE}")
            values, masks, shapes, frames = (file[name] for name in ARRAYS)
    except InputError:
        raise
    except (OSError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no ground truth file or is damaged ({error}); {REMAKE}") from error
    return values, masks, shapes, frames


def _frame_name(ref: FrameRef) -> str:
    return f"{ref.folder} {ref.frame_index} {ref.side}"
