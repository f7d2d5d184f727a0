"""An examination as one screen of text."""

from __future__ import annotations

from collections.abc import Iterator

from dataload.doctor.driver import Gpu
from dataload.doctor.examination import Examination
from dataload.doctor.gpus import NAMES
from dataload.system.disk import gigabytes
from splits.version import DISTRIBUTION

LABEL_CHARS = 12


def lines(found: Examination) -> Iterator[str]:
    """The facts, and at the end the problems, each with its remedy."""
    release = found.release or "(not installed: it runs from its folder)"
    yield f"{DISTRIBUTION} {release}" + (f", commit {found.commit}" if found.commit else "") + f"; Python {found.python}; {found.system}"
    yield from _row("Packages", ", ".join(f"{name} {version}" for name, version in found.packages.items() if version))
    yield from _row("Built for", ", ".join(f"CUDA {cuda} ({NAMES[name]})" for name, cuda in found.cuda.items() if cuda) or "no CUDA")
    yield from _row("GPU", _gpu(found))
    yield from _row("Processor", f"{found.cores[0]} of {found.cores[1]} cores may be used; {_memory(found)}")
    torch, pictures = found.answers["torch"].facts, found.answers["pictures"].facts
    if torch:
        yield from _row("Precision", f"--amp auto trains in {torch['amp']}")
    if pictures:
        yield from _row("Images", f"{pictures['jpeg']} decodes JPEG, {pictures['resizer']} resizes, where DALI does not")
    yield from _row("ONNX", _onnx(found))
    yield from _row("Cache", *(f"{gigabytes(cache.taken_bytes):>9}  {cache.path}: {cache.holds}" for cache in found.caches))
    yield from _row("Free", ", ".join(f"{gigabytes(disk.free_bytes)} for {disk.purpose} in {disk.path}" for disk in found.disks))
    yield from _row("Without", *(f"{lack.name}: {lack.cost} ({lack.remedy})" for lack in found.lacks))
    yield ""
    for number, problem in enumerate(found.problems, 1):
        yield f"{number}. {problem.what}; {problem.remedy}"
    count = len(found.problems)
    yield "no problems" if not count else "1 problem" if count == 1 else f"{count} problems"


def _row(label: str, *texts: str) -> Iterator[str]:
    for index, text in enumerate(texts):
        yield f"{'' if index else label:<{LABEL_CHARS}}{text}"


def _gpu(found: Examination) -> str:
    driver = found.driver
    if not driver.is_there:
        return "unknown, as its driver does not answer" if driver.fault else "no NVIDIA driver"
    # Where nvidia-smi is not there, torch may know them.
    seen_by_torch = tuple(Gpu(gpu["name"], gpu["memory_bytes"]) for gpu in found.answers["torch"].facts.get("gpus", ()))
    gpus = (f"{gpu.name} ({gigabytes(gpu.memory_bytes)})" if gpu.memory_bytes else gpu.name for gpu in driver.gpus or seen_by_torch)
    return f"{', '.join(gpus) or 'name unknown'}; driver {driver.version or 'of unknown version'}"


def _memory(found: Examination) -> str:
    return "memory unknown (psutil is not installed)" if found.memory_bytes is None else f"{gigabytes(found.memory_bytes)} of memory free"


def _onnx(found: Examination) -> str:
    answer = found.answers["onnxruntime"]
    if not answer.facts:
        return "onnxruntime is not there" if answer.is_absent else "onnxruntime does not work"
    names = [name.removesuffix("ExecutionProvider").lower() for name in answer.facts["providers"]]
    return f"onnxruntime's providers: {', '.join(names)}" + ("" if found.driver.is_there else "; only cpu runs without a GPU")
