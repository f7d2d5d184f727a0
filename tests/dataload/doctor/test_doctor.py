"""md-data doctor as a process: on this machine, beside drivers old, new, broken and silent, and without packages."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from fake_driver import with_driver, write_nvidia_smi
from packaging.version import Version
from places import PROJECT

from dataload.doctor import gpus, places
from dataload.doctor.driver import Driver, Gpu, find_driver, has_kernels, newest_cuda, runs
from dataload.doctor.gpus import gpu_problems, torch_problems
from dataload.doctor.places import Disk, disk_problems, shown
from dataload.doctor.probes import FAULT_CHARS, Answer, ask, torchs_reason
from dataload.pipeline.decode import RESIZER
from dataload.system.installing import WITH_REQUIREMENTS

PROGRAM = "from dataload.commands.md_data import md_data; md_data()"
H200 = "NVIDIA H200, not a real one"


def doctor(*args: str, paths: tuple[Path, ...] = (), programs: Path | None = None, **environment: str) -> tuple[int, str]:
    """Exit status and output of the command, with these folders first among modules and among programs."""
    given = os.environ | environment
    given["PYTHONPATH"] = os.pathsep.join(map(str, (*paths, PROJECT)))
    given["PATH"] = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    command = [sys.executable, "-c", PROGRAM, "doctor", *args]
    done = subprocess.run(command, env=given, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def smi_of(folder: Path, version: str) -> Path:
    """One that knows the query it is asked, and a GPU of its own invention."""
    known = '[ "$1" = --query-gpu=driver_version,memory.total,name ] || exit 6'
    return write_nvidia_smi(folder, f"{known}\necho '{version}, 143771, {H200}'")


def shadow(folder: Path, name: str, body: str) -> Path:
    """A folder with a module of that name, which is found before the real one."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(body)
    return folder


def whats(found: dict[str, Any]) -> str:
    return "\n".join(problem["what"] for problem in found["problems"])


def test_on_this_machine(tmp_path: Path) -> None:
    models = tmp_path / "md-engine" / "models"
    models.mkdir(parents=True)
    (models / "weights.pth").write_bytes(os.urandom(2 * 10**6))
    (tmp_path / "md-engine" / "compile").mkdir()
    status, output = doctor("--json", XDG_CACHE_HOME=str(tmp_path))
    found = json.loads(output)
    assert status == bool(found["problems"])
    for name in ("torch", "torchvision", "numpy", "pillow", "onnx"):
        assert found["packages"][name] == importlib.metadata.version(name)
    assert found["probes"]["torch"]["facts"]["amp"] in ("fp32", "bfloat16", "float16")
    assert found["probes"]["pictures"]["facts"] == {"jpeg": "simplejpeg", "resizer": RESIZER}
    assert "CPUExecutionProvider" in found["probes"]["onnxruntime"]["facts"]["providers"]
    assert 0 < found["usable_cores"] <= found["cores"] == os.cpu_count()
    assert found["memory_bytes"] > 10**8
    (cache,) = found["caches"]
    assert (cache["path"], cache["holds"]) == (str(models), "downloaded models")
    assert 2 * 10**6 <= cache["taken_bytes"] < 2.1 * 10**6
    assert {disk["purpose"] for disk in found["disks"]} >= {"cache", "temporary files"}


def test_an_old_driver_is_told_for_each_package_with_its_remedy(tmp_path: Path) -> None:
    status, output = doctor(programs=smi_of(tmp_path / "bin", "535.54.03"))
    assert status == 1
    assert f"{H200} (150.8 GB); driver 535.54.03" in output
    lines = output.splitlines()
    needs = "is built for CUDA 13.0, which needs driver 580.65 or later; this is 535.54.03, for CUDA 12; update the driver, or take"
    torch = "the build for CUDA 12: pip install uv && uv pip install --torch-backend=cu126 --reinstall torch torchvision"
    assert any(f"torch {needs} {torch}" in line for line in lines)
    dali = "the build for CUDA 12: pip uninstall nvidia-dali-cuda130, then pip install nvidia-dali-cuda120"
    assert any(f"DALI {needs} {dali}" in line for line in lines)
    for_cuda_13 = Version(onnxruntime.__version__) >= Version("1.27")
    runtime = f"onnxruntime {needs} the build for CUDA 12: pip install 'onnxruntime-gpu<1.27'"
    assert any(runtime in line for line in lines) == for_cuda_13
    assert "torch sees no GPU" not in output, "which the old driver explains"
    assert lines[-1].endswith(" problems")
    assert len(lines) < 40, "one screen"
    assert max(map(len, lines[: lines.index("")])) <= 180


