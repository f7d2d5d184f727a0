"""Times callables side by side and keeps the numbers with their circumstances."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from dataload.system.files import whole_file
from dataload.system.machine import CHANGED, source_commit, usable_cores
from splits.errors import InputError

if TYPE_CHECKING:
    import torch

# benchmarks.gpu_proof tells its parts by these where results go, and that the CPU stands in for the GPU.
RESULTS_VARIABLE, REHEARSAL_VARIABLE = "MD_RESULTS", "MD_REHEARSAL"
RESULTS = Path(os.environ.get(RESULTS_VARIABLE) or Path(__file__).parent / "results")
IS_REHEARSAL = bool(os.environ.get(REHEARSAL_VARIABLE))
# For torch.compile: on a CPU, compiling the plain step down to machine code takes many minutes. A rehearsal traces it alone.
COMPILER: dict[str, Any] = {"backend": "aot_eager"} if IS_REHEARSAL else {}
# The least times of a step of 12 samples of 640x192 by ResNet-18 on an H200, computed from the bytes and FLOPs that are left when all that
# is elementwise is fused: of the whole, and of its loss.
FLOOR_SETTING = ((192, 640), 12, 18)
STEP_FLOOR_MS, LOSS_FLOOR_MS = 3.50, 0.32
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "nvidia-dali-cuda130",
    "numpy",
    "pillow",
    "simplejpeg",
    "xxhash",
    "onnxruntime",
    "onnxruntime-gpu",
)


class Timing(NamedTuple):
    """Wall time of ``n`` runs: their median, and the spread from the fastest to the slowest."""

    n: int
    median_s: float
    fastest_s: float
    slowest_s: float


def time_side_by_side(runs: Mapping[str, Callable[[], object]], *, rounds: int, warmup_rounds: int = 1) -> dict[str, Timing]:
    """Runs every callable once per round, in turn, so that a busy spell of the machine falls on all of them.

    ``warmup_rounds`` come first and are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(warmup_rounds + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_number >= warmup_rounds:
                seconds[name].append(time.perf_counter() - start)
    return {name: timing_of(s) for name, s in seconds.items()}


def timing_of(seconds: Sequence[float]) -> Timing:
    """The timing of runs that took these seconds."""
    return Timing(len(seconds), median(seconds), min(seconds), max(seconds))


def rates(timing: Timing, samples: int, plain: Timing) -> dict[str, float]:
    """Rates in samples per second of runs over ``samples``, and the ratio of the medians to the plain way's."""
    return {
        "samples_per_s": samples / timing.median_s,
        "slowest_samples_per_s": samples / timing.slowest_s,
        "fastest_samples_per_s": samples / timing.fastest_s,
        "times_plain": plain.median_s / timing.median_s,
    }


def has_floor(size_px: tuple[int, int], batch_size: int, num_layers: int) -> bool:
    """Whether the floors hold for such steps on this machine."""
    return (size_px, batch_size, num_layers) == FLOOR_SETTING and "H200" in (gpu_model() or "")


def gpu_device() -> torch.device:
    """The device of the rows on a GPU: in a rehearsal the CPU. Ends the program with one line where there is no GPU."""
    import click
    import torch

    if IS_REHEARSAL:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise click.ClickException(f"no CUDA device (torch {torch.__version__} sees none): the rows on a GPU need one")
    return torch.device("cuda")


def fp32_convolutions(device: torch.device) -> str:
    """What fp32 convolutions compute in: TF32, fp32's range with fp16's 10 bits, is torch's default on GPUs that have it; else fp32."""
    from engine.precision import convolves_in_tf32

    return "TF32" if convolves_in_tf32(device) else "fp32"


def circumstances() -> dict[str, Any]:
    """Hardware, versions, commit and command of this run."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "gpu": gpu_model(),
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "commit": source_commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def save(name: str, result: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Writes ``result`` with its circumstances to ``<name>.json`` in ``folder``, by default ``benchmarks/results``."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({"circumstances": circumstances(), **result}, indent=2) + "\n", encoding="utf-8")
    return path


def load(name: str, folder: Path) -> dict[str, Any] | None:
    """What ``save`` wrote; None where there is none.

    Raises:
        InputError: the file holds something else, or only a part of it.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_whole = all(isinstance(result[key], dict) for key in ("circumstances", "rows"))
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise InputError(f"{path.name} is no result of a benchmark, or not all of it; run that benchmark again")
    return result


def are_alike(circumstances: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether results may stand side by side: of the same GPU and versions, and of one commit that is known and was not changed."""
    commit = circumstances.get("commit")
    is_known = commit is not None and not commit.endswith(CHANGED)
    return is_known and all(circumstances.get(key) == others[key] for key in ("commit", "gpu", "python", "versions"))


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def gpu_model() -> str | None:
    """The GPU's name, None without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
