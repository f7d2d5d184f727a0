"""Inverse depth on disk: files made elsewhere, files kept of a network's predictions, depth images for the KITTI server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.system.arrays import StoredArray, is_archive, open_archive, open_array
from dataload.system.files import whole_file
from dataload.system.threads import in_threads
from engine.choices import EVAL_BATCH_SIZE
from engine.evaluation.metrics import MAX_SCORED_M
from engine.evaluation.scoring import require_inv_depth
from engine.resample import resize
from splits.errors import InputError

FLOAT_BYTES = 4
# (height, width) of the depth benchmark's images.
SERVER_SIZE_PX = (352, 1216)
NUM_WRITERS = 4
WHAT = "a .npy array"
SAVE_LIST = "save a list of maps, of whatever sizes, as numpy.savez('maps.npz', *maps)"
# What md-predict adds to an image's stem.
PREDICTION_ENDING = "_disp.npy"
# In memory, or read when it is used.
Array = NDArray[Any] | StoredArray
# (N,h,w), or N maps (h,w) that may differ in size.
InvDepths = Array | Sequence[Array]


def open_inv_depths(path: Path, num_images: int, stems: Sequence[str] = ()) -> InvDepths:
    """Inverse depths made elsewhere (Monodepth2's "scaled disparity"), one map per image of the list, in its order.

    A ``.npy`` array (N,h,w), (N,1,h,w) or (N,h,w,1) of floats is left on disk until it is used; of one image (h,w) serves too. A ``.npz``
    archive holds that array, or N maps (h,w), whose sizes may differ, in the order in which they were saved. A folder holds what md-predict
    writes of the list's images: ``<stem>_disp.npy`` of each.

    Args:
        stems: the names of the list's images without their endings.

    Raises:
        InputError: no such file, no floats of that form, or another number of images.
    """
    if path.is_dir():
        return _open_predictions(path, stems)
    if not path.is_file():
        raise InputError(f"ext_disp_to_eval: no file {path}")
    arrays = _arrays_of(path)
    if len(arrays) == 1:
        return _stack(arrays[0], path, num_images)
    for number, array in enumerate(arrays):
        if len(array.shape) != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{path}: array {number} (counted from 0) is {_form(array)}, not floats of shape (height, width); {SAVE_LIST}")
    _require_count(len(arrays), path, num_images)
    return arrays


def _arrays_of(path: Path) -> Sequence[Array]:
    if is_archive(path, WHAT, SAVE_LIST):
        with open_archive(path, "an archive of arrays", SAVE_LIST) as archive:
            return archive.arrays()
    return [open_array(path, WHAT, f"write it with numpy.save, or {SAVE_LIST}")]


def _open_predictions(folder: Path, stems: Sequence[str]) -> list[Array]:
    """The map of each image, left on disk; ``InputError`` where one is missing, or two images have one name."""
    twice = next((stem for stem in stems if stems.count(stem) > 1), None) if len(set(stems)) < len(stems) else None
    if twice is not None or not stems:
        raise InputError(
            f"{folder} is a folder, whose maps are known by their images' names, and two images of the list are called {twice}; {SAVE_LIST}"
        )
    files = [folder / f"{stem}{PREDICTION_ENDING}" for stem in stems]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} of {len(files)} maps, the first {missing[0]}; md-predict --format npy writes them")
    maps = []
    for file in files:
        arrays = _arrays_of(file)
        _require_count(len(arrays), file, 1)
        one = _stack(arrays[0], file, 1)
        maps.append(one.reshape(one.shape[1:]))
    return maps


def _stack(array: Array, path: Path, num_images: int) -> Array:
    """The maps (N,h,w) of one array, whichever way it says that they have one channel."""
    shape = array.shape
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        shape = (shape[0], *(shape[2:] if shape[1] == 1 else shape[1:3]))
    elif len(shape) == 2 and num_images == 1:
        shape = (1, *shape)
    if len(shape) != 3 or 0 in shape or not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{path} is {_form(array)}, not floats of shape (images, height, width)")
    _require_count(shape[0], path, num_images)
    return array.reshape(shape)


def _form(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _require_count(found: int, path: Path, num_images: int) -> None:
    if found != num_images:
        raise InputError(f"{path} holds {found} images, the split's test list {num_images}; both must be of the same list")


def read_blocks(inv_depths: InvDepths, indices: Sequence[int], batch_size: int = EVAL_BATCH_SIZE) -> Iterator[NDArray[np.float32]]:
    """The chosen maps of an opened file, in blocks (B,h,w) of float32; maps that may differ in size come one by one."""
    if not isinstance(inv_depths, np.ndarray | StoredArray):
        yield from (_to_float32(inv_depths[index][:])[None] for index in indices)
        return
    for start in range(0, len(indices), batch_size):
        chosen = list(indices[start : start + batch_size])
        neighbours = range(chosen[0], chosen[0] + len(chosen))
        # Neighbours lie in one piece.
        parts = [neighbours] if chosen == list(neighbours) else [range(index, index + 1) for index in chosen]
        blocks = [inv_depths[part.start : part.stop] for part in parts]
        yield _to_float32(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def _to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers of any type; those that float32 does not hold become infinite, and whoever scores them says so."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


def save_blocks(
    blocks: Iterable[NDArray[np.float32]], path: Path, positions: Sequence[int], num_images: int
) -> Iterator[NDArray[np.float32]]:
    """Pass blocks (B,h,w) on while writing them to a file, as part of one ``.npy`` array (N,h,w), float32.

    Other processes may write other parts of the file at the same time. It is complete when all N maps are written.

    Args:
        path: a new file, or what others have written of it.
        positions: of the maps of all blocks in the array.
        num_images: N.
    """
    done = 0
    # Neither emptied nor read: on a network disk, whoever has read a page writes all of it, with what others have put there meanwhile.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
        for block in blocks:
            header = _npy_header((num_images, *block.shape[1:]))
            for position, inv_depth in zip(positions[done : done + len(block)], block, strict=True):
                if position == 0:
                    file.write(header)
                file.seek(len(header) + position * inv_depth.size * FLOAT_BYTES)
                file.write(np.ascontiguousarray(inv_depth, "<f4").data)
            done += len(block)
            yield block


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def write_server_pngs(blocks: Iterable[NDArray[np.float32]], folder: Path, positions: Sequence[int], scale_factor: float) -> None:
    """Write ``<folder>/%010d.png`` as the depth benchmark takes them, of blocks (B,h,w) of inverse depth, named by ``positions``.

    Depth = scale_factor / inv_depth, resized to 352x1216, at most 80 m, metres * 256 in 16 bits, cut off as published.

    Raises:
        InputError: a map that is no inverse depth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for block in blocks:
        paths = [folder / f"{position:010d}.png" for position in positions[done : done + len(block)]]
        jobs = (partial(_write_server_png, inv_depth, path, scale_factor) for inv_depth, path in zip(block, paths, strict=True))
        # Each block is written before the next one is taken, which may reuse its memory.
        done += len(list(in_threads(jobs, number=NUM_WRITERS)))


def _write_server_png(inv_depth: NDArray[np.float32], path: Path, scale_factor: float) -> None:
    require_inv_depth(inv_depth[None], [path.stem])
    depth_m = np.minimum(scale_factor / resize(inv_depth, SERVER_SIZE_PX), MAX_SCORED_M)
    with whole_file(path, flush=False) as temporary:
        Image.fromarray((depth_m * PNG_PER_M).astype(np.uint16)).save(temporary)