def test_a_new_driver_that_gives_torch_no_gpu_is_told(tmp_path: Path) -> None:
    programs = smi_of(tmp_path / "bin", "580.82.07")
    driver = with_driver(tmp_path / "driver", 13000) | {"FAKE_FAULT": "100"}
    _, output = doctor("--json", programs=programs, CUDA_VISIBLE_DEVICES="-1", **driver)
    found = json.loads(output)
    assert found["driver"] == {"version": "580.82.07", "gpus": [{"name": H200, "memory_bytes": 143771 * 2**20}], "fault": ""}
    assert "torch sees no GPU: CUDA_VISIBLE_DEVICES is '-1'" in whats(found)
    assert "which needs driver" not in whats(found)


# Modules of a name and all below it are not found, in this process and in those that it starts.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names} or name in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_without_packages_their_lack_and_its_cost_are_told(tmp_path: Path) -> None:
    names = ["torch", "nvidia.dali", "av", "rosbags", "cv2", "huggingface_hub", "simplejpeg", "psutil"]
    blocker = shadow(tmp_path / "blocker", "sitecustomize", BLOCKER.format(names=names))
    status, output = doctor(paths=(blocker,), programs=write_nvidia_smi(tmp_path / "bin", "exit 127"))
    assert status == 1
    assert f"torch is not installed: only prediction from ONNX files works; {WITH_REQUIREMENTS}" in output
    for line in (
        "DALI: images are decoded without the GPU's help (pip install nvidia-dali-cuda130)",
        "av: no videos and no webcams (pip install av)",
        "rosbags, apsw, lz4: no ROS recordings (pip install 'rosbags<0.12' apsw lz4)",
        "OpenCV: no recordings of distorted, Bayer or YUV images (pip install opencv-python-headless)",
        "huggingface_hub: no models from the Hugging Face hub (hf:user/repo) (pip install huggingface_hub)",
        "simplejpeg: JPEG files are decoded more slowly, by Pillow (pip install simplejpeg)",
        "memory unknown (psutil is not installed)",
    ):
        assert line in output


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "OSError: libcudart.so.13: cannot open shared object file"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "importing it ends the process by SIGSEGV"),
        (
            "import os, sys; print('a last word', file=sys.stderr, flush=True); os._exit(3)",
            "importing it ends with exit status 3 (a last word)",
        ),
        ("import time; time.sleep(1000)", "importing it does not end within 2 s"),
        ("import absent_part_of_torch", "ModuleNotFoundError: No module named 'absent_part_of_torch'"),
    ],
)
def test_an_import_that_fails_crashes_or_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, fault: str) -> None:
    monkeypatch.syspath_prepend(str(shadow(tmp_path / "broken", "torch", body)))
    begin_s = time.monotonic()
    answer = ask(["torch"], 2.0 if "sleep" in body else 60.0)["torch"]
    assert (answer.fault, answer.facts, answer.is_absent) == (fault, {}, False)
    assert time.monotonic() - begin_s < 60


