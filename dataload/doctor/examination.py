"""An examination of the machine and its packages: the facts, and the problems among them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dataload.doctor.driver import Driver, find_driver
from dataload.doctor.gpus import NAMES, driver_problem, gpu_problems
from dataload.doctor.packages import SHOWN, Lack, Problem, clashes, dali_builds, installed, lacks, requirement_problems
from dataload.doctor.places import Cache, Disk, caches, disk_problems, disks
from dataload.doctor.probes import PROBES, TIMEOUT_S, Answer, ask
from dataload.system.installing import WITH_REQUIREMENTS
from dataload.system.machine import available_memory_bytes, source_commit, usable_cores
from splits.version import DISTRIBUTION

REINSTALL = {
    "torch": "pip install --force-reinstall torch torchvision",
    "dali": "install it again, or give md-train --loader torch",
    "onnxruntime": "pip install --force-reinstall onnxruntime-gpu (onnxruntime where there is no NVIDIA GPU)",
    "pictures": "pip install --force-reinstall pillow simplejpeg",
}
SLOW_RESIZER = Lack("a fast resizer", "images are resized more slowly, by Pillow", "pip install -U torch, or pip install pillow-simd")


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        release: the engine's version; None where it runs from a folder, not installed.
        cuda: torch, DALI and onnxruntime to the CUDA that each was built for; None of one without CUDA.
        answers: of the probes, by name.
        memory_bytes: free of the machine's or the container's memory; None where psutil is not installed.
    """

    release: str | None
    commit: str | None
    python: str
    system: str
    packages: dict[str, str | None]
    driver: Driver
    cuda: dict[str, str | None]
    answers: dict[str, Answer]
    cores: tuple[int, int]
    memory_bytes: int | None
    caches: list[Cache]
    disks: list[Disk]
    lacks: list[Lack]
    problems: list[Problem]

    def as_json(self) -> dict[str, Any]:
        """The facts and problems as plain objects."""
        names = ("release", "commit", "python", "system", "packages", "cuda", "memory_bytes")
        plain: dict[str, Any] = {name: getattr(self, name) for name in names}
        plain |= {"usable_cores": self.cores[0], "cores": self.cores[1]}
        plain["driver"] = {"version": self.driver.version, "gpus": [gpu._asdict() for gpu in self.driver.gpus], "fault": self.driver.fault}
        plain["probes"] = {name: answer._asdict() for name, answer in self.answers.items()}
        for name in ("caches", "disks", "lacks", "problems"):
            plain[name] = [each._asdict() for each in getattr(self, name)]
        return plain


def examine(timeout_s: float = TIMEOUT_S) -> Examination:
    """Examine everything; what does not answer within ``timeout_s`` is reported."""
    driver, answers = find_driver(), ask(PROBES, timeout_s)
    builds = dali_builds()
    cuda = {
        "torch": answers["torch"].facts.get("cuda"),
        "dali": next(iter(builds.values()), None) if answers["dali"].facts else None,
        "onnxruntime": answers["onnxruntime"].facts.get("cuda"),
    }
    found_disks, gpu_is_there = disks(), driver.is_there
    problems = [*_package_problems(answers), *clashes()]
    slow = [SLOW_RESIZER] if answers["pictures"].facts.get("resizer") == "pillow" else []
    if driver.fault:
        problems.append(driver_problem(driver))
    elif gpu_is_there:
        problems += gpu_problems(driver, cuda, answers)
    return Examination(
        release=installed(DISTRIBUTION),
        commit=source_commit(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: installed(name) for name in (*SHOWN, *builds, "onnxruntime", "onnxruntime-gpu", "pillow-simd")},
        driver=driver,
        cuda=cuda,
        answers=answers,
        cores=(usable_cores(), os.cpu_count() or 1),
        memory_bytes=_memory_bytes(),
        caches=caches(),
        disks=found_disks,
        lacks=[*slow, *lacks(has_gpu=gpu_is_there)],
        problems=[*problems, *disk_problems(found_disks)],
    )


def _package_problems(answers: dict[str, Answer]) -> Iterator[Problem]:
    """What is missing, too old or broken."""
    found = requirement_problems()
    yield from found
    torch, pictures = answers["torch"], answers["pictures"]
    if torch.is_absent and not any(problem.what.startswith("torch ") for problem in found):
        yield Problem("torch is not installed: only prediction from ONNX files works", WITH_REQUIREMENTS)
    if answers["onnxruntime"].is_absent:
        yield Problem("onnxruntime is not installed: no export, and no prediction from ONNX files", "pip install onnxruntime")
    for name, answer in answers.items():
        # The decoder's resizing is torch's, so it says of a broken torch what torch says already.
        told_already = answer is pictures and torch.fault
        if answer.fault and not answer.is_absent and not told_already:
            yield Problem(f"{NAMES[name]} does not work: {answer.fault}", REINSTALL[name])


def _memory_bytes() -> int | None:
    try:
        return available_memory_bytes()
    except ImportError:  # psutil
        return None
