"""TensorRT's libraries where pip puts them: in a package's folder, in which no loader looks."""

from __future__ import annotations

import ctypes
import re
from importlib.util import find_spec
from pathlib import Path

# The folder's name in all of NVIDIA's packages, one for each version of CUDA.
PACKAGE = "tensorrt_libs"
LIBRARY = re.compile(rb"lib(nvinfer|nvonnxparser|cudart)\.so\.(\d+)\0")


def load_tensorrt(provider: Path) -> str | None:
    """Load the libraries that ``provider``, onnxruntime's own library for TensorRT, is linked with.

    Those of pip's packages come first, then those that the loader finds.

    Returns:
        What is wrong and what to install, where one of them cannot be loaded.
    """
    versions = {name.decode(): int(version) for name, version in LIBRARY.findall(provider.read_bytes())} if provider.is_file() else {}
    cuda = versions.pop("cudart", None)
    for name, version in sorted(versions.items()):  # nvinfer before nvonnxparser, which is linked with it
        fault = _load(f"lib{name}.so.{version}")
        if fault is not None:
            return f"it needs TensorRT {version} ({fault}); pip install 'tensorrt-cu{cuda}-libs=={version}.*'"
    return None


def _load(name: str) -> OSError | None:
    """Load a library into this process, for all that is linked with it; the error where that fails."""
    package = find_spec(PACKAGE)
    folders = [] if package is None else list(package.submodule_search_locations or [])
    packaged = [file for file in (Path(folder) / name for folder in folders) if file.is_file()]
    try:
        ctypes.CDLL(str(packaged[0]) if packaged else name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return error
    return None
