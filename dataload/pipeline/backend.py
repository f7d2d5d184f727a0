"""The choice between the two ways of making batches: DALI or torch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from splits.errors import InputError

if TYPE_CHECKING:
    import torch


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


def choose_backend(loader: str, device: torch.device) -> str:
    """ "dali" or "torch" for ``--loader``: auto means DALI on a GPU, where it is installed, and torch, which is faster there, on a CPU.

    Raises:
        InputError: DALI is asked for but not installed.
    """
    installed = has_dali()
    if loader == "dali" and not installed:
        raise InputError("loader=dali needs NVIDIA DALI, which is not installed; pip install nvidia-dali-cuda130, or give --loader torch")
    if loader == "auto":
        return "dali" if installed and device.type == "cuda" else "torch"
    return loader
