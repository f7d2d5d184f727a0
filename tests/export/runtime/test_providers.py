"""What an ONNX file runs on: which provider is taken, with which options, and what is said where it cannot be had; a GPU's results."""

import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fake_driver import with_driver, write_nvidia_smi
from onnx_models import SIZE_PX, facts, images_of, result_of, save_onnx
from places import PROJECT
from published import networks_of

from dataload.system.console import shown_console
from engine.inference.depth_network import DepthNetwork
from export.conversion.to_onnx import depth_onnx
from export.runtime import providers
from export.session import DepthSession
from splits.errors import InputError

NEEDS_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no GPU, or an onnxruntime without CUDA",
)


def test_providers_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_onnx(tmp_path / "a.onnx", facts())
    with pytest.raises(InputError, match="provider=cud is unknown; did you mean cuda"):
        DepthSession(path, "cud")
    monkeypatch.setattr(providers, "gpu_count", lambda: 0)
    for name in ("cuda", "tensorrt"):
        with pytest.raises(InputError, match=rf"provider={name} is not available: there is no NVIDIA GPU, .*; available here: cpu; auto"):
            DepthSession(path, name)
    monkeypatch.setattr(providers, "gpu_count", lambda: 1)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"onnxruntime .* is installed without it \(pip install onnxruntime-gpu\); available here: cpu;"):
        DepthSession(path, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_a_provider_that_onnxruntime_drops_is_an_error_and_auto_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime for the CPU alone")
    with shown_console():
        path = save_onnx(tmp_path / "a.onnx", facts())
        assert DepthSession(path).provider == "cpu"
        assert capfd.readouterr() == ("", "")
        monkeypatch.setattr(providers, "gpu_count", lambda: 1)  # as of a driver without the libraries of CUDA
        with pytest.raises(InputError, match=r"provider=cuda is not available: .*; available here: cpu; auto takes the best of them"):
            DepthSession(path, "cuda")
        assert capfd.readouterr() == ("", "")
        session = DepthSession(path)
        assert session.provider == "cpu"
        images = images_of(1)
        np.testing.assert_allclose(session.inv_depth(images), result_of(images), rtol=1e-5)
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("There is a GPU, but provider=cuda is not available: ")


OPEN = """
import sys
from pathlib import Path
from dataload.system.console import shown_console
from export.session import DepthSession
with shown_console():
    print(DepthSession(Path(sys.argv[1])).provider)
"""
NEEDS = "onnxruntime is built for CUDA {cuda}, which needs driver 580.65 or later; this is 535.54.03, for CUDA 12 ("
OLD = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
REMEDY = "); update the driver, or take the build for CUDA 12: pip install 'onnxruntime-gpu<1.27'"


@pytest.mark.skipif(not getattr(onnxruntime, "cuda_version", "").startswith("13."), reason="an onnxruntime for another CUDA, or for none")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
@pytest.mark.parametrize(
    ("cuda", "version", "told"),
    [
        (12020, "535.54.03", f"{NEEDS}{OLD}{REMEDY}"),
        (13000, "580.82.07", "CUDA failure 36: API call is not supported in the installed CUDA driver"),
    ],
)
def test_a_driver_that_cuda_refuses_is_told_in_one_short_line_with_its_remedy(tmp_path: Path, cuda: int, version: str, told: str) -> None:
    programs = write_nvidia_smi(tmp_path / "bin", f"echo '{version}, 143771, NVIDIA H200'")
    environment = os.environ | with_driver(tmp_path / "driver", cuda) | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", OPEN, str(save_onnx(tmp_path / "a.onnx", facts()))]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    why = told.format(cuda=onnxruntime.cuda_version)
    rest = "available here: cpu; auto takes the best of them; continuing on the CPU"
    assert done.stderr.splitlines() == [f"There is a GPU, but provider=cuda is not available: {why}; {rest}"]
    assert done.stdout == "cpu\n"


def test_engines_are_kept_apart_by_what_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cache_folder", lambda: tmp_path / "cache")
    path = save_onnx(tmp_path / "a.onnx", facts())
    first = providers._tensorrt_options(path, "fp16")
    assert (first["trt_fp16_enable"], first["trt_int8_enable"]) == ("True", "False")
    # Its parser takes no other spellings, and complains before it looks for TensorRT.
    assert {value for key, value in first.items() if key.endswith("_enable")} <= {"True", "False"}
    assert Path(first["trt_engine_cache_path"]).is_dir()
    assert providers._tensorrt_options(path, "fp16") == first
    path.write_bytes(path.read_bytes() + b"\x00")
    second = providers._tensorrt_options(path, "fp32")
    assert second["trt_engine_cache_path"] != first["trt_engine_cache_path"]
    assert second["trt_fp16_enable"] == "False"


@pytest.mark.parametrize(
    ("version", "provider", "precision", "expected"),
    [
        ("1.30.0", "cuda", "fp32", [("0", "0")]),
        ("1.31.1", "cuda", "fp32", [("1", "0"), ("0", "0")]),
        ("2.0.0rc1", "cuda", "int8", [("1", "0"), ("0", "0")]),
        ("1.30.0", "cuda", "fp16", [("0", "1"), ("0", "0")]),
        ("1.31.1", "cuda", "fp16", [("1", "1"), ("1", "0"), ("0", "1"), ("0", "0")]),
        ("1.31.1", "tensorrt", "fp16", [(None, None)]),
    ],
)
def test_graphs_and_nhwc_are_tried_where_they_compute_rightly(tmp_path, monkeypatch, version, provider, precision, expected) -> None:
    tried = []

    def refused(path: Path, provider: str, options: dict[str, str]) -> None:
        tried.append((options.get("enable_cuda_graph"), options.get("prefer_nhwc")))
        raise RuntimeError("no GPU")

    monkeypatch.setattr(providers, "check_provider", lambda provider: None)
    monkeypatch.setattr(providers, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(providers, "_session", refused)
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(InputError, match=f"provider={provider} is not available: no GPU; "):
        providers.gpu_session(save_onnx(tmp_path / "a.onnx", facts()), provider, precision, graphs=True)
    assert tried == expected


LOADED = """
import ctypes, sys
from pathlib import Path
from export.runtime.tensorrt_libraries import load_tensorrt
print(load_tensorrt(Path(sys.argv[1])))
print(*{line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "nvinfer" in line or "nvonnxparser" in line})
ctypes.CDLL(sys.argv[1])
print("linked")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("gcc") is None, reason="builds libraries for Linux")
@pytest.mark.parametrize("installed", [10, 11, None])
def test_tensorrt_of_pip_is_found_by_the_library_that_is_linked_with_it(tmp_path: Path, installed: int | None) -> None:
    """As onnxruntime's is, but with nothing else; pip's package beside it, whose folder no loader searches."""

    def build(name: str, *linked: str, folder: Path) -> None:
        (tmp_path / "empty.c").write_text("")
        links = [part for other in linked for part in (f"-L{folder}", f"-l:{other}")]
        command = ["gcc", "-shared", "-Wl,--no-as-needed", f"-Wl,-soname,{name}", "-o", folder / name, tmp_path / "empty.c", *links]
        subprocess.run(command, check=True)

    elsewhere, package = tmp_path / "elsewhere", tmp_path / "site" / "tensorrt_libs"
    elsewhere.mkdir()
    package.mkdir(parents=True)
    for version, folder in [(10, elsewhere), *([(installed, package)] if installed else [])]:
        build(f"libnvinfer.so.{version}", folder=folder)
        build(f"libnvonnxparser.so.{version}", f"libnvinfer.so.{version}", folder=folder)
    build("libcudart.so.13", folder=elsewhere)
    build("libprovider.so", "libnvonnxparser.so.10", "libnvinfer.so.10", folder=elsewhere)
    provider = elsewhere / "libprovider.so"
    # The number of CUDA's version alone is read.
    provider.write_bytes(provider.read_bytes() + b"libcudart.so.13\0")
    for name in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        (elsewhere / name).unlink()
    # Imported, it would do what it likes.
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(package.parent)])}
    done = subprocess.run([sys.executable, "-c", LOADED, provider], env=environment, capture_output=True, text=True, timeout=60)
    said, found, *rest = done.stdout.splitlines()
    if installed == 10:
        assert (said, rest) == ("None", ["linked"]), done.stderr
        assert set(found.split()) == {str(package / "libnvinfer.so.10"), str(package / "libnvonnxparser.so.10")}
    else:
        assert said.startswith("it needs TensorRT 10 (libnvinfer.so.10: cannot open shared object file")
        assert said.endswith("; pip install 'tensorrt-cu13-libs==10.*'")
        assert (found, rest) == ("", [])


@pytest.mark.skipif("TensorrtExecutionProvider" not in onnxruntime.get_available_providers(), reason="an onnxruntime without TensorRT")
@pytest.mark.skipif(find_spec("tensorrt_libs") is not None or find_library("nvinfer") is not None, reason="TensorRT is installed")
def test_without_tensorrt_the_version_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "gpu_count", lambda: 1)
    monkeypatch.setattr(providers, "cache_folder", lambda: tmp_path)
    with pytest.raises(
        InputError, match=r"provider=tensorrt .* it needs TensorRT \d+ .*; pip install 'tensorrt-cu1\d-libs==\d+\.\*'; available"
    ):
        DepthSession(save_onnx(tmp_path / "a.onnx", facts()), "tensorrt")


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_gpu_agrees_with_the_cpu_run_after_run(tmp_path: Path, dynamic: bool) -> None:
    known = facts(dynamic_size=dynamic)
    path = save_onnx(tmp_path / "a.onnx", known, size_px=("h", "w") if dynamic else SIZE_PX)
    session = DepthSession(path, "cuda")
    for count in (1, 3, 1, 3, 1):  # recorded, then replayed, each shape in its own buffers
        images = images_of(count) // count
        np.testing.assert_allclose(session.inv_depth(images), result_of(images), rtol=1e-4)


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_recorded_runs_of_several_shapes_do_not_disturb_each_other(tmp_path: Path, precision: str) -> None:
    """In a whole network: a replay reads what Concat put down for it, and keeps no room of its own between runs."""
    torch.manual_seed(0)
    networks = networks_of()
    known = {"height": 64, "width": 96, "use_stereo": False, "num_layers": 18, "min_depth": 0.1, "max_depth": 100.0}
    network = DepthNetwork(networks.encoder, networks.depth, known).eval().requires_grad_(False)
    path = tmp_path / "a.onnx"
    depth_onnx(network, facts(height_px=64, width_px=96, precision=precision), path)
    session, plain = DepthSession(path, "cuda"), DepthSession(path, "cpu")
    for count in (1, 3, 1, 2, 3, 1):
        images = images_of(count, (64, 96))
        np.testing.assert_allclose(session.inv_depth(images), plain.inv_depth(images), rtol=0.02)


@pytest.mark.parametrize(
    ("machine", "flags", "overflows"),
    [("x86_64", "avx2 fma", True), ("x86_64", "avx2 avx512_vnni", False), ("AMD64", "avx_vnni", False), ("aarch64", "asimd", False)],
)
def test_processors_whose_sums_of_int8_overflow_are_known(tmp_path: Path, monkeypatch, machine, flags, overflows) -> None:
    monkeypatch.setattr(providers.platform, "machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    assert providers._overflows(tmp_path / "cpuinfo") == overflows
    assert not providers._overflows(tmp_path / "not Linux")
