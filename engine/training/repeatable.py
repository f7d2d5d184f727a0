"""What the last bits of a run depend on beside its seed: on a CPU the number of PyTorch's threads, on a GPU its algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from dataload.system.console import console
from dataload.system.machine import usable_cores
from engine.run_options import number_in, run_options
from engine.training.config import THREADS, TrainConfig

# The size and number of buffers with which cuBLAS promises the same bits; it reads this when it is first used.
CUBLAS_VARIABLE, CUBLAS_BUFFERS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
# Its attribute has no type.
SETTINGS: Any = torch.utils.deterministic


@contextmanager
def repeatable(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Within the block PyTorch computes with the run's threads, and where ``--deterministic`` asks for it by deterministic algorithms.

    Raises:
        InputError: the run's ``opt.json`` is damaged.
    """
    threads = torch.get_num_threads()
    try:
        _set_threads(config, device)
        with _deterministic_algorithms() if config.deterministic and device.type == "cuda" else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_BUFFERS)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = SETTINGS.fill_uninitialized_memory
    # It warns instead of failing, because it would refuse the gradient of any sampled image: training takes the part that is deterministic.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill all memory that is about to be written anyway.
    SETTINGS.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        SETTINGS.fill_uninitialized_memory = fills


def computing_threads(device: torch.device) -> int | None:
    """How many threads compute, where a run's pace and bits depend on it: on a CPU; else None."""
    return torch.get_num_threads() if device.type == "cpu" else None


def _set_threads(config: TrainConfig, device: torch.device) -> None:
    """As many as are asked for; else as a resumed run began with, if this process may use as many cores; else as PyTorch chooses."""
    chosen, begun = torch.get_num_threads(), _begun_with(config, device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif begun is not None and begun <= usable_cores():
        torch.set_num_threads(begun)
    now = torch.get_num_threads()
    if begun is not None and begun != now:
        remedy = "" if config.threads is not None else f"; --threads {begun} keeps them, slower"
        console.info("Threads     this run began with %d, now %d: last bits of its numbers differ%s", begun, now, remedy)
    elif begun is not None and config.threads is None and now != chosen:
        console.info("Threads     %d, as this run began (else %d); --threads takes another number", now, chosen)


def _begun_with(config: TrainConfig, device: torch.device) -> int | None:
    """The threads that a resumed run began with; None on a GPU, and where versions before did not record it."""
    if not config.resume or device.type != "cpu":
        return None
    models = config.run_folder / "models"
    recorded = number_in(run_options(models), THREADS, models)
    return None if recorded is None else int(recorded)
