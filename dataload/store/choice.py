"""The decision whether a run keeps its frames in a store, and where: as asked for, or by what is free."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dataload.config import DataConfig
from dataload.datasets.base import Dataset
from dataload.datasets.frame_table import FrameTable
from dataload.frames.bad_frames import BadFrames
from dataload.frames.frame_ref import FrameRef
from dataload.store.build import Decoder, Missing, StoreError, ensure_store, find_missing, room_bytes
from dataload.store.file import StoreKey, required_bytes
from dataload.store.reading import DeviceFrames, FrameStore, fingerprints
from dataload.system.console import console
from dataload.system.disk import gigabytes, nearest_folder
from dataload.system.files import cache_folder
from dataload.system.machine import available_memory_bytes

if TYPE_CHECKING:
    import torch

# How much of what is free auto takes: the rest is for training.
MEMORY_SHARE, GPU_SHARE = 0.8, 0.5
# What gpu takes when asked for: more leaves nothing to train in.
MOST_GPU_SHARE = 0.9


class Machine(NamedTuple):
    """What is free, in bytes; ``gpu`` is None where training runs on a CPU."""

    memory: int
    gpu: int | None


class Choice(NamedTuple):
    """Where the frames are kept ("none", "disk" or "gpu"), and why."""

    where: str
    why: str


def default_folder() -> Path:
    """Where stores are kept unless --frame_store_dir names another place."""
    return cache_folder() / "frames"


def open_store(
    config: DataConfig,
    dataset: Dataset,
    refs: Sequence[FrameRef],
    *,
    decoder: Decoder,
    device: torch.device,
    frames_to_load: int,
    bad: BadFrames | None = None,
) -> FrameStore | DeviceFrames | None:
    """The store of all frames that ``refs`` use, made first if need be; None where there is to be none. Logs which and why.

    Args:
        refs: the lines of all lists of the run.
        frames_to_load: how many frames the run would decode without a store.
        bad: to which frames are added that cannot be read, and so are not in the store; None raises at the first.

    Raises:
        StoreError: a store is asked for and cannot be made or used; under auto the run continues without one.
        InputError: a source is missing or damaged.
    """
    if config.frame_store == "none":
        return None
    table = FrameTable.of(config, dataset, refs)
    key = StoreKey(config.dataset, str(table.data_path.resolve()), config.size_px, decoder.name, table.names)
    folder, sources = config.frame_store_dir or default_folder(), fingerprints(key)
    auto = config.frame_store == "auto"
    free = Machine(available_memory_bytes(), free_gpu_bytes(device))
    may_lack = None if bad is None else lambda row: not bad.reads(table.path(row), lambda: decoder.frame(table.path(row)))
    missing = find_missing(folder, key, sources, may_lack)
    if auto:
        choice = choose(folder, key, missing, free, frames_to_load)
    else:
        choice = Choice(config.frame_store, "asked for")
        require_gpu_memory(choice, key, free)
    if choice.where == "none":
        console.info("Frame store  none: %s", choice.why)
        return None
    size, made = gigabytes(required_bytes(key)), f", {missing.frames} of them to be made" if missing.frames else ""
    console.info("Frame store  %s: %d frames, %s, in %s (%s)%s", choice.where, len(table), size, folder / key.file_name, choice.why, made)
    try:
        file = ensure_store(folder, key, sources, lambda rows, keep: decoder.make(table, rows, keep, bad), may_lack)
    except StoreError as error:
        if not auto:
            raise
        console.warning("Frame store  none: %s", error)
        return None
    store = FrameStore(file, table, decoder.frame)
    return store if choice.where == "disk" else _on_gpu(store, device, auto=auto, bad=bad)


def _on_gpu(store: FrameStore, device: torch.device, *, auto: bool, bad: BadFrames | None) -> FrameStore | DeviceFrames:
    """The frames of a store in the GPU's memory, or where they are if auto chose and they do not fit after all."""
    import torch

    with ExitStack() as stack:
        stack.callback(store.close)
        try:
            return DeviceFrames(store, device, bad)
        except torch.OutOfMemoryError as error:
            if not auto:
                raise StoreError(f"frame_store=gpu: no room for the frames ({error}); give --frame_store disk or auto") from error
        console.warning("Frame store  disk: the GPU has no room for the frames after all")
        stack.pop_all()
    return store


def choose(folder: Path, key: StoreKey, missing: Missing, free: Machine, frames_to_load: int) -> Choice:
    """What auto means for a store that lacks so much: the fastest place that has room, or none where a store would not save time."""
    size = required_bytes(key)
    if frames_to_load < missing.frames:
        return Choice("none", f"the run loads {frames_to_load} frames, fewer than the {missing.frames} that a store would decode")
    stale = f"{key.file_name} {missing.reason} (md-data store remove deletes it), and " if missing.reason else ""
    if missing.bytes > room_bytes(folder):
        why = f"{gigabytes(missing.bytes)} of frames are too many for the disk of {folder}"
        return Choice("none", f"{stale}{why}; --frame_store_dir names another")
    if missing.bytes and not os.access(nearest_folder(folder), os.W_OK):
        return Choice("none", f"{stale}{folder} is not writable; --frame_store_dir names another")
    if free.gpu is not None and size <= GPU_SHARE * free.gpu:
        return Choice("gpu", f"fits into half of the {gigabytes(free.gpu)} free on the GPU")
    if missing.bytes == 0:
        return Choice("disk", "there already")
    if size <= MEMORY_SHARE * free.memory:
        return Choice("disk", f"fits into the {gigabytes(free.memory)} of free memory, which keeps what is read")
    why = f"{gigabytes(size)} of frames do not fit into the {gigabytes(free.memory)} of free memory"
    return Choice("none", f"{why}; --frame_store disk reads them from the disk nevertheless")


def require_gpu_memory(choice: Choice, key: StoreKey, free: Machine) -> None:
    """``StoreError`` where frames asked for on the GPU cannot be there."""
    if choice.where != "gpu":
        return
    if free.gpu is None:
        raise StoreError("frame_store=gpu: training runs on a CPU; give --frame_store disk or auto")
    size = required_bytes(key)
    if size > MOST_GPU_SHARE * free.gpu:
        raise StoreError(
            f"frame_store=gpu: {gigabytes(size)} of frames do not fit beside training into the {gigabytes(free.gpu)} free on the GPU; "
            "give --frame_store disk or auto, or a smaller --height and --width"
        )


def free_gpu_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.mem_get_info(device)[0]
