"""How to install what is not there: optional packages, builds for another CUDA, and what a compiler needs."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from splits.version import DISTRIBUTION

# For an installation without its requirements, as after pip install --no-deps.
WITH_REQUIREMENTS = f"install {DISTRIBUTION} with its requirements (pip install . in its folder)"
# The packages of setup.py's extras, with a bound where a later version would not do; a test compares the two.
EXTRA_PACKAGES = {
    "video": ("av",),
    "bags": ("rosbags<0.12", "apsw", "lz4"),
    "opencv": ("opencv-python-headless",),
    "hub": ("huggingface_hub",),
}
# What belongs together on a driver of CUDA 12; the newest releases of all three are built for CUDA 13 by default. The torch of this kind
# has kernels for GPUs older than Turing, too.
TORCH_FOR_CUDA_12 = "pip install uv && uv pip install --torch-backend=cu126 --reinstall torch torchvision"
DALI_FOR_CUDA_12 = "pip uninstall nvidia-dali-cuda130, then pip install nvidia-dali-cuda120"
ONNXRUNTIME_FOR_CUDA_12 = "pip install 'onnxruntime-gpu<1.27'"


class Missing(NamedTuple):
    """What is not there, and how to get it."""

    name: str
    remedy: str


def has_module(name: str) -> bool:
    """Whether a module is there, found without importing it, though those above it are."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def pip_install(extra: str) -> str:
    """The command that installs an extra's packages by their own names: it works wherever the engine itself came from."""
    return shlex.join(("pip", "install", *EXTRA_PACKAGES[extra]))


def launcher_lack() -> Missing | None:
    """What Triton lacks here to build the launcher of its kernels, looked for where Triton looks; None where all is there."""
    named = os.environ.get("CC")
    if not any(map(shutil.which, ("gcc", "clang") if named is None else (named,))):
        return _compiler("C", "CC", "gcc")
    # Debian's own scheme names a folder that the headers are not in.
    scheme = "posix_prefix" if sysconfig.get_default_scheme() == "posix_local" else sysconfig.get_default_scheme()
    folder = Path(sysconfig.get_paths(scheme)["include"])
    if not (folder / "Python.h").is_file():
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return Missing(f"Python.h in {folder}", f"install Python's headers ({python}-dev, on Fedora {python}-devel)")
    return None


def cpp_compiler_lack() -> Missing | None:
    """The C++ compiler that torch compiles with, where it is not there."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    program = os.environ.get("CXX", default).partition(" ")[0]  # its options may follow
    return None if shutil.which(program) else _compiler("C++", "CXX", default)


def _compiler(language: str, variable: str, default: str) -> Missing:
    named = os.environ.get(variable)
    what = f"a {language} compiler" if named is None else f"the {language} compiler that {variable} names ({named or 'nothing'})"
    return Missing(what, f"install {default}, or set {variable} to the compiler's name")
