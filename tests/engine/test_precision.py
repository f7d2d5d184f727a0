"""Device and precision: a GPU that torch cannot use is told of, once; what fp32 means on a GPU is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_driver import with_driver, write_nvidia_smi
from places import PROJECT

from engine.precision import describe_precision, pick_device

PICK = """
import logging, sys
logging.getLogger("md").addHandler(logging.StreamHandler(sys.stdout))
import torch
from engine.precision import pick_device
{before}
print(*(pick_device(no_cuda=no_cuda).type for no_cuda in ({no_cuda}, {no_cuda})))
torch.ones(1, requires_grad=True).sum().backward()  # here torch looks for a GPU, wherever it computes
"""
OLD = "535.54.03, 143771, NVIDIA H200"
NEW = "580.82.07, 143771, NVIDIA H200"
OLD_LINE = (
    "The GPU cannot be used: torch is built for CUDA {cuda}, which needs driver 580.65 or later; this is 535.54.03, for CUDA 12 ({why}); "
    "continuing on the CPU, slower (--no_cuda, if that is meant). Remedy: update the driver, or take the build for CUDA 12: "
    "pip install uv && uv pip install --torch-backend=cu126 --reinstall torch torchvision"
)
built_for_13 = pytest.mark.skipif(not (torch.version.cuda or "").startswith("13."), reason="a torch for another CUDA")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")


def pick(folder: Path, says: str | None, *, before: str = "", no_cuda: bool = False, **environment: str) -> list[str]:
    """What is said and picked in a process beside an nvidia-smi that says this, in two calls."""
    programs = write_nvidia_smi(folder / "bin", f"echo '{says}'" if says is not None else "exit 9")
    given = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"} | environment
    command = [sys.executable, "-c", PICK.format(before=before, no_cuda=no_cuda)]
    done = subprocess.run(command, cwd=PROJECT, env=given, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.splitlines()


@built_for_13
@no_gpu
def test_a_driver_of_cuda_12_is_told_with_torchs_words_and_the_build_for_it(tmp_path: Path) -> None:
    driver = with_driver(tmp_path / "driver", 12020)
    why = "The NVIDIA driver on your system is too old (found version 12020)"
    assert pick(tmp_path, OLD, **driver) == [OLD_LINE.format(cuda=torch.version.cuda, why=why), "cpu cpu"]
    assert pick(tmp_path, OLD, no_cuda=True, **driver) == ["cpu cpu"]
    assert pick(tmp_path, OLD, CUDA_VISIBLE_DEVICES="", **driver) == ["cpu cpu"]


@no_gpu
@pytest.mark.parametrize(
    ("says", "before", "environment", "told"),
    [
        (NEW, "", {}, "torch sees no GPU: Found no NVIDIA driver on your system; continuing"),
        (NEW, "torch.version.cuda = None", {}, f"torch {torch.__version__} is built without CUDA; "),
        (None, "", {}, "nvidia-smi fails: exit status 9 (Found no NVIDIA driver on your system); "),
        # Whatever torch says of a GPU, what fails on it is not used.
        (NEW, "torch.cuda.is_available = lambda: True", {}, "Found no NVIDIA driver on your system"),
    ],
)  # fmt: skip
def test_what_else_keeps_torch_from_a_gpu_is_told(
    tmp_path: Path, says: str | None, before: str, environment: dict[str, str], told: str
) -> None:
    line, picked = pick(tmp_path, says, before=before, **environment)
    assert told in line
    assert picked == "cpu cpu"


@built_for_13
@no_gpu
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("100", "CUDA_VISIBLE_DEVICES is '0' (No CUDA GPUs are available)"),
        ("802", "CUDA error 802: system not yet initialized"),
        ("803", "CUDA error 803: system has unsupported display driver / cuda driver combination"),
        ("0", "CUDA error 36: API call is not supported in the installed CUDA driver"),
        (None, "Found no NVIDIA driver on your system"),
    ],
)
def test_a_choice_of_gpus_is_blamed_only_where_cuda_works_and_has_none(tmp_path: Path, fault: str | None, told: str) -> None:
    driver = {} if fault is None else with_driver(tmp_path / "driver", 13000) | {"FAKE_FAULT": fault}
    line, picked = pick(tmp_path, NEW, CUDA_VISIBLE_DEVICES="0", **driver)
    assert line.startswith(f"The GPU cannot be used: torch sees no GPU: {told}; continuing on the CPU")
    assert picked == "cpu cpu"


@no_gpu
def test_a_machine_without_a_gpu_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert pick_device(no_cuda=False) == torch.device("cpu")
    assert caplog.text == ""


@pytest.mark.parametrize(("capability", "rounded"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_fp32_on_a_gpu_says_that_its_convolutions_are_in_tf32(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], rounded: bool
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert describe_precision(None, gpu) == ("fp32 (convolutions in TF32)" if rounded else "fp32")
    assert describe_precision(torch.bfloat16, gpu) == "bfloat16"
    assert describe_precision(None, torch.device("cpu")) == "fp32"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert describe_precision(None, gpu) == "fp32"


def test_fp32_is_plain_where_torch_is_told_to_compute_it_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    gpu, before = torch.device("cuda"), torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert describe_precision(None, gpu) == "fp32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        assert describe_precision(None, gpu) == "fp32 (convolutions in TF32)"
        # The older name of the same switch.
        torch.backends.cudnn.allow_tf32 = False
        assert describe_precision(None, gpu) == "fp32"
    finally:
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.conv.fp32_precision = before
