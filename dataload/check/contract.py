"""The contract of datasets, tested on some frames of one: for your own classes and for the project's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import OTHER_SIDE, Dataset
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

SIZE_PX = (192, 640)
# Of intrinsics in float32.
TOLERANCE = 1e-3
# The middle of the first pixel is at 0, so a principal point x goes to 2 x + 1/2 in images twice as wide, or to 2 x by KITTI's rule.
HALF_PX = 0.5 + 1e-2


def contract_faults(dataset: Dataset, refs: Sequence[FrameRef], *, size_px: tuple[int, int] = SIZE_PX) -> list[str]:
    """Where the dataset's answers break the promises of ``datasets.base.Dataset``, one sentence each.

    Args:
        refs: frames that are on disk; a few are enough.
        size_px: (height, width) to ask for intrinsics at.

    Raises:
        InputError: the dataset raises it in answer to a question.
    """
    sides = {dataset.side(ref) for ref in refs} - OTHER_SIDE.keys()
    if sides:
        return [f"side() is {side!r}, neither l nor r" for side in sides]
    faults = [f"{fault} (of '{ref.line}')" for ref in refs for fault in _faults(dataset, ref, size_px)]
    factor = dataset.metric_factor
    if not (np.isfinite(factor) and factor > 0):
        faults.append(f"metric_factor is {factor!r}, not a number above 0")
    kept = dataset.with_sources(refs, source="contract", frame_ids=(0,), use_stereo=False)
    places = [refs.index(ref) if ref in refs else -1 for ref in kept]
    if -1 in places or places != sorted(places):
        faults.append("with_sources gives other references than it was given, or in another order")
    # Faults of one kind are reported once.
    return list({fault.partition(" (of '")[0]: fault for fault in reversed(faults)}.values())[::-1]


def _faults(dataset: Dataset, ref: FrameRef, size_px: tuple[int, int]) -> Iterator[str]:
    yield from _image_faults(dataset, ref, dataset.side(ref))
    yield from _line_faults(dataset, ref)
    yield from _camera_faults(dataset, ref, *size_px)
    yield from _stereo_faults(dataset, ref, dataset.side(ref))
    yield from _depth_faults(dataset, ref)


def _image_faults(dataset: Dataset, ref: FrameRef, side: str) -> Iterator[str]:
    path = dataset.image_path(ref)
    if not isinstance(path, Path):
        yield f"image_path() is {path!r}, not a pathlib.Path"
        return
    if not path.is_file():
        yield f"image_path() is {path}, which is not there"
    if path != dataset.image_path(ref):
        yield "image_path() answers differently when asked again"
    if path != dataset.image_folder(ref.folder, side) / dataset.image_name(ref.folder, side, ref.frame_index):
        yield f"image_path() is {path}, not image_folder() / image_name(), by which files are looked for"
    for frame_id in (-1, 1):
        try:
            neighbour = dataset.image_path(ref, frame_id)
        except InputError:
            continue  # it has none
        if neighbour == path:
            yield f"image_path() of frame_id {frame_id} is the target's own, {path}"


def _line_faults(dataset: Dataset, ref: FrameRef) -> Iterator[str]:
    read = dataset.refs([ref.line], source="contract")
    # A line in short form leaves intrinsics to other places.
    if [found._replace(intrinsics=None) for found in read] != [ref._replace(intrinsics=None)]:
        yield f"refs() reads the line of {tuple(ref)} as {[tuple(found) for found in read]}"


def _camera_faults(dataset: Dataset, ref: FrameRef, height: int, width: int) -> Iterator[str]:
    K = dataset.K(ref, height, width)
    if not _is_float32(K, (3, 3)):
        yield f"K() is {_describe(K)}, not a (3, 3) array of float32"
        return
    if not np.array_equal(K, dataset.K(ref, height, width)):
        yield "K() answers differently when asked again"
    if not np.isfinite(K).all() or min(K[0, 0], K[1, 1]) <= 0:
        yield f"K() has focal lengths {K[0, 0]:g} and {K[1, 1]:g}; they are pixels above 0, and all of K is finite"
        return
    if not np.array_equal(K[2], [0, 0, 1]) or K[0, 1] or K[1, 0]:
        yield f"K() is {K.tolist()}, not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
    for axis, name, doubled in ((0, "width", dataset.K(ref, height, 2 * width)), (1, "height", dataset.K(ref, 2 * height, width))):
        other = 1 - axis
        scaled = abs(doubled[axis, axis] / K[axis, axis] - 2) < TOLERANCE and abs(doubled[axis, 2] - 2 * K[axis, 2]) < HALF_PX
        if not scaled or not np.allclose(doubled[other], K[other], rtol=TOLERANCE):
            yield f"K() does not scale with {name}_px: it is in pixels of the frame resized to height_px, width_px"


def _stereo_faults(dataset: Dataset, ref: FrameRef, side: str) -> Iterator[str]:
    try:
        dataset.check_sources([0], use_stereo=True)
    except InputError:
        return  # it has no second camera
    T = dataset.T_stereo(ref)
    if not _is_float32(T, (4, 4)):
        yield f"T_stereo() is {_describe(T)}, not a (4, 4) array of float32"
        return
    if not np.array_equal(T, dataset.T_stereo(ref)):
        yield "T_stereo() answers differently when asked again"
    R = T[:3, :3]
    is_rigid = np.isfinite(T).all() and np.allclose(R @ R.T, np.eye(3), atol=TOLERANCE) and np.linalg.det(R) > 0
    if not is_rigid or not np.array_equal(T[3], [0, 0, 0, 1]):
        yield f"T_stereo() is {T.tolist()}, no rotation and translation"
        return
    if (T[0, 3] > 0) == (side == "l"):
        yield f"T_stereo() of camera {side} moves points by {T[0, 3]:+g} along x; things lie further left in the right camera"
    other = ref._replace(side=OTHER_SIDE[side])
    if dataset.side(other) == side:
        return  # it has one kind of targets
    if dataset.image_path(ref, stereo=True) != dataset.image_path(other):
        yield "image_path(stereo=True) is not the other camera's image_path()"
    if not np.allclose(T @ dataset.T_stereo(other), np.eye(4), atol=TOLERANCE):
        yield "T_stereo() of the two cameras are not each other's inverse"


def _depth_faults(dataset: Dataset, ref: FrameRef) -> Iterator[str]:
    places, source = dataset.depth_places(ref), dataset.depth_source(ref)
    if source is None:
        yield from _absent_depth_faults(dataset, ref)
        return
    if source not in places:
        yield f"depth_source() is {source}, none of depth_places()"
    depth_m = dataset.depth_m(ref)
    if depth_m is None:
        yield f"depth_m() is None though {source} is there"
        return
    if not isinstance(depth_m, np.ndarray) or depth_m.ndim != 2 or depth_m.dtype != np.float32:
        yield f"depth_m() is {_describe(depth_m)}, not an (h, w) array of float32"
        return
    if not np.isfinite(depth_m).all() or (depth_m < 0).any():
        yield "depth_m() is not finite or below 0; metres are above 0, and 0 is no measurement"
    if not np.array_equal(depth_m, dataset.depth_m(ref)):  # type: ignore[arg-type]
        yield "depth_m() answers differently when asked again"
    sparse = dataset.eval_sparse_depth(ref)
    if sparse.size_px != depth_m.shape:
        yield f"eval_sparse_depth() is of {sparse.size_px} pixels and depth_m() of {depth_m.shape}"
    if not (np.isfinite(sparse.values_m).all() and (sparse.values_m > 0).all()):
        yield "eval_sparse_depth() holds values that are not above 0 m or not finite"
    if not np.array_equal(sparse.dense(), dataset.eval_depth_m(ref)):
        yield "eval_depth_m() is not the map of eval_sparse_depth()"


def _absent_depth_faults(dataset: Dataset, ref: FrameRef) -> Iterator[str]:
    """Without a file there is no depth: None in training, an error with the remedy in an evaluation."""
    try:
        dataset.eval_sparse_depth(ref)
    except InputError:
        pass
    else:
        yield "eval_sparse_depth() has depth though depth_source() is None"
    try:
        depth_m = dataset.depth_m(ref)
    except InputError:
        return  # a dataset that always has it says what is missing
    if depth_m is not None:
        yield "depth_m() has depth though depth_source() is None"


def _is_float32(array: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == np.float32


def _describe(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
