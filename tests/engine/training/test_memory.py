"""Out of memory in training: one line with what is free and the remedies that are left, and nothing is lost."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import CPU, compiled_updater, make_engine
from places import PROJECT
from steps import make_batch

from engine.training.compiling import first_call, is_compiled
from engine.training.config import TrainConfig
from engine.training.memory import is_out_of_memory, named_out_of_memory
from engine.training.update import CAPTURE_TRIES, Updater
from splits.errors import InputError

GPU = torch.device("cuda")
CUDA_SAYS = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.89 GiB of which 1.2 GiB is free."


def config(**options: object) -> TrainConfig:
    return TrainConfig.from_options(dataset="demo", use_stereo=True, weights_init="scratch", **options)


# From the third update on, the process gets hardly more memory than it has, and its batches are no longer worked on in parts: the
# allocator's own error ends it.
LIMITED = """
import re, resource, sys
from pathlib import Path
import torchvision, torch.utils.tensorboard
from engine.commands.md_train import md_train
from engine.training.update import Updater

update = Updater.__call__

def limited(self, batch):
    if self._calls == 2:
        taken = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**26, taken + 2**26))
        self.parts = 1
    return update(self, batch)

Updater.__call__ = limited
md_train()
"""
FREE = "from engine.commands.md_train import md_train; md_train()"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_run_ends_in_one_line_and_resumes(kitti_tree: Callable[..., Path], tmp_path: Path) -> None:
    tree = kitti_tree(frames=8)
    options = f"--data_path {tree} --split {tree}/split --height 128 --width 416 --batch_size 4 --grad_accumulation 4 --save_minutes 0"
    options += f" --weights_init scratch --no_cuda --num_workers 0 --max_steps 4 --frame_store none --log_dir {tmp_path} --model_name run"

    def train(program: str, *more: str) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", program, *options.split(), *more]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300, env=os.environ)
        return done.returncode, done.stderr.splitlines()

    status, said = train(LIMITED)
    assert status == 1
    assert not any("Traceback" in line for line in said), said[-40:]
    # Which allocation fails first is the machine's to choose: torch's says how much it wanted, numpy's or the C++ library's does not.
    assert re.match(r"Error: out of memory( \(it tried to allocate \S+ \wB\))?: \S+ GB are free, but ", said[-1]), said[-20:]
    assert said[-1].endswith(
        " in all (ulimit -v); the last checkpoint is whole: --resume with --checkpoint_activations, "
        "or a new run from its weights (--load_weights_folder) with a smaller --batch_size"
    )
    assert (tmp_path / "run" / "models" / "step_2" / "state.pt").is_file()
    status, said = train(FREE, "--resume", "--checkpoint_activations")
    assert status == 0, said[-20:]
    assert any(line.endswith("epoch 0, step 2") for line in said if line.startswith("Resuming from"))


def allocate() -> torch.Tensor:
    return torch.empty(10**15)


def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (allocate, True),
        (lambda: failing(torch.OutOfMemoryError(CUDA_SAYS)), True),
        (lambda: failing(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")), True),
        (lambda: failing(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), True),
        (lambda: failing(RuntimeError("CUDA error: out of memory")), True),
        (lambda: failing(MemoryError("Unable to allocate 71.1 PiB")), True),
        (lambda: failing(RuntimeError("out of resource: shared memory, Required: 300000, Hardware limit: 232448")), False),
        (lambda: failing(RuntimeError("Given groups=1, weight of size [4, 3, 3, 3]")), False),
        (lambda: failing(OSError(28, "No space left on device")), False),
    ],
)
def test_which_errors_are_a_lack_of_memory(call: Callable[[], None], expected: bool) -> None:
    with pytest.raises((RuntimeError, OSError, MemoryError)) as raised:
        call()
    assert is_out_of_memory(raised.value) is expected
    wrapped = RuntimeError("backend='inductor' raised:")
    wrapped.__cause__ = raised.value
    assert is_out_of_memory(wrapped) is expected


@pytest.mark.parametrize(
    ("options", "frames_bytes", "remedies"),
    [
        ({}, 5 * 10**9, "--frame_store disk, --checkpoint_activations, --grad_accumulation 2 or a smaller --batch_size"),
        ({}, 0, "--checkpoint_activations, --grad_accumulation 2 or a smaller --batch_size"),
        ({"grad_accumulation": 4, "checkpoint_activations": True}, 0, "--grad_accumulation 6 or a smaller --batch_size"),
        ({"grad_accumulation": 12}, 5 * 10**9, "--frame_store disk, --checkpoint_activations or a smaller --batch_size"),
        ({"batch_size": 1, "checkpoint_activations": True}, 0, "a smaller --height and --width"),
    ],
)
def test_the_line_names_what_is_free_and_the_remedies_that_are_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, object], frames_bytes: int, remedies: str
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (120 * 10**6, 17 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 16 * 10**9)
    with pytest.raises(InputError) as raised, named_out_of_memory(config(log_dir=tmp_path, **options), GPU, frames_bytes):
        raise torch.OutOfMemoryError(CUDA_SAYS)
    held = ", 5.0 GB of that for the frame store" if frames_bytes else ""
    state = f"out of GPU memory (it tried to allocate 2.7 GB): 120.0 MB of 17.0 GB are free, 16.0 GB are taken by this run{held}"
    assert str(raised.value) == f"{state}; repeat the command with {remedies}"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_on_a_cpu_sizes_have_one_unit_and_a_limit_is_named(tmp_path: Path) -> None:
    def told() -> str:
        with pytest.raises(InputError) as raised, named_out_of_memory(config(log_dir=tmp_path), CPU):
            allocate()
        return str(raised.value)

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, before[1]))
    try:
        unlimited = told()
        resource.setrlimit(resource.RLIMIT_AS, (9 * 10**14, before[1]))
        limited = told()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert unlimited.startswith("out of memory (it tried to allocate 4000000.0 GB): ")
    assert " are free; repeat the command with " in unlimited
    assert " are free, but this process may take no more than 900000.0 GB in all (ulimit -v); repeat the command with " in limited


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (ValueError("out of memory"), InputError("frame_store=gpu: no room for the frames (CUDA out of memory)")):
        with pytest.raises(type(error)) as raised, named_out_of_memory(config(log_dir=tmp_path), CPU):
            raise error
        assert raised.value is error


def test_a_lack_of_memory_is_no_reason_to_try_uncompiled(caplog: pytest.LogCaptureFixture) -> None:
    step, calls = compiled_updater().engine.step, []
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        first_call(step, lambda: calls.append(1) or allocate(), CPU)
    assert calls == [1]
    assert is_compiled(step)
    assert "cannot be compiled" not in caplog.text


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(CUDA_SAYS), RuntimeError("operation not permitted when stream is capturing")])
def test_a_lack_of_memory_is_no_reason_to_train_uncaptured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: RuntimeError
) -> None:
    @contextmanager
    def graph(*_args: Any, **_options: Any) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904  (as CUDA's own end does)

    # What captures is a GPU's: here it is only entered and left.
    nothing = SimpleNamespace(graphsafe_set_state=lambda state: None, clone_state=lambda: None)
    for name, stand_in in (
        ("CUDAGraph", lambda: nothing), ("graph_pool_handle", lambda: None), ("current_stream", lambda device: None),
        ("graph", graph), ("set_stream", lambda stream: None), ("current_device", lambda: 0),
        ("default_generators", (nothing,)),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: None, raising=False)
    updater = Updater(make_engine())
    updater.capture = True
    monkeypatch.setattr(updater, "_update", lambda batch: failing(error))
    if is_out_of_memory(error):
        with pytest.raises(RuntimeError, match="previous error"):
            updater._capture_update(make_batch())
        assert "cannot be captured" not in caplog.text
        return
    # What broke it may be gone at the next call.
    for _ in range(CAPTURE_TRIES - 1):
        assert updater._capture_update(make_batch()) is False
        assert updater.capture
    assert "cannot be captured" not in caplog.text
    assert updater._capture_update(make_batch()) is False
    assert not updater.capture
    assert f"cannot be captured in a CUDA graph ({error})" in caplog.text
