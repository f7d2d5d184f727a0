"""The kernels of the fused losses through Triton's launcher and compiler for NVIDIA GPUs, none of which need be there."""

import itertools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from places import PROJECT

pytest.importorskip("triton")
import absent_gpu

# Ampere, Hopper and Blackwell's consumer cards.
ARCHS = (80, 90, 120)
# What three sources, which one launch takes together, may spill: up to a tenth of a lane's registers.
WORDS_AT_THREE_SOURCES = 25
COMBINATIONS = [dict(zip(("ssim", "average", "automask"), each, strict=True)) for each in itertools.product((True, False), repeat=3)]


def compiled(cases: list[tuple[int, dict[str, Any]]]) -> list[list[tuple[str, int, int]]]:
    """Per case (architecture, arguments of ``call_operators``) the kernels new to it, each with its registers and spilled words."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, absent_gpu.__file__, json.dumps(cases)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[list[tuple[str, int, int]]] = json.loads(done.stdout)
    return found


def spilling(found: list[list[tuple[str, int, int]]], *, above: int = 0) -> list[tuple[str, int, int]]:
    return [kernel for case in found for kernel in case if kernel[2] > above]


@pytest.mark.parametrize("arch", ARCHS)
def test_two_sources_stay_in_registers_and_any_batch_size_takes_the_same_kernels(arch: int) -> None:
    first, *others = compiled([(arch, {"samples": samples, "num_sources": 2}) for samples in (12, 1, 2, 16)])
    assert sorted({name for name, *_ in first}) == [
        "gather_kernel", "photometric_kernel", "smoothness_gradient_kernel", "smoothness_losses_kernel", "smoothness_sums_kernel"
    ]  # fmt: skip
    assert [len(case) for case in others] == [0, 0, 0]
    assert spilling([first]) == []


def test_many_sources_and_the_smallest_batch_stay_in_registers() -> None:
    cases = [{"samples": 1, "num_sources": 5}, {"samples": 1, "num_sources": 1, "size_px": (24, 80), "num_scales": 1}]
    assert spilling(compiled([(90, case) for case in cases])) == []


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_all_switches_at_two_sources(arch: int) -> None:
    cases = [(arch, {"samples": 1, "num_sources": 2, **switches}) for switches in COMBINATIONS]
    assert spilling(compiled(cases)) == []


@pytest.mark.slow
@pytest.mark.parametrize("num_sources", [1, 3, 4, 5, 6])
def test_all_switches_at_any_number_of_sources_and_scales(num_sources: int) -> None:
    cases = []
    # Each combination for one architecture, at another number of scales and with another batch size.
    for i, switches in enumerate(COMBINATIONS):
        shape = {"samples": (1, 2, 16)[i % 3], "num_sources": num_sources, "num_scales": i % 4 + 1}
        cases.append((ARCHS[(i + num_sources) % 3], {**shape, **switches}))
    assert spilling(compiled(cases), above=WORDS_AT_THREE_SOURCES if num_sources == 3 else 0) == []
