"""The providers that onnxruntime runs a model on, by the user's names, and their options. Never torch."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataload.system.console import console
from dataload.system.files import cache_folder
from dataload.system.machine import usable_cores
from export.choices import PROVIDER_NAMES, suggest
from export.runtime.bounds import FATAL, limit_memory, within_seconds
from export.runtime.tensorrt_libraries import load_tensorrt
from splits.errors import InputError
from splits.limits import MODEL_SECONDS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# onnxruntime's names for ours; the later ones run the nodes that the first one lacks.
EXECUTION_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
# Before this version, a replayed CUDA graph reads host memory that runs of other shapes have overwritten since: those of Concat, with
# pointers to its inputs (github.com/microsoft/onnxruntime/pull/32121).
GRAPHS_SINCE = (1, 31)
# onnxruntime's default severity.
WARNINGS = 2


def import_onnxruntime() -> Any:
    """The module; ``InputError`` where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"ONNX files need onnxruntime ({error}): pip install onnxruntime, or onnxruntime-gpu for an NVIDIA GPU") from error
    return onnxruntime


def version_of(onnxruntime: Any) -> tuple[int, int]:
    """Its major and minor number."""
    major, minor = onnxruntime.__version__.split(".")[:2]
    return int(major), int(minor)


def faults() -> tuple[type[Exception], ...]:
    """What onnxruntime raises on a fault of a model or device; its exceptions have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
    )
    return (RuntimeError, state.RuntimeException, *(getattr(state, name) for name in names))


def reason(fault: Exception) -> str:
    """onnxruntime's description of a fault, in one line without its status codes and source lines."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/\S+:\d+ .*?[\])] (?=[A-Z])| ; GPU=.*", "", str(fault))
    # What is left of places in its source: functions without arguments, and all that stands before the innermost.
    return re.sub(r"^.*\.cc:\d+ \S+ ", "", " ".join(text.split())).rstrip(".")


@cache
def gpu_count() -> int:
    """The NVIDIA GPUs that this process may use. The driver is asked: onnxruntime prints pages of errors where there are none."""
    if sys.platform not in DRIVERS:
        return 0
    try:
        driver = ctypes.CDLL(DRIVERS[sys.platform])
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def check_provider(provider: str) -> None:
    """Raise InputError where there is no provider of that name, or not in this onnxruntime, or no GPU for it."""
    if provider not in PROVIDER_NAMES:
        raise InputError(f"provider={provider} is unknown; {suggest(provider, PROVIDER_NAMES)}")
    if provider in ("auto", "cpu"):
        return
    onnxruntime = import_onnxruntime()
    if not gpu_count():
        raise InputError(_refusal(provider, "there is no NVIDIA GPU, or no driver for it"))
    if EXECUTION_PROVIDERS[provider][0] not in onnxruntime.get_available_providers():
        lack = f"onnxruntime {onnxruntime.__version__} is installed without it (pip install onnxruntime-gpu)"
        raise InputError(_refusal(provider, lack))


def _refusal(provider: str, why: str) -> str:
    """The message on a provider that is not available, with those that are."""
    cuda = EXECUTION_PROVIDERS["cuda"][0] in import_onnxruntime().get_available_providers()
    available = "cpu, cuda" if provider == "tensorrt" and cuda and gpu_count() else "cpu"
    return f"provider={provider} is not available: {why}; available here: {available}; auto takes the best of them"


def cpu_session(path: Path) -> InferenceSession:
    """The model on all cores of this process; raises ``faults`` as onnxruntime words them, and ``InputError`` where it takes too long."""
    onnxruntime, settings = import_onnxruntime(), _settings()
    limit_memory(onnxruntime, settings)
    opening = partial(
        onnxruntime.InferenceSession, _utf8_name(path), settings, providers=list(EXECUTION_PROVIDERS["cpu"]), enable_fallback=0
    )
    stop = getattr(settings, "set_load_cancellation_flag", None)  # onnxruntime has it since 1.21
    session: InferenceSession = within_seconds(MODEL_SECONDS.most, opening, (lambda: None) if stop is None else partial(stop, True), path)
    return session


def gpu_session(path: Path, provider: str, precision: str, *, graphs: bool) -> InferenceSession:
    """The model on ``provider``, cuda or tensorrt.

    Args:
        precision: of the weights. graphs: record the run of each shape as a CUDA graph, where the model allows it.

    Raises:
        InputError: the provider does not start.
    """
    check_provider(provider)
    fault: Exception | None = None
    for options in [_tensorrt_options(path, precision)] if provider == "tensorrt" else _cuda_options(precision, graphs=graphs):
        try:
            session = _session(path, provider, options)
        except faults() as error:
            fault = error
            continue
        if EXECUTION_PROVIDERS[provider][0] in session.get_providers():
            return session
        break
    raise InputError(_refusal(provider, _why_not_started(provider, fault)))