def test_a_broken_torch_is_one_problem_of_the_report(tmp_path: Path) -> None:
    broken = shadow(tmp_path / "broken", "torch", "raise OSError('libtorch_cuda.so: undefined symbol')")
    status, output = doctor(paths=(broken,))
    assert status == 1
    problem = "torch does not work: OSError: libtorch_cuda.so: undefined symbol; pip install --force-reinstall torch torchvision"
    assert sum(problem in line for line in output.splitlines()) == 1
    assert "the image decoder does not work" not in output


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not communicate' >&2; exit 9", "nvidia-smi fails: NVIDIA-SMI has failed because it"),
        ("exec sleep 1000", "nvidia-smi does not answer within 1 s"),
        ("echo 'No devices were found'", "nvidia-smi fails: No devices were found"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, fault: str) -> None:
    programs = write_nvidia_smi(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    found = find_driver(timeout_s=1)
    assert found.fault.startswith(fault)
    assert found.gpus == ()


def test_a_driver_that_does_not_answer_is_not_reported_as_none(tmp_path: Path) -> None:
    status, output = doctor(programs=write_nvidia_smi(tmp_path / "bin", "echo 'Failed to initialize NVML: Unknown Error.'; exit 255"))
    assert status == 1
    assert "no NVIDIA driver" not in output
    assert "nvidia-smi fails: Failed to initialize NVML: Unknown Error; restart the machine" in output


def test_a_driver_that_names_no_version_is_not_judged_by_it(tmp_path: Path) -> None:
    programs = write_nvidia_smi(tmp_path / "bin", "echo '[N/A], [N/A], NVIDIA Thor'")
    status, output = doctor(programs=programs, **with_driver(tmp_path / "driver", 13000), FAKE_FAULT="802")
    assert status == 1
    assert "NVIDIA Thor; driver of unknown version" in output
    assert "needs driver" not in output
    assert "torch sees no GPU: CUDA error 802: system not yet initialized; in a container" in output


@pytest.mark.parametrize(("version", "updates"), [("470.82", True), ("535.54", False), ("580.82", False), ("", False)])
def test_a_torch_without_cuda_on_a_driver_too_old_for_any_needs_a_new_one_first(version: str, updates: bool) -> None:
    (found,) = torch_problems(Driver(version, (Gpu(H200, 0),)), GPU_TORCH | {"cuda": None, "gpus": []})
    assert found.remedy.startswith("update the driver, then install a torch with CUDA (") is updates


def test_what_torch_says_is_told_in_its_first_sentence_or_by_the_error_it_quotes() -> None:
    assert torchs_reason("Too old (found version 12020). Please update.") == "Too old (found version 12020)"
    assert (
        torchs_reason("Unknown, e.g. changing a variable after start. Setting to zero.") == "Unknown, e.g. changing a variable after start"
    )
    assert torchs_reason("CUDA error: no kernel image\nCompile with more.") == "CUDA error: no kernel image"
    assert torchs_reason("Unexpected error. Did you run it before? Error 804: not supported") == "CUDA error 804: not supported"
    cut = torchs_reason("CUDA error " + 50 * "and so on, ")
    assert len(cut) <= FAULT_CHARS
    assert cut.rstrip(".").split()[-1] in ("and", "so", "on,")


def test_several_gpus_and_memory_that_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "echo '580.82.07, 24564, NVIDIA L4'; echo '580.82.07, [N/A], NVIDIA Thor, 1'"
    monkeypatch.setenv("PATH", f"{write_nvidia_smi(tmp_path / 'bin', rows)}{os.pathsep}{os.environ['PATH']}")
    assert [tuple(gpu) for gpu in find_driver().gpus] == [("NVIDIA L4", 24564 * 2**20), ("NVIDIA Thor, 1", 0)]


@pytest.mark.parametrize(
    ("version", "cuda"),
    [("580.65.06", 13), ("580.64", 12), ("525.60.13", 12), ("525.53", 11), ("450.80.02", 11), ("418.87", None)],
)
def test_what_a_driver_runs(version: str, cuda: int | None) -> None:
    assert newest_cuda(version) == cuda
    assert [runs(version, f"{major}.4") for major in (11, 12, 13)] == [major <= (cuda or 0) for major in (11, 12, 13)]
    assert runs(version, "14.0"), "not known here"
    assert runs("", "13.0"), "a driver of unknown version"
    assert runs(version, None)


@pytest.mark.parametrize(
    ("capability", "architectures", "fits"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 1), ["sm_120"], True),
        ((6, 1), ["sm_75", "sm_80", "compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a"], False),
    ],
)
def test_kernels_for_a_gpu(capability: tuple[int, int], architectures: list[str], fits: bool) -> None:
    assert has_kernels(capability, architectures) is fits


def test_a_full_disk_is_a_problem_unless_nothing_is_kept_there() -> None:
    full = [Disk("/a", "cache", 10**9, True), Disk("/b", "temporary files", 3 * 10**9, True), Disk("/dev/shm", "shared memory", 0, False)]
    (problem,) = disk_problems(full)
    assert problem.what == "1.0 GB are free for cache in /a"


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, output = doctor("--json", XDG_CACHE_HOME=str(tmp_path / "file"))
    found = json.loads(output)
    assert status == 1
    assert f"the folder for cache, {tmp_path}/file/md-engine, cannot be written" in whats(found)
    assert [disk["can_write"] for disk in found["disks"] if disk["purpose"] != "shared memory"] == [False, True]


def test_paths_do_not_tell_the_users_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert [shown(Path(path)) for path in ("/home/ada/.cache", "/home/ada", "/home/adam", "/tmp")] == [
        "~/.cache",
        "~",
        "/home/adam",
        "/tmp",
    ]


def test_every_part_of_the_cache_is_known_by_name() -> None:
    from dataload.demo.world import default_folder as world
    from dataload.store.choice import default_folder as frames
    from engine.fetching.models import models_folder

    for folder in (world(), frames(), models_folder()):
        assert any(folder.name.startswith(name) for name in places.HOLDS)


def test_the_current_folder_hides_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path / "mine", "onnxruntime", "raise OSError('a file of the user, by chance of that name')")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    answer = ask(["onnxruntime"])["onnxruntime"]
    assert answer.fault == ""
    assert "CPUExecutionProvider" in answer.facts["providers"]


