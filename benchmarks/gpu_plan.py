"""What ``gpu_proof`` runs: its parts in the order of their worth, and the seconds that each may take."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.gpu_targets import INFERENCE, LOADER, STEP, TRAIN
from benchmarks.row_process import PROJECT

BUDGET_S = 540
# For this process's own start, and the page.
OWN_S = 15
# A part may take so many times what was planned for it, before it is ended.
OVERRUN = 1.5
# Whole files of tests come in this order, and all others that have tests for a GPU after them.
FIRST_TESTS = ("tests/engine/training/test_update.py", "tests/engine/loss/test_photometric_triton.py", "tests/dataload/test_loader.py")
# The other parts run all that these try.
NOT_TESTED = "tests/benchmarks"
SMALL = ("--height=64", "--width=96", "--batch_size=2")


class Part(NamedTuple):
    """A part.

    Attributes:
        estimate_s: what it takes on an H200 with 16 cores; ``why`` adds it up.
        needs: modules without which it cannot run.
        command: what Python runs.
        small: options, which override those of the command, in a rehearsal.
        result: the name of the result that it writes; None of the tests.
    """

    name: str
    estimate_s: int
    why: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    small: tuple[str, ...]
    result: str | None


PLAN = (
    Part(
        "tests",
        100,
        "15 s of imports and CUDA, 25 s of updates, 50 s for Triton to compile the kernels of every case and for the losses beside them, "
        "10 s of loading",
        ("pytest", "hypothesis"),
        ("-m", "pytest", "-m", "gpu", "-q", "--continue-on-collection-errors"),
        (),
        None,
    ),
    Part(
        "step",
        200,
        "15 s of start; compiling takes 20 s for the plain loss, 10 s for ours, 80 s for the plain step, 50 s for ours; "
        "15 s of cuDNN's search, 10 s of timing",
        ("torchvision",),
        ("-m", "benchmarks.bench_step", "--gpu", "--rounds=20", "--save"),
        (*SMALL, "--rounds=1"),
        STEP,
    ),
    Part(
        "loader",
        58,
        "10 s of frames and start, three rounds of 10 s of the plain loader and 6 s of ours; with DALI no round begins after 25 s",
        ("torchvision", "psutil"),
        ("-m", "benchmarks.bench_loader", "--gpu", "--rounds=2", "--seconds=25", "--save"),
        (*SMALL, "--rounds=1", "--seconds=1"),
        LOADER,
    ),
    Part(
        "train",
        78,
        "two trainings, each 30 s of start and of what the step's part has compiled, 1600 steps in 9 s",
        ("tensorboard",),
        ("-m", "benchmarks.bench_train", "--gpu", "--steps=1600", "--save"),
        (*SMALL, "--steps=4"),
        TRAIN,
    ),
    Part(
        "inference",
        88,
        "for each of two batch sizes 8 s of start for each of three ways, 15 s of compiling, 5 s of timing",
        ("onnxruntime",),
        ("-m", "benchmarks.bench_inference", "--gpu", "--sizes=640x192", "--rounds=15", "--save"),
        ("--sizes=96x64", "--batch_sizes=2", "--rounds=1"),
        INFERENCE,
    ),
)


def planned_s() -> int:
    """Seconds of the whole plan on an H200."""
    return OWN_S + sum(part.estimate_s for part in PLAN)


def time_for(part: Part, left_s: float, later_s: float) -> float:
    """Seconds that the part may take: what the later ones leave of what is left, and in any case half as much again as was planned."""
    return min(left_s, max(OVERRUN * part.estimate_s, left_s - later_s))


def gpu_tests() -> list[str]:
    """The files that hold tests for a GPU, those of the most worth first."""
    files = (
        path.relative_to(PROJECT).as_posix() for path in sorted((PROJECT / "tests").rglob("test_*.py")) if b"mark.gpu" in path.read_bytes()
    )
    others = [name for name in files if name not in FIRST_TESTS and not name.startswith(NOT_TESTED)]
    return [*FIRST_TESTS, *others]
