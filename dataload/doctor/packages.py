"""Which packages are installed: those that the engine requires, those that clash, and what the lack of an optional one costs."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from typing import NamedTuple

from dataload.system.installing import WITH_REQUIREMENTS, cpp_compiler_lack, has_module, launcher_lack, pip_install
from splits.version import DISTRIBUTION

SHOWN = ("torch", "torchvision", "numpy", "pillow", "onnx")
DALI = re.compile(r"nvidia-dali-cuda(\d+)(\d)")
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+?)>=(?P<least>[\d.]+)(?P<bounds>[^;]*)(;\s*(?P<marker>.*))?")


class Problem(NamedTuple):
    """What is wrong, and what mends it."""

    what: str
    remedy: str


class Lack(NamedTuple):
    """Something optional that is not there.

    Attributes:
        name: of the package or program.
        cost: what does not work without.
        remedy: how to get it.
    """

    name: str
    cost: str
    remedy: str


def installed(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def dali_builds() -> dict[str, str]:
    """The installed builds of DALI: name to the CUDA it is built for, ``13.0``."""
    names = {(each.metadata["Name"] or "").lower() for each in distributions()}
    return {name: f"{found[1]}.{found[2]}" for name in sorted(names) if (found := DALI.fullmatch(name))}


def requirement_problems() -> list[Problem]:
    """Required packages that are not installed or too old. DALI and onnxruntime are checked separately."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    absent, old = [], []
    for text in wanted:
        found = REQUIREMENT.fullmatch(text)
        if found is None or found["marker"] or "extra" in text:
            continue
        name, least = found["name"], found["least"]
        # pillow-simd takes Pillow's place.
        have = installed(name) or (installed("pillow-simd") if name == "pillow" else None)
        if have is None:
            absent.append(name)
        elif _numbers(have) < _numbers(least):
            old.append((f"{name} {have} is older than {least}", f"pip install '{name}>={least}'"))
    problems = [Problem(what, remedy) for what, remedy in old]
    if "torch" in absent:
        rest = f" (nor {', '.join(name for name in absent if name != 'torch')})" if len(absent) > 1 else ""
        problems.insert(0, Problem(f"torch is not installed{rest}: only prediction from ONNX files works", WITH_REQUIREMENTS))
    elif absent:
        problems.insert(0, Problem(f"not installed: {', '.join(absent)}", f"pip install {' '.join(absent)}"))
    return problems


def clashes() -> list[Problem]:
    """Distributions that write into the same folder, so that the one installed last has overwritten the other."""
    problems = []
    builds = list(dali_builds())
    if len(builds) > 1:
        both, one = " and ".join(builds), "the one that fits the driver"
        problems.append(Problem(f"{both} overwrite each other's files", f"pip uninstall {' '.join(builds)}, then install {one}"))
    if installed("onnxruntime") and installed("onnxruntime-gpu"):
        both = "onnxruntime and onnxruntime-gpu overwrite each other's files"
        problems.append(Problem(both, "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu (it has the CPU too)"))
    return problems


def lacks(*, has_gpu: bool) -> list[Lack]:
    """What is optional and not there.

    Args:
        has_gpu: whether a GPU of NVIDIA's is in the machine, for which more is built.
    """
    found = []
    if sys.platform == "linux" and not has_module("nvidia.dali"):
        found.append(Lack("DALI", "images are decoded without the GPU's help", "pip install nvidia-dali-cuda130"))
    if not has_module("simplejpeg"):
        found.append(Lack("simplejpeg", "JPEG files are decoded more slowly, by Pillow", "pip install simplejpeg"))
    if not has_module("av"):
        found.append(Lack("av", "no videos and no webcams", pip_install("video")))
    if not all(has_module(name) for name in ("rosbags", "apsw", "lz4")):
        found.append(Lack("rosbags, apsw, lz4", "no ROS recordings", pip_install("bags")))
    if not has_module("cv2"):
        found.append(Lack("OpenCV", "no recordings of distorted, Bayer or YUV images", pip_install("opencv")))
    if not has_module("huggingface_hub"):
        found.append(Lack("huggingface_hub", "no models from the Hugging Face hub (hf:user/repo)", pip_install("hub")))
    if compiler := cpp_compiler_lack():
        found.append(Lack(compiler.name, "training is not compiled, and slower", compiler.remedy))
    if has_gpu and (lack := launcher_lack()):
        found.append(Lack(lack.name, "Triton cannot build: on the GPU training is neither compiled nor fused, and slower", lack.remedy))
    if not shutil.which("npm"):
        found.append(Lack("npm", "md-export --target web needs --onnxruntime_web FILE", "install Node.js"))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    """``2.14.1+cu130`` as (2, 14, 1)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
