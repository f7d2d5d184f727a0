"""Out of memory: an error of many names becomes one line with what is free and what the run can still give up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dataload.system.disk import gigabytes
from dataload.system.machine import available_memory_bytes
from engine.checkpoints import resumable_folders
from engine.training.config import TrainConfig
from splits.errors import InputError

# The words of CUDA and its libraries, of DALI and of torch's allocators; not those of a kernel that asks for too much shared memory.
WORDS = re.compile(r"out of memory|_ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE)

# What torch asked for, in its words: those of the GPU's allocator and those of the CPU's.
UNITS_BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ASKED = re.compile(rf"[Tt]ried to allocate ([\d.]+) ({'|'.join(UNITS_BYTES)})\b")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory could not be had: a compiler may have wrapped that error in its own, the end of a capture may have hidden it."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and WORDS.search(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def named_out_of_memory(config: TrainConfig, device: torch.device, frames_bytes: int = 0) -> Iterator[None]:
    """Within the block, a lack of memory is an ``InputError`` that names the remedies which the run does not use yet.

    Args:
        config: of the run.
        device: where it trains.
        frames_bytes: of the GPU's memory, what the frame store holds.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        asked = ASKED.search(str(error))
        what = "out of GPU memory" if device.type == "cuda" else "out of memory"
        what += f" (it tried to allocate {gigabytes(round(float(asked[1]) * UNITS_BYTES[asked[2]]))})" if asked else ""
        raise InputError(f"{what}: {_state(device, frames_bytes)}; {_remedy(config, frames_bytes)}") from error


def _state(device: torch.device, frames_bytes: int) -> str:
    if device.type != "cuda":
        limit = _address_space_bytes()
        limited = "" if limit is None else f", but this process may take no more than {gigabytes(limit)} in all (ulimit -v)"
        return f"{gigabytes(available_memory_bytes())} are free{limited}"
    free, total = torch.cuda.mem_get_info(device)
    frames = f", {gigabytes(frames_bytes)} of that for the frame store" if frames_bytes else ""
    taken = f"{gigabytes(torch.cuda.memory_reserved(device))} are taken by this run{frames}"
    return f"{gigabytes(free)} of {gigabytes(total)} are free, {taken}"


def _address_space_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _remedy(config: TrainConfig, frames_bytes: int) -> str:
    # In the order of the documentation: what touches no result comes first.
    harmless = ["--frame_store disk"] if frames_bytes else []
    harmless += [] if config.checkpoint_activations else ["--checkpoint_activations"]
    batch_size, parts = config.data.batch_size, config.grad_accumulation
    more_parts = next((number for number in range(parts + 1, batch_size + 1) if batch_size % number == 0), None)
    others = [f"--grad_accumulation {more_parts}"] if more_parts else []
    others += ["a smaller --batch_size" if batch_size > 1 else "a smaller --height and --width"]
    if not resumable_folders(config.run_folder / "models"):
        return f"repeat the command with {_either(harmless + others)}"
    # A resumed run keeps to the options on which its numbers depend.
    anew = f"a new run from its weights (--load_weights_folder) with {_either(others)}"
    return f"the last checkpoint is whole: --resume with {_either(harmless)}, or {anew}" if harmless else f"begin {anew}"


def _either(remedies: list[str]) -> str:
    *first, last = remedies
    return f"{', '.join(first)} or {last}" if first else last
