"""What the last bits of a run depend on beside its seed: on a CPU the number of PyTorch's threads, on a GPU its algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dataload.system.console import console
from dataload.system.machine import usable_cores
from engine.run_options import number_in, run_options
from engine.training.config import THREADS, TrainConfig

# The size and number of buffers with which cuBLAS promises the same bits; it reads this when it is first used.
CUBLAS_VARIABLE, CUBLAS_BUFFERS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def repeatable(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Within the block PyTorch computes with the run's threads, and where ``--deterministic`` asks for it by deterministic algorithms.

    Raises:
        InputError: the run's ``opt.json`` is damaged.
    """
    threads, algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns, fills = torch.is_deterministic_algorithms_warn_only_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    try:
        _set_threads(config, device)
        if config.deterministic and device.type == "cuda":
            os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_BUFFERS)
            # Warned of alone: PyTorch refuses the gradient of a sampled image, of which training takes the part that is deterministic.
            torch.use_deterministic_algorithms(True, warn_only=True)
            # It would write over all memory that is about to be written anyway.
            torch.utils.deterministic.fill_uninitialized_memory = False
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills


def threads_to_record(device: torch.device) -> int | None:
    """How many threads compute, where the bits of a run depend on it: on a CPU."""
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
