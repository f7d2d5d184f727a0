"""What keeps the GPU of this machine from being used, and what mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from dataload.doctor.driver import Driver, find_driver, has_kernels, newest_cuda, oldest_driver, runs
from dataload.doctor.packages import Problem
from dataload.doctor.probes import Answer, torch_facts, torchs_reason
from dataload.system.installing import DALI_FOR_CUDA_12, ONNXRUNTIME_FOR_CUDA_12, TORCH_FOR_CUDA_12

NAMES = {"torch": "torch", "dali": "DALI", "onnxruntime": "onnxruntime", "pictures": "the image decoder"}
FOR_CUDA_12 = {"torch": TORCH_FOR_CUDA_12, "dali": DALI_FOR_CUDA_12, "onnxruntime": ONNXRUNTIME_FOR_CUDA_12}
# The first Python whose newest onnxruntime-gpu is built for CUDA 13: releases for older ones have ended.
ONNXRUNTIME_FOR_CUDA_13 = (3, 11)
# What torch says where CUDA works and has no GPU to offer.
NO_GPUS = "No CUDA GPUs are available"
PYTHON = sys.version_info[:2]


def unused_gpu(reason: str = "") -> Problem | None:
    """Why torch cannot use the GPU of this machine, in torch's words too; None where there is none, or CUDA_VISIBLE_DEVICES hides it.

    Args:
        reason: what torch said as it used the GPU; left out where it finds none.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    driver = find_driver()
    if not driver.is_there and not driver.fault:
        return None
    facts = torch_facts()
    reason = torchs_reason(reason or facts["gpu_fault"])
    found = driver_problem(driver) if driver.fault else next(torch_problems(driver, facts), None)
    if found is None:
        return Problem(reason, "see whether another program holds the GPU (nvidia-smi)")
    return found if not reason or reason in found.what else found._replace(what=f"{found.what} ({reason})")


def driver_lack(name: str, built_for: str | None) -> Problem | None:
    """What is wrong with the driver of this machine for a package, of ``NAMES``, that is built for a CUDA; None where nothing is."""
    driver = find_driver()
    return driver_problem(driver) if driver.fault else next(_build_problems(driver, name, built_for), None)


def driver_problem(driver: Driver) -> Problem:
    """The fault of a driver."""
    return Problem(driver.fault, "restart the machine, then install NVIDIA's driver again if that does not help")


def gpu_problems(driver: Driver, cuda: dict[str, str | None], answers: dict[str, Answer]) -> Iterator[Problem]:
    """What keeps the packages from using the GPU of this machine.

    Args:
        driver: one that answers.
        cuda: the CUDA that each package is built for, None of one without.
        answers: of the probes, by name.
    """
    if answers["torch"].facts:
        yield from torch_problems(driver, answers["torch"].facts)
    for name in ("dali", "onnxruntime"):
        yield from _build_problems(driver, name, cuda[name])
    yield from _onnxruntime_problems(driver, answers["onnxruntime"].facts, cuda["torch"])


def torch_problems(driver: Driver, facts: dict[str, Any]) -> Iterator[Problem]:
    """What keeps torch from using the GPUs of a driver, from what ``torch_facts`` found."""
    if facts["cuda"] is None:
        newest = newest_cuda(driver.version)
        install = TORCH_FOR_CUDA_12 if newest == 12 else "pip install --force-reinstall torch torchvision"
        first = "update the driver, then " if driver.version and (newest or 0) < 12 else ""
        yield Problem(f"torch {facts['version']} is built without CUDA", f"{first}install a torch with CUDA ({install})")
        return
    yield from _build_problems(driver, "torch", facts["cuda"])
    if runs(driver.version, facts["cuda"]) and not facts["gpus"]:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        # Schedulers of clusters always set it: it is at fault only where nothing else is.
        if hidden is not None and facts["gpu_fault"] in ("", NO_GPUS):
            yield Problem(f"torch sees no GPU: CUDA_VISIBLE_DEVICES is {hidden!r}", "unset it, or name a GPU in it")
        else:
            why = facts["gpu_fault"] or "the driver names none"
            yield Problem(
                f"torch sees no GPU: {why}", "in a container, start it with the GPUs (docker run --gpus all); else restart the machine"
            )
    for gpu in facts["gpus"]:
        capability = tuple(gpu["capability"])
        if not has_kernels(capability, facts["architectures"]):
            number = "".join(map(str, capability))
            # Builds for CUDA 13 begin with Turing.
            install = TORCH_FOR_CUDA_12 if capability < (7, 5) else "pip install -U torch torchvision"
            remedy = f"install a torch that has them ({install}), or give --no_cuda"
            yield Problem(f"torch {facts['version']} has no kernels for {gpu['name']} (sm_{number})", remedy)


def _build_problems(driver: Driver, name: str, built_for: str | None) -> Iterator[Problem]:
    """That a package is built for a newer CUDA than the driver's."""
    if built_for is None or runs(driver.version, built_for):
        return
    newest = newest_cuda(driver.version)
    needs = f"{NAMES[name]} is built for CUDA {built_for}, which needs driver {oldest_driver(built_for)} or later"
    remedy = f"update the driver, or take the build for CUDA 12: {FOR_CUDA_12[name]}" if newest == 12 else "update the driver"
    yield Problem(f"{needs}; this is {driver.version}, for CUDA {newest or 'older than 11'}", remedy)


def _onnxruntime_problems(driver: Driver, facts: dict[str, Any], torch_cuda: str | None) -> Iterator[Problem]:
    if not facts or not runs(driver.version, facts["cuda"]):
        return
    if "CUDAExecutionProvider" not in facts["providers"]:
        remedy = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        yield Problem(f"onnxruntime {facts['version']} is installed without CUDA: ONNX files run on the processor", remedy)
    elif facts["cuda_fault"]:
        yield _provider_problem(facts, torch_cuda)


def _provider_problem(facts: dict[str, Any], torch_cuda: str | None) -> Problem:
    """That the CUDA provider does not start: it shares CUDA's libraries with torch, and so needs those of the same major version."""
    what = f"onnxruntime's CUDA provider does not start: {facts['cuda_fault']}"
    own, torchs = ((cuda or "").partition(".")[0] for cuda in (facts["cuda"], torch_cuda))
    if not own or not torchs or own == torchs:
        return Problem(what, "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries; or predict with --provider cpu")
    what += f" (onnxruntime {facts['version']} is built for CUDA {own}, torch and its libraries for CUDA {torchs})"
    if torchs == "12":
        return Problem(what, ONNXRUNTIME_FOR_CUDA_12)
    if PYTHON < ONNXRUNTIME_FOR_CUDA_13:
        python = ".".join(map(str, PYTHON))
        # The cuDNN for CUDA 12 would overwrite that of torch.
        return Problem(what, f"Python {python} has no later onnxruntime-gpu: use Python 3.11 or later, or predict with --provider cpu")
    return Problem(what, "pip install -U onnxruntime-gpu")
