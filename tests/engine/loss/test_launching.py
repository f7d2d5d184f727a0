"""Whether Triton's kernels run is found out by launching one; where they do not, nothing is compiled and torch computes the losses.

Triton's compiler and the building of its launcher are real here, and so are their failures; the driver below them says yes to all.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_driver import TORCH_SEES, with_driver
from places import PROJECT

ASK = """
import logging, sys
logging.getLogger("md").addHandler(logging.StreamHandler(sys.stdout))
from engine.loss.launching import runs_triton

gpu = torch.device("cuda")
if os.environ.get("TRACED"):
    traced = torch.compile(lambda x: x + 1 if runs_triton(gpu) else x - 1, backend="eager", fullgraph=True)
    print("traced", traced(torch.zeros(1)).item())
print("runs", runs_triton(gpu), runs_triton(torch.device("cuda", 0)))
print("others", runs_triton(torch.device("cpu")), runs_triton(torch.device("meta")))
"""
HIDE_HEADERS = """
import sysconfig
paths = sysconfig.get_paths
sysconfig.get_paths = lambda *given, **options: paths(*given, **options) | {"include": "/nonexistent"}
"""


def run(tmp_path: Path, program: str, **environment: str) -> tuple[list[str], str]:
    """The lines of a program's output and its errors, in a process whose torch sees a GPU."""
    given = (
        os.environ
        | with_driver(tmp_path / "driver", 13000)
        | {"TRITON_CACHE_DIR": str(tmp_path / "kept"), "PYTHONWARNINGS": "ignore"}
        | environment
    )
    given.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = ['tests/support']\n{TORCH_SEES}\n{program}"]
    done = subprocess.run(command, env=given, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def gcc_without_headers(folder: Path) -> str:
    """A compiler that is there and says what a real one says of a header that is not."""
    path = folder / "gcc"
    leave_out = 'for word; do case "$word" in -I*/include/python*) ;; *) set -- "$@" "$word";; esac; shift; done'
    path.write_text(f'#!/bin/sh\n{leave_out}\nexec {shutil.which("gcc")} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_a_machine_with_a_compiler_runs_triton_and_says_nothing(tmp_path: Path) -> None:
    said, errors = run(tmp_path, ASK, TRACED="1")
    assert said == ["traced 1.0", "runs True True", "others True True"]
    assert errors == ""


@pytest.mark.parametrize(
    ("hidden", "environment", "reason", "remedy"),
    [
        (
            "",
            {"CC": "/nonexistent/cc", "TRACED": "1"},
            "the C compiler that CC names (/nonexistent/cc) is missing",
            "install gcc, or set CC",
        ),
        ("", {"CC": ""}, "the C compiler that CC names (nothing) is missing", "install gcc, or set CC"),
        ("", {"CC": "false"}, "on this GPU: false ends with exit status 1; ", "gcc, or the one that CC names"),
        ("", {"PATH": "/nonexistent"}, "a C compiler is missing", "install gcc, or set CC"),
        (HIDE_HEADERS, {}, "Python.h in /nonexistent is missing", "install Python's headers"),
        ("sys.modules['triton'] = None", {}, "import of triton halted", "pip install triton"),
        (
            "",
            {"FAKE_CAPABILITY": "7.0"},
            "its compute capability is 7.0, and 7.5 is needed",
            "a GPU of Turing (2018) or later",
        ),
    ],
)
def test_where_it_does_not_run_one_line_says_why(
    tmp_path: Path, hidden: str, environment: dict[str, str], reason: str, remedy: str
) -> None:
    said, errors = run(tmp_path, hidden + "\n" + ASK, **environment)
    (warning,) = [line for line in said if line.startswith("Triton's kernels do not run on this GPU: ")]
    assert reason in warning
    assert remedy in warning
    traced = ["traced -1.0"] if "TRACED" in environment else []
    assert said == [warning, *traced, "runs False False", "others True True"]
    assert "error" not in errors, "what a compiler says is in that line, or nowhere"


def test_another_failure_is_told_in_the_compilers_words(tmp_path: Path) -> None:
    said, errors = run(tmp_path, ASK, CC=gcc_without_headers(tmp_path))
    assert "fatal error: Python.h: No such file or directory" in said[0]
    assert said[-2] == "runs False False"
    assert "error" not in errors


STEP = """
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from engines import on
from steps import make_batch
from engine.loss.objective import Predictions
from engine.training.build import build_engine
from engine.training.compiling import is_compiled
from engine.training.config import TrainConfig

class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.namespaces = set()
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.namespaces.add(operator.namespace)
        return operator(*args, **(kwargs or {}))

gpu = torch.device("cuda", 0)
torch.nn.Module.to = lambda self, *args, **kwargs: self  # no memory is there for networks; their step is only built
for compile in (None, True, False):
    config = TrainConfig.from_options(dataset="demo", height=64, width=96, weights_init="scratch", amp="bf16", compile=compile)
    engine = build_engine(config, gpu, metric_factor=1.0)
    print("compiled" if is_compiled(engine.step) else "not compiled")
with FakeTensorMode():
    batch = on(gpu, make_batch())
    disps = {scale: torch.rand(2, 1, 64 >> scale, 96 >> scale, device=gpu, requires_grad=True) for scale in range(4)}
    motions = [(torch.rand(2, 1, 3, device=gpu)[:, 0], torch.rand(2, 1, 3, device=gpu)[:, 0]) for _ in range(2)]
    with Operators() as seen:
        engine.step.objective(Predictions(disps, {}, motions), batch, torch.zeros((), dtype=torch.int64, device=gpu))
print(*sorted(seen.namespaces - {"aten", "prim", "prims"}))
"""


@pytest.mark.parametrize(
    ("compiler", "built"), [("gcc", ["compiled", "compiled", "not compiled"]), ("/nonexistent/cc", ["not compiled"] * 3)]
)
def test_a_step_is_built_on_triton_only_where_it_runs(tmp_path: Path, compiler: str, built: list[str]) -> None:
    said, _ = run(tmp_path, STEP, CC=compiler)
    assert said[:3] == built
    assert bool(said[3]) == ("compiled" in built), "operators of Triton's kernels"