# What the probes say on a machine whose GPU works.
GPU_TORCH = {
    "version": "2.14.1+cu130", "cuda": "13.0", "gpu_fault": "", "architectures": ["sm_75", "sm_80", "sm_90", "sm_120"],
    "gpus": [{"name": H200, "memory_bytes": 150 * 10**9, "capability": [9, 0]}],
}  # fmt: skip
NEW_DRIVER = Driver("580.82.07", (Gpu(H200, 150 * 10**9),))
GPU_ONNX = {"version": "1.31.1", "cuda": "13.0", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda_fault": ""}


@pytest.mark.parametrize(
    ("torch", "onnx", "problem"),
    [
        ({}, {}, None),
        ({"cuda": None, "gpus": []}, {}, "torch 2.14.1+cu130 is built without CUDA"),
        ({"gpus": [], "gpu_fault": "CUDA error 802: not ready"}, {}, "torch sees no GPU: CUDA error 802: not ready"),
        ({"architectures": ["sm_75", "sm_80"]}, {}, f"torch 2.14.1+cu130 has no kernels for {H200} (sm_90)"),
        ({}, {"providers": ["CPUExecutionProvider"]}, "onnxruntime 1.31.1 is installed without CUDA: ONNX files run on the processor"),
        ({}, {"cuda_fault": "libcudnn.so.9 is not there"}, "onnxruntime's CUDA provider does not start: libcudnn.so.9 is not there"),
    ],
)
def test_what_keeps_a_gpu_from_being_used(
    monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], onnx: dict[str, Any], problem: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answers = {"torch": Answer(GPU_TORCH | torch), "onnxruntime": Answer(GPU_ONNX | onnx)}
    cuda = {"torch": (GPU_TORCH | torch)["cuda"], "dali": "12.0", "onnxruntime": "13.0"}
    found = list(gpu_problems(NEW_DRIVER, cuda, answers))
    assert [each.what for each in found] == ([problem] if problem else [])
    assert all(each.remedy for each in found)


@pytest.mark.parametrize(
    ("python", "version", "built_for", "torchs", "remedy"),
    [
        ((3, 10), "1.23.2", "12.8", "13.0", "Python 3.10 has no later onnxruntime-gpu: use Python 3.11 or later, or"),
        ((3, 12), "1.26.0", "12.8", "13.0", "pip install -U onnxruntime-gpu"),
        ((3, 12), "1.31.1", "13.0", "12.6", "pip install 'onnxruntime-gpu<1.27'"),
        ((3, 12), "1.31.1", "13.0", "13.0", "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries; or"),
    ],
)  # fmt: skip
def test_an_onnxruntime_for_another_cuda_than_torchs_is_told(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, int], version: str, built_for: str, torchs: str, remedy: str
) -> None:
    monkeypatch.setattr(gpus, "PYTHON", python)
    onnx = GPU_ONNX | {"version": version, "cuda": built_for, "cuda_fault": "libcublasLt.so is not there"}
    answers = {"torch": Answer(GPU_TORCH | {"cuda": torchs}), "onnxruntime": Answer(onnx)}
    (found,) = gpu_problems(NEW_DRIVER, {"torch": torchs, "dali": None, "onnxruntime": built_for}, answers)
    assert found.what.startswith("onnxruntime's CUDA provider does not start: libcublasLt.so is not there")
    told = f"(onnxruntime {version} is built for CUDA {built_for[:2]}, torch and its libraries for CUDA {torchs[:2]})"
    assert (told in found.what) is (built_for[:2] != torchs[:2])
    assert found.remedy in (remedy, f"{remedy} predict with --provider cpu")


@pytest.mark.parametrize(
    ("capability", "install"),
    [
        ((6, 1), "pip install uv && uv pip install --torch-backend=cu126 --reinstall torch torchvision"),
        ((13, 0), "pip install -U torch torchvision"),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_gets_the_torch_that_has(capability: tuple[int, int], install: str) -> None:
    gpu = {"name": "GeForce", "memory_bytes": 8 * 10**9, "capability": list(capability)}
    (found,) = torch_problems(NEW_DRIVER, GPU_TORCH | {"gpus": [gpu]})
    assert found.what == f"torch 2.14.1+cu130 has no kernels for GeForce (sm_{capability[0]}{capability[1]})"
    assert found.remedy == f"install a torch that has them ({install}), or give --no_cuda"


def test_on_a_machine_with_a_gpu_the_lack_of_what_triton_builds_with_is_told(tmp_path: Path) -> None:
    lack = (
        "the C compiler that CC names (/nonexistent/cc): Triton cannot build: on the GPU training is neither compiled nor fused, and slower"
    )
    with_gpu, without = tmp_path / "with", write_nvidia_smi(tmp_path / "without", "exit 127")
    assert lack in doctor(programs=smi_of(with_gpu, "580.82.07"), CC="/nonexistent/cc")[1]
    assert "Triton" not in doctor(programs=without, CC="/nonexistent/cc")[1]
