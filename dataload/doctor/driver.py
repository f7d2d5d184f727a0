"""NVIDIA's driver and GPUs as ``nvidia-smi`` reports them, and which CUDA a driver runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from dataload.doctor.probes import output_of, shortened

TIMEOUT_S = 20.0
QUERY = ("--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits")
KERNEL_MODULE = Path("/proc/driver/nvidia/version")
# The oldest driver for Linux that programs built for a CUDA of this major version run on, whatever its minor version
# (NVIDIA's CUDA release notes, "minor version compatibility").
OLDEST_DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}


class Gpu(NamedTuple):
    """One GPU of this machine."""

    name: str
    memory_bytes: int


class Driver(NamedTuple):
    """NVIDIA's driver.

    Attributes:
        version: ``580.82.07``; "" where it is not known, or there is no driver.
        gpus: those of the machine, whether or not this process may use them.
        fault: what is wrong with it, in one line; "" where nothing is.
    """

    version: str = ""
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""

    @property
    def is_there(self) -> bool:
        """Whether something of it was found."""
        return bool(self.version or self.gpus)


def find_driver(timeout_s: float = TIMEOUT_S) -> Driver:
    """What ``nvidia-smi`` says; without one, the version of the kernel's module."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return Driver(_module_version())
    try:
        process = subprocess.Popen([command, *QUERY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return Driver(_module_version(), fault=f"nvidia-smi cannot be run ({error.strerror})")
    said = output_of(process, timeout_s)
    if said is None:
        return Driver(_module_version(), fault=f"nvidia-smi does not answer within {timeout_s:g} s")
    output, errors = said
    rows = [[field.strip() for field in line.split(",", 2)] for line in output.splitlines() if line.strip()]
    if process.returncode or not rows or any(len(row) != 3 for row in rows):
        text = shortened(output + errors).rstrip(".") or f"exit status {process.returncode}"
        return Driver(_module_version(), fault=f"nvidia-smi fails: {text}")
    # Some devices share the machine's memory, and say [N/A]; some say it of the driver too.
    gpus = tuple(Gpu(name, int(memory) * 2**20 if memory.isdigit() else 0) for _, memory, name in rows)
    return Driver(rows[0][0] if rows[0][0][:1].isdigit() else _module_version(), gpus)


def _module_version() -> str:
    try:
        found = re.search(r"\b(\d{3,}\.\d+(\.\d+)?)\b", KERNEL_MODULE.read_text())
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""


def newest_cuda(version: str) -> int | None:
    """The major version of CUDA that a driver runs at most, of those known here; None for no driver or one too old for all."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return max((cuda for cuda, oldest in OLDEST_DRIVERS.items() if numbers >= oldest), default=None)


def runs(version: str, cuda: str | None) -> bool:
    """Whether a driver runs what was built for a CUDA (``13.0``); True where that is not known here."""
    major = int(cuda.split(".")[0]) if cuda else 0
    return not version or major not in OLDEST_DRIVERS or (newest_cuda(version) or 0) >= major


def oldest_driver(cuda: str) -> str:
    """``580.65``, for a message."""
    return ".".join(str(number) for number in OLDEST_DRIVERS[int(cuda.split(".")[0])])


def has_kernels(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether a build for these architectures (``sm_90``, ``compute_90``) runs on a GPU of this compute capability.

    Machine code runs on later minor versions of its major one, intermediate code on everything later.
    """
    for text in architectures:
        kind, _, number = text.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        major, minor = divmod(int(digits[0]), 10)
        exact = not number.isdigit()  # sm_90a: that GPU alone
        if kind == "compute" and (major, minor) <= capability and not exact:
            return True
        if kind == "sm" and major == capability[0] and (minor == capability[1] if exact else minor <= capability[1]):
            return True
    return False
