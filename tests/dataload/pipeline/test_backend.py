"""The choice of a backend: by what works, not by what is installed; once for a run."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from batches import HAS_DALI, count_builds
from places import PROJECT

from dataload.config import DataConfig
from dataload.pipeline import backend, decoders
from dataload.pipeline.backend import choose_backend, dali_fault
from dataload.training_data import TrainingData, open_loader
from splits.errors import InputError

needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="DALI works on the GPU that is here")
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
# A package that is installed, and whose library does not fit the driver.
BROKEN_DALI = 'raise OSError("libcuda.so.1: undefined symbol: cuGetProcAddress_v2")'


@pytest.fixture(autouse=True)
def not_tried_yet():
    dali_fault.cache_clear()
    yield
    dali_fault.cache_clear()


def test_without_dali_it_is_refused_by_name_and_auto_does_without(monkeypatch, caplog) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"loader=dali needs NVIDIA DALI, which is not installed.*--loader torch"):
        choose_backend("dali", CPU)
    assert choose_backend("auto", GPU) == "torch"
    assert not caplog.records


@needs_dali
def test_on_a_cpu_auto_means_torch_and_tries_nothing(monkeypatch) -> None:
    builds = count_builds(monkeypatch)
    assert [choose_backend(loader, CPU) for loader in ("auto", "torch")] == ["torch", "torch"]
    assert not builds
    assert choose_backend("dali", CPU) == "dali"


@needs_dali
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_auto_means_dali() -> None:
    assert choose_backend("auto", torch.device("cuda")) == "dali"


@needs_dali
@without_gpu
@pytest.mark.parametrize("device", [GPU, torch.device("cuda")])
def test_where_dali_does_not_work_auto_says_so_in_one_line_and_goes_on(monkeypatch, caplog, device) -> None:
    builds = count_builds(monkeypatch)
    assert [choose_backend("auto", device) for _ in range(3)] == ["torch"] * 3
    assert len(builds) == 1
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        choose_backend("auto", device)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "NVIDIA DALI is installed but does not work on cuda" in record.getMessage()
    assert "while CUDA is not available" in record.getMessage()
    assert "\n" not in record.getMessage()


@needs_dali
@without_gpu
def test_where_dali_does_not_work_it_is_refused_with_its_reason_and_the_remedy() -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"loader=dali: NVIDIA DALI does not work on cuda:0: .*CUDA is not available.*--loader torch$"):
            choose_backend("dali", GPU)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BROKEN_DALI, "libcuda.so.1: undefined symbol: cuGetProcAddress_v2"),
        ("raise SystemExit('no licence')", "no licence"),
    ],
)
def test_a_dali_that_cannot_be_imported_is_no_dali(tmp_path: Path, body: str, reason: str) -> None:
    package = tmp_path / "nvidia" / "dali"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    (package.parent / "__init__.py").touch()
    program = (
        "import torch\n"
        "from dataload.pipeline.backend import choose_backend, dali_fault, has_dali\n"
        "assert has_dali()\n"
        "print(dali_fault(torch.device('cpu')))\n"
        "print(choose_backend('auto', torch.device('cuda:0')))\n"
        "choose_backend('dali', torch.device('cpu'))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [reason, "torch"]
    assert f"NVIDIA DALI is installed but does not work on cuda:0: {reason}\n" in done.stderr
    assert f"InputError: loader=dali: NVIDIA DALI does not work on cpu: {reason}; " in done.stderr


def test_another_module_of_nvidias_name_is_no_dali(tmp_path: Path) -> None:
    (tmp_path / "nvidia.py").touch()
    program = "from dataload.pipeline.backend import has_dali; print(has_dali())"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "False\n", done.stderr


@needs_dali
def test_the_reason_is_what_dali_found_not_where() -> None:
    error = RuntimeError(
        "Critical error in pipeline:\nError in MIXED operator `x`,\nwhich was used with the following traceback:\n\n  File ...\n\n"
        "encountered:\n\nCUDA runtime API error\ncudaErrorNoKernelImageForDevice (209)\nCurrent pipeline object is no longer valid."
    )
    assert backend._reason(error) == "CUDA runtime API error cudaErrorNoKernelImageForDevice (209)"
    assert backend._reason(RuntimeError()) == "RuntimeError"
    cut = backend._reason(RuntimeError(100 * "container "))
    assert len(cut) <= backend.REASON_CHARS
    assert set(cut.rstrip(". ").split()) == {"container"}


def test_a_run_chooses_once(kitti_tree, tmp_path, monkeypatch) -> None:
    root = kitti_tree(drives=("0001", "0002"), frames=6)
    config = DataConfig(
        data_path=root, split=str(root / "split"), height_px=64, width_px=96, batch_size=3, frame_store="disk", frame_store_dir=tmp_path
    )
    asked = []

    def counted(loader: str, device: torch.device) -> str:
        asked.append(loader)
        return choose_backend(loader, device)

    monkeypatch.setattr(decoders, "choose_backend", counted)
    with TrainingData(config).loaders(CPU, frames_to_load=lambda train, val: 10**9) as loaders:
        assert {loaders.train.backend, loaders.val.backend} == {"torch"}
    assert asked == ["auto"]
    with open_loader(config, num_epochs=9):
        pass
    assert asked == ["auto"] * 2
