"""A driver of NVIDIA's that is not there: a real ``libcuda.so.1``, compiled here, which says yes to all that it is asked.

torch finds it as it finds the real one, and refuses it in its own words where it is too old. Triton compiles its launcher against it and
loads and launches kernels through it; what torch would say of the GPU then, ``TORCH_SEES`` says. ``nvidia-smi`` is a program too. A
number in FAKE_FAULT is the error that CUDA starts with: 100 where there is no GPU, 802 where the machine is not ready.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARY = """
#include <stdlib.h>
#define SUCCEEDS(name) int name() { return 0; }
int cuDriverGetVersion(int *version) { *version = atoi(getenv("FAKE_CUDA")); return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = 1 << 16; return 0; }
int cuFuncGetAttribute(int *value, int which, void *function) { *value = 1024; return 0; }
int cuInit(int flags) { const char *fault = getenv("FAKE_FAULT"); return fault ? atoi(fault) : 0; }
SUCCEEDS(cuDeviceGet) SUCCEEDS(cuCtxGetCurrent) SUCCEEDS(cuCtxGetDevice) SUCCEEDS(cuCtxGetLimit)
SUCCEEDS(cuCtxSetCurrent) SUCCEEDS(cuCtxSetLimit) SUCCEEDS(cuDevicePrimaryCtxRetain) SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig) SUCCEEDS(cuGetErrorString) SUCCEEDS(cuLaunchKernelEx) SUCCEEDS(cuModuleGetFunction)
SUCCEEDS(cuModuleLoadData) SUCCEEDS(cuModuleUnload) SUCCEEDS(cuOccupancyMaxActiveClusters) SUCCEEDS(cuPointerGetAttribute)
SUCCEEDS(cuTensorMapEncodeTiled)
"""
# In front of a program: where this engine and Triton ask, torch sees a GPU of that compute capability. It cannot compute there, so the rest
# of torch sees none.
TORCH_SEES = """
import contextlib, os, sys, torch
asking = ("launching.py", os.path.join("nvidia", "driver.py"))
torch.cuda.is_available = lambda: sys._getframe(1).f_code.co_filename.endswith(asking)
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_capability = lambda device=None: tuple(map(int, os.environ.get("FAKE_CAPABILITY", "9.0").split(".")))
torch.cuda.device = contextlib.nullcontext
torch.cuda.synchronize = lambda: None
torch._C._cuda_getCurrentRawStream = lambda index: 0
"""


def write_nvidia_smi(folder: Path, script: str) -> Path:
    """A folder with a program of that name."""
    folder.mkdir(exist_ok=True)
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return folder


def with_driver(folder: Path, cuda: int) -> dict[str, str]:
    """The settings under which a process finds the driver, which is made in the folder: of CUDA 12020, which is 12.2, for example."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder.mkdir(exist_ok=True)
    source = folder / "cuda.c"
    source.write_text(LIBRARY)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", str(source), "-o", str(folder / "libcuda.so.1")], check=True)
    return {"LD_LIBRARY_PATH": str(folder), "FAKE_CUDA": str(cuda)}
