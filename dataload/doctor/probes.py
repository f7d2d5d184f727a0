"""What large packages say of themselves and of the GPU, each asked in a process of its own.

A broken driver can make an import fail, crash or wait for ever; none of this may end or block the caller.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from textwrap import shorten
from typing import Any, NamedTuple

# An import from a cold disk of a network takes long, and four of them run side by side.
TIMEOUT_S = 120.0
# Modules are looked for where the caller finds them, never in the current folder before all others.
PROGRAM = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import main; main(sys.argv[1])"
# As much of a fault as fits on a line.
FAULT_CHARS = 200
# The ONNX model y = x of one number, for whether a provider starts.
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)


class Answer(NamedTuple):
    """What a probe found.

    Attributes:
        facts: by name; empty where there is a fault.
        fault: why the package cannot be used, in one line; "" where it can.
        is_absent: the package is not installed.
    """

    facts: dict[str, Any]
    fault: str = ""
    is_absent: bool = False


def ask(names: Iterable[str], timeout_s: float = TIMEOUT_S) -> dict[str, Answer]:
    """The answers of the probes of these names, which run at the same time."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": paths}
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", PROGRAM, name], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in names
    }
    return {name: _answer(process, timeout_s) for name, process in processes.items()}


def output_of(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[str, str] | None:
    """Standard output and error of a process; None where it does not end in time. It is killed then, and not waited for: in a driver's
    hands it may not die."""
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return None
    return output.decode(errors="replace"), errors.decode(errors="replace")


def _answer(process: subprocess.Popen[bytes], timeout_s: float) -> Answer:
    said = output_of(process, timeout_s)
    if said is None:
        return Answer({}, f"importing it does not end within {timeout_s:g} s")
    output, errors = said
    try:
        facts, fault, is_absent = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
        return Answer({}, f"importing it ends {_describe_end(process.returncode)}" + (f" ({shortened(last)})" if last else ""))
    return Answer(facts, fault, is_absent)


def _describe_end(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return f"the process by {signal.Signals(-status).name}"
    return f"with exit status {status}"


def shortened(text: str) -> str:
    """A fault in one line, which ends with a whole word."""
    return shorten(text, FAULT_CHARS, placeholder=" ...")


def torchs_reason(text: str) -> str:
    """What torch says of a GPU: the error of CUDA's that it quotes, or its first sentence; those after it repeat our remedies."""
    quoted = re.search(r"\bError (\d+: .*)", text)
    return shortened(f"CUDA error {quoted[1]}" if quoted else re.split(r"\.\s+(?=[A-Z])|\n", text.strip())[0]).rstrip(".")


def torch_facts() -> dict[str, Any]:
    """torch's version, the CUDA and the architectures that it is built for, and the GPUs that it can use or why it can use none."""
    import torch

    cuda = torch.version.cuda
    facts: dict[str, Any] = {"version": torch.__version__, "cuda": cuda, "gpus": [], "gpu_fault": "", "architectures": []}
    if cuda:
        try:
            torch.cuda.init()
            facts["architectures"] = torch.cuda.get_arch_list()
            for index in range(torch.cuda.device_count()):
                properties = torch.cuda.get_device_properties(index)
                capability = [properties.major, properties.minor]
                facts["gpus"].append({"name": properties.name, "memory_bytes": properties.total_memory, "capability": capability})
        except Exception as error:  # whatever a driver brings about
            facts["gpu_fault"] = torchs_reason(str(error)) or type(error).__name__

    from dataload.system.half_precision import best_dtype

    dtype = best_dtype(torch.device("cuda" if facts["gpus"] else "cpu"))
    facts["amp"] = "fp32" if dtype is None else str(dtype).removeprefix("torch.")
    return facts


def _dali() -> dict[str, Any]:
    import nvidia.dali

    return {"version": nvidia.dali.__version__}


def _onnxruntime() -> dict[str, Any]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    facts = {"version": onnxruntime.__version__, "cuda": getattr(onnxruntime, "cuda_version", None) or None, "providers": providers}
    return facts | {"cuda_fault": _cuda_provider_fault(onnxruntime) if "CUDAExecutionProvider" in providers else ""}


def _cuda_provider_fault(onnxruntime: Any) -> str:
    """Why the CUDA provider does not start; "" where it does."""
    onnxruntime.set_default_logger_severity(4)
    if hasattr(onnxruntime, "preload_dlls"):
        with suppress(Exception):
            onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(IDENTITY, providers=["CUDAExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its exceptions have no common base
        return _one_line(error)
    return "" if "CUDAExecutionProvider" in session.get_providers() else "it finds no CUDA and cuDNN of the versions that it needs"


def _pictures() -> dict[str, Any]:
    """The decoders, after a JPEG was read by them."""
    from PIL import Image

    from dataload.frames import picture
    from dataload.pipeline.decode import RESIZER

    written = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(written, "JPEG")
    picture.decode_picture(written.getvalue())
    return {"jpeg": picture.JPEG_DECODER, "resizer": RESIZER}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {"torch": torch_facts, "dali": _dali, "onnxruntime": _onnxruntime, "pictures": _pictures}
# The module without which a probe's package counts as not installed.
MODULES = {"torch": "torch", "dali": "nvidia.dali", "onnxruntime": "onnxruntime", "pictures": "PIL"}


def _one_line(error: BaseException) -> str:
    return shortened(f"{type(error).__name__}: {error}")


def main(name: str) -> None:
    """Answer in the last line of standard output."""
    answer = Answer({})
    with redirect_stdout(sys.stderr):
        try:
            answer = Answer(PROBES[name]())
        except ModuleNotFoundError as error:
            absent = MODULES[name] == error.name or MODULES[name].startswith(f"{error.name}.")
            answer = Answer({}, _one_line(error), absent)
        except BaseException as error:  # what an import raises is a finding
            answer = Answer({}, _one_line(error))
    print(json.dumps(answer))
