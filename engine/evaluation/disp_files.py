"""Inverse depth on disk: files made elsewhere, files kept of a network's predictions, depth images for the KITTI server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.system.files import whole_file
from dataload.system.threads import in_threads
from engine.evaluation.metrics import MAX_SCORED_M
from engine.evaluation.scoring import require_inv_depth
from engine.resample import resize
from splits.errors import InputError

# Images of a file made elsewhere that are read at a time.
BLOCK_IMAGES = 16
# (height, width) of the depth benchmark's images.
SERVER_SIZE_PX = (352, 1216)
NUM_WRITERS = 4


def open_inv_depths(path: Path, num_images: int) -> NDArray[np.float32]:
    """Inverse depths (N,h,w) of a ``.npy`` file made elsewhere (Monodepth2's "scaled disparity"), left on disk until they are used.

    Raises:
        InputError: no such file, no array of floats of that form, or another number of images.
    """
    if not path.is_file():
        raise InputError(f"ext_disp_to_eval: no file {path}")
    try:
        inv_depths = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is no .npy array ({error}); write it with numpy.save") from error
    if not isinstance(inv_depths, np.ndarray):
        raise InputError(f"{path} holds several arrays; write the one of disparities with numpy.save")
    if inv_depths.ndim != 3 or 0 in inv_depths.shape or not np.issubdtype(inv_depths.dtype, np.floating):
        raise InputError(f"{path} is {inv_depths.dtype} of shape {inv_depths.shape}, not floats of shape (images, height, width)")
    if len(inv_depths) != num_images:
        raise InputError(f"{path} holds {len(inv_depths)} images, the split's test list {num_images}; both must be of the same list")
    return inv_depths


def read_blocks(inv_depths: NDArray[np.float32], indices: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """The chosen maps of an opened file (N,h,w), in blocks (B,h,w) of float32."""
    for start in range(0, len(indices), BLOCK_IMAGES):
        chosen = indices[start : start + BLOCK_IMAGES]
        # Neighbours are read in place; numpy copies any others.
        block = inv_depths[chosen.start : chosen.stop] if isinstance(chosen, range) and chosen.step == 1 else inv_depths[list(chosen)]
        yield np.asarray(block, np.float32)


def save_blocks(blocks: Iterable[NDArray[np.float32]], path: Path, num_images: int) -> Iterator[NDArray[np.float32]]:
    """Pass blocks (B,h,w) on while writing them as one ``.npy`` array (N,h,w), float32; the file appears complete or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for block in blocks:
            if not file.tell():
                header = {"descr": "<f4", "fortran_order": False, "shape": (num_images, *block.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block, "<f4").data)
            yield block


def write_server_pngs(blocks: Iterable[NDArray[np.float32]], folder: Path, scale_factor: float) -> int:
    """Write ``<folder>/%010d.png`` as the depth benchmark takes them, of blocks (B,h,w) of inverse depth; returns how many.

    Depth = scale_factor / inv_depth, resized to 352x1216, at most 80 m, metres * 256 in 16 bits, cut off as published.

    Raises:
        InputError: a map that is no inverse depth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for block in blocks:
        paths = [folder / f"{count + row:010d}.png" for row in range(len(block))]
        jobs = (partial(_write_server_png, inv_depth, path, scale_factor) for inv_depth, path in zip(block, paths, strict=True))
        # Each block is written before the next one is taken, which may reuse its memory.
        count += len(list(in_threads(jobs, number=NUM_WRITERS)))
    return count


def _write_server_png(inv_depth: NDArray[np.float32], path: Path, scale_factor: float) -> None:
    require_inv_depth(inv_depth[None], [path.stem])
    depth_m = np.minimum(scale_factor / resize(inv_depth, SERVER_SIZE_PX), MAX_SCORED_M)
    with whole_file(path) as temporary:
        Image.fromarray((depth_m * PNG_PER_M).astype(np.uint16)).save(temporary)
