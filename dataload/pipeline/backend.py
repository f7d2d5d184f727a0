"""The choice between the two backends, which decode and resize images: DALI or torch."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from textwrap import shorten

import torch
from PIL import Image

from dataload.pipeline.dali_pipeline import DaliPipeline, content_input
from dataload.system.console import console
from dataload.system.installing import has_module
from splits.errors import InputError

# The smallest picture and frame that go through every part of DALI's graph.
TRIED_PX = 32
# As much of a reason as fits on a line.
REASON_CHARS = 240


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed."""
    return has_module("nvidia.dali")


def choose_backend(loader: str, device: torch.device) -> str:
    """ "dali" or "torch" for ``--loader``: auto means DALI on a GPU, where it works, and torch, which is faster there, on a CPU.

    That DALI is installed does not say that it works with this driver and GPU: it is tried out. Where it fails under auto, a warning
    gives its reason.

    Raises:
        InputError: DALI is asked for, but not installed, or it does not work here.
    """
    if loader == "torch" or (loader == "auto" and device.type != "cuda"):
        return "torch"
    if not has_dali():
        if loader == "auto":
            return "torch"
        raise InputError("loader=dali needs NVIDIA DALI, which is not installed; pip install nvidia-dali-cuda130, or give --loader torch")
    fault = dali_fault(device)
    if not fault:
        return "dali"
    if loader == "dali":
        raise InputError(f"loader=dali: NVIDIA DALI does not work on {device}: {fault}; see md-data doctor, or give --loader torch")
    console.warning("Loader      torch, as NVIDIA DALI is installed but does not work on %s: %s", device, fault)
    return "torch"


@cache
def dali_fault(device: torch.device) -> str:
    """Why DALI, which is installed, does not work on a device, in one line; "" where it does: it makes one frame, once per process."""
    data = BytesIO()
    Image.new("RGB", (TRIED_PX, TRIED_PX)).save(data, "JPEG")
    pipeline = DaliPipeline((TRIED_PX, TRIED_PX), device, batch_size=1, num_threads=1)
    try:
        for frames in pipeline.run(iter([[content_input(data.getvalue())]])):
            frames.cpu()
    except (Exception, SystemExit) as error:  # whatever a driver, a missing library or another CUDA brings about
        return _reason(error)
    finally:
        pipeline.close()
    return ""


def _reason(error: BaseException) -> str:
    """What DALI says, without the place in the graph that it says before, and without what follows from it."""
    said = str(error).rpartition("encountered:")[2].replace("Current pipeline object is no longer valid.", "")
    return shorten(said, REASON_CHARS, placeholder=" ...").rstrip(".") or type(error).__name__
