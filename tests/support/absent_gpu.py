"""Calls the fused losses' operators as on a GPU that is not there, and says what Triton's compiler made of their kernels.

Triton's launcher specialises the kernels for the very arguments of the calls, and its compiler makes machine code of them; only loading and
running it are left out. Apart from pytest, because the kernels must be made without ``TRITON_INTERPRET``:

    python tests/support/absent_gpu.py '[[90, {"samples": 1, "num_sources": 2}]]'
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

PROJECT = Path(__file__).parents[2]
MAX_SHARED_BYTES = 48 * 1024
MAX_THREADS = 1024


class AbsentGpu:
    """The driver of a GPU of that compute capability, as far as Triton's launcher asks for it; its number stands for the device."""

    def __init__(self, arch: int) -> None:
        self._arch = arch
        self.launcher_cls = lambda *_: self._launch
        self.utils = SimpleNamespace(load_binary=self._load, get_device_properties=lambda _: {"max_shared_mem": MAX_SHARED_BYTES})

    def get_current_device(self) -> int:
        return self._arch

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def _load(self, _name: str, binary: bytes, _shared: int, _device: int) -> tuple[int, int, int, int, int]:
        """Module, function, registers, words of local memory, threads at most: as CUDA's driver answers."""
        used = _tool("cuobjdump", binary, "--dump-resource-usage")
        registers, stack = (int(re.search(rf"\b{name}:(\d+)", used)[1]) for name in ("REG", "STACK"))
        return 1, 1, registers, stack // 4, MAX_THREADS

    def _launch(self, *_: Any) -> None:
        pass


def _tool(name: str, binary: bytes, *options: str) -> str:
    """What one of Triton's tools says of machine code."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        path = getattr(triton.knobs.nvidia, name).path
        return subprocess.run([path, *options, file.name], capture_output=True, text=True, check=True).stdout


def call_operators(
    *,
    samples: int,
    num_sources: int,
    size_px: tuple[int, int] = (192, 640),
    num_scales: int = 4,
    ssim: bool = True,
    average: bool = False,
    automask: bool = True,
) -> None:
    """All operators, forward and backward, and the forward ones once more without gradients."""
    from engine.loss import photometric_triton

    target = torch.zeros(samples, 3, *size_px, dtype=torch.uint8)
    sources = torch.zeros(samples, num_sources, 3, *size_px, dtype=torch.uint8)
    images = [target[..., :: 1 << s, :: 1 << s] for s in range(num_scales)]
    disps = [torch.zeros(samples, 1, size_px[0] >> s, size_px[1] >> s, requires_grad=True) for s in range(num_scales)]
    motions = torch.zeros(num_scales, samples, num_sources, 3, 4, requires_grad=True)
    packed, seeds = [photometric_triton.pack(each) for each in (target, sources)], torch.zeros(samples, dtype=torch.int64)
    identity = photometric_triton.identity_loss(*packed, seeds, noise=1e-5, ssim=ssim, average=average) if automask else None

    def losses() -> torch.Tensor:
        options = {"min_depth": 0.1, "max_depth": 100.0, "ssim": ssim, "average": average}
        return photometric_triton.photometric(disps, motions, *packed, identity, **options)

    (losses() + photometric_triton.smoothness(disps, images, weight=1e-3)).sum().backward()
    with torch.no_grad():
        losses()


def spilled_words(kernel: Any) -> int:
    """Registers kept in local memory: what is taken of it besides the arrays that the code declares (the cosine's, in the noise)."""
    declared = sum(int(size) for size in re.findall(r"\.local\s+\.align\s+\d+\s+\.b8\s+\w+\[(\d+)\]", kernel.asm["ptx"]))
    return kernel.n_spills - 2 * -(-declared // 8)


def main() -> None:
    """As many lists as there are cases in the first argument: (name, registers, spilled words) of each kernel compiled for it."""
    sys.path.insert(0, str(PROJECT))
    from engine.loss.photometric_triton import photometric_kernels, smoothness_kernels

    kernels = [
        value for module in (photometric_kernels, smoothness_kernels) for name, value in vars(module).items() if name.endswith("_kernel")
    ]
    assert all(isinstance(kernel, triton.JITFunction) for kernel in kernels), "they were made for the interpreter"
    seen: set[int] = set()
    found = []
    for arch, case in json.loads(sys.argv[1]):
        driver.set_active(AbsentGpu(arch))
        call_operators(**case)
        made = [compiled for kernel in kernels for compiled in kernel.device_caches[arch][0].values() if id(compiled) not in seen]
        seen.update(id(compiled) for compiled in made)
        found.append([(compiled.name, compiled.n_regs, spilled_words(compiled)) for compiled in made])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
