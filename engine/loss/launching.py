"""Whether Triton's kernels run on a GPU: one is launched, once per process and GPU, before anything depends on the answer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from textwrap import shorten

import torch

from dataload.system.console import console
from dataload.system.installing import Missing, launcher_lack

# The oldest GPUs whose code Triton still makes: Turing's. Older ones may run one kernel and fail at the next.
OLDEST_CAPABILITY = (7, 5)
# As much of a compiler's complaint as fits on a line.
REASON_CHARS = 200
UNKNOWN_REMEDY = "see that the C compiler (gcc, or the one that CC names) and the driver work (md-data doctor), or train with --no_cuda"
# As much as is read of all that compilers say.
MOST_BYTES = 2**16


def runs_triton(device: torch.device) -> bool:
    """Whether kernels of Triton run on a device, for the losses and for torch's compiler; warns once where a GPU does not run them.

    True of devices that hold no real tensors, on which kernels are only counted or traced.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return True
    return _launches(torch.cuda.current_device() if device.index is None else device.index)


# torch's compiler asks where it traces a caller, and takes the answer as a constant instead of tracing the launch.
torch.compiler.assume_constant_result(runs_triton)


@cache
def _launches(index: int) -> bool:
    fault = _age_fault(index) or _launch_fault(index)
    if fault:
        console.warning(
            "Triton's kernels do not run on this GPU: %s; the step is not compiled and its losses are torch's, slower. Remedy: %s", *fault
        )
    return fault is None


def _age_fault(index: int) -> Missing | None:
    capability = torch.cuda.get_device_capability(index)
    if capability >= OLDEST_CAPABILITY:
        return None
    found, needed = (".".join(map(str, version)) for version in (capability, OLDEST_CAPABILITY))
    return Missing(f"its compute capability is {found}, and {needed} is needed", "none but a GPU of Turing (2018) or later")


def _launch_fault(index: int) -> Missing | None:
    """Why a kernel cannot be launched, and what mends that; None where it runs."""
    with _kept_errors() as read_errors:
        try:
            with torch.cuda.device(index):
                _launch()
                torch.cuda.synchronize()
        except ModuleNotFoundError as error:
            return Missing(str(error), "pip install triton")
        except Exception as error:  # compilers, linkers and drivers fail in many ways
            complaints = [line for line in read_errors().splitlines() if "error" in line.lower()]
            reason = shorten((complaints or [_words(error)])[0], REASON_CHARS, placeholder=" ...")
        else:
            return None
    lack = launcher_lack()
    return Missing(reason, UNKNOWN_REMEDY) if lack is None else Missing(f"{lack.name} is missing", lack.remedy)


def _words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} ends with exit status {error.returncode}"
    return f"{type(error).__name__}: {error}"


def _launch() -> None:
    """Launch a kernel that does nothing: it is compiled, and so is what launches it."""
    import triton

    def nothing() -> None:
        pass

    triton.jit(nothing)[(1,)]()


@contextmanager
def _kept_errors() -> Iterator[Callable[[], str]]:
    """Within the block, keep what this process and its compilers write to standard error; gives what reads it."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), MOST_BYTES, 0).decode(errors="replace")
        finally:
            os.dup2(shown, 2)
            os.close(shown)