def _why_not_started(provider: str, fault: Exception | None) -> str:
    """The driver is the most frequent cause, and onnxruntime names no remedy."""
    # Imported here: it is needed in this case alone.
    from dataload.doctor.gpus import driver_lack

    onnxruntime = import_onnxruntime()
    libraries = "TensorRT, CUDA and cuDNN" if provider == "tensorrt" else "CUDA and cuDNN"
    why = reason(fault) if fault else f"onnxruntime {onnxruntime.__version__} finds no {libraries} of the versions it needs"
    lack = driver_lack("onnxruntime", getattr(onnxruntime, "cuda_version", None) or None)
    return why if lack is None else f"{lack.what} ({why}); {lack.remedy}"


def _settings() -> Any:
    settings = import_onnxruntime().SessionOptions()
    # What goes wrong is raised too, and reported in our own words.
    settings.log_severity_level = FATAL
    settings.intra_op_num_threads = usable_cores()
    # Threads that busy-wait would take the cores from those that decode images and write predictions.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _overflows():
        settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


def _session(path: Path, provider: str, options: dict[str, str]) -> InferenceSession:
    onnxruntime, settings = import_onnxruntime(), _settings()
    first, *rest = EXECUTION_PROVIDERS[provider]
    with _quiet(onnxruntime):
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # of the nvidia packages of pip, which no loader would find
        if provider == "tensorrt":
            lack = load_tensorrt(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so")
            if lack is not None:
                raise InputError(_refusal(provider, lack))
        # Without its fallback, which prints a long text and continues on the CPU.
        return onnxruntime.InferenceSession(_utf8_name(path), settings, providers=[(first, options), *rest], enable_fallback=0)


def _utf8_name(path: Path) -> str:
    """A path as onnxruntime takes it, whatever the encoding of the user's locale; ``InputError`` where it is no UTF-8 text."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: onnxruntime opens no file whose path is not UTF-8 text; rename it") from error


def _overflows(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds products of int8 in 16 bits, where they overflow, unless onnxruntime is set to a slower way.

    x86 without VNNI does. With VNNI, the slower way would cost time for nothing: 36 ms instead of 15 for ResNet-18 at 640x192.
    """
    known = processor.is_file() and platform.machine().lower() in ("x86_64", "amd64")
    return known and "vnni" not in processor.read_text(errors="replace")


@contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Within the block, hide what onnxruntime writes about libraries that it does not find: our own message reports it."""
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)


def _cuda_options(precision: str, *, graphs: bool) -> list[dict[str, str]]:
    """CUDA's options, the fastest first; onnxruntime refuses a session whose options its nodes do not fit."""
    # Nodes that are left to the CPU cannot be recorded.
    recorded = ("1", "0") if graphs and version_of(import_onnxruntime()) >= GRAPHS_SINCE else ("0",)
    # Tensor cores work on NHWC alone. Not in fp32, where it would have convolutions in TF32, whatever use_tf32 says.
    nhwc = ("1", "0") if precision == "fp16" else ("0",)
    return [{"enable_cuda_graph": graph, "prefer_nhwc": layout} for graph in recorded for layout in nhwc]


def _tensorrt_options(path: Path, precision: str) -> dict[str, str]:
    """Engines are kept, as building one takes minutes; they compute in no lower precision than the model does."""
    # An engine is named by its graph, not by its weights: in a common folder, a retrained model would get the old one's engine.
    folder = cache_folder() / "tensorrt" / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return {
        # Unlike CUDA's options, these take no 1 and 0.
        "trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True", "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": str(precision == "fp16"), "trt_int8_enable": str(precision == "int8"),
    }  # fmt: skip


def best_session(path: Path, on_cpu: InferenceSession, precision: str, *, graphs: bool) -> tuple[InferenceSession, str]:
    """What ``auto`` means: the model on CUDA where there is a GPU, else ``on_cpu`` as it is; and the provider's name."""
    if not gpu_count():
        return on_cpu, "cpu"
    try:
        return gpu_session(path, "cuda", precision, graphs=graphs), "cuda"
    except InputError as error:
        console.warning("There is a GPU, but %s; continuing on the CPU", error)
        return on_cpu, "cpu"
