"""Compiling the step: the cache that keeps it for the next run, and continuing uncompiled where it fails.

Importing this file costs nothing, so that ``keep_compiled`` can come before torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from textwrap import shorten
from typing import TYPE_CHECKING, TypeVar

from dataload.system.console import console
from dataload.system.files import cache_folder
from dataload.system.installing import cpp_compiler_lack
from splits.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
# As much of a compiler's complaint as fits on a line.
REASON_CHARS = 200
UNCOMPILED = "The step cannot be compiled (%s); training continues uncompiled, slower. Remedy: %s, or skip compiling with --no_compile"


def keep_compiled() -> None:
    """Keep what torch and Triton compile in the user's cache folder, unless the user has set another place.

    Call it before torch is imported, which else chooses a place below the temporary folder. That place is used, too, where the cache folder
    cannot be written.
    """
    folder = cache_folder() / "compile"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
        os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def is_compiled(step: nn.Module) -> bool:
    """Whether calls of ``step`` are compiled."""
    return step._compiled_call_impl is not None


def has_compiler(device: torch.device) -> bool:
    """Whether the compiler that torch compiles a step with is there; warns where it is not.

    torch itself would find out after half a minute. For a GPU it is Triton, of which ``engine.loss.launching`` knows.
    """
    lack = cpp_compiler_lack() if device.type == "cpu" else None
    if lack is not None:
        console.warning(UNCOMPILED, f"{lack.name} is missing", lack.remedy)
    return lack is None


def first_call(step: nn.Module, call: Callable[[], T], device: torch.device, *, alone: bool = True) -> T:
    """The result of ``call``, the first to use ``step`` and its gradients; logs how long compiling took.

    Where the step cannot be compiled, logs that once and calls it again uncompiled. An error of the step itself
    comes up there too, and is left to the caller. So is a lack of memory, at once: uncompiled, the step takes more.

    Args:
        alone: whether this process trains alone; of several one cannot make its gradients again, as they are being exchanged.

    Raises:
        InputError: one of several cannot compile the step.
    """
    import torch

    from engine.parallel.ranks import is_lost_peer
    from engine.training.memory import is_out_of_memory

    if not is_compiled(step):
        return call()
    console.info("Compiling the step; the next run with these options finds most of it done")
    begin_s = time.perf_counter()
    kept = [buffer.clone() for buffer in step.buffers()]
    try:
        result = call()
        # Of several processes none waits here: the others may not have sent their gradients, and be lost.
        if alone and device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # compilers fail in many ways: an error of the step itself comes up again without them
        if is_out_of_memory(error) or (not alone and is_lost_peer(error)):
            raise
        reason = _reason(error)
        if not alone:
            raise InputError(f"the step cannot be compiled ({reason}); skip compiling with --no_compile on all processes") from error
    else:
        console.info("Compiled in %.1f s", time.perf_counter() - begin_s)
        return result
    step._compiled_call_impl = None  # the inverse of nn.Module.compile, which has none
    with torch.no_grad():
        for buffer, before in zip(step.buffers(), kept, strict=True):
            buffer.copy_(before)
    result = call()
    lack = cpp_compiler_lack()
    console.warning(UNCOMPILED, reason, lack.remedy if lack else "see that the C++ compiler works (g++, or the one that CXX names)")
    return result


def _reason(error: Exception) -> str:
    """The innermost error in one line: those around it only say that compiling failed."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = next((text.strip() for text in str(error).splitlines() if text.strip()), "")
    return shorten(f"{type(error).__name__}: {line}", REASON_CHARS, placeholder=" ...")
