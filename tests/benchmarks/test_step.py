"""The step's benchmark: every row gives the plain one's loss, before it is timed and after; one that cannot be timed is named."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from click import ClickException
from click.testing import CliRunner
from places import PROJECT
from published import networks_of

from benchmarks import bench_step, harness, step_rows
from benchmarks.bench_step import HEADINGS, figures_of, main, make_row, measure
from benchmarks.harness import Timing, fp32_convolutions, has_floor
from benchmarks.profiles import top_kernels
from benchmarks.step_inputs import as_leaves, random_batch, tensors
from benchmarks.step_rows import LOSS_ALONE, TF32_AGREEMENT, Row, Way, whole_steps
from engine.loss.objective import Predictions
from engine.training.step import TrainStep

CPU = torch.device("cpu")
SIZE_PX = (64, 96)
SMALL = ["--height", "64", "--width", "96", "--batch_size", "2"]


def test_whole_steps_and_losses_alone_are_timed_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    done = CliRunner().invoke(
        main, ["--height", "64", "--width", "96", "--batch_size", "2", "--rounds", "2", "--save"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "bench_step.json").read_text())
    assert result["setting"]["size_px"] == [64, 96]
    assert result["circumstances"]["versions"]["torch"]
    steps = [name for name in result["rows"] if not name.startswith(LOSS_ALONE)]
    assert steps[:2] == ["plain fp32", "ours fp32"]
    assert steps[2].startswith("ours as md-train runs it, ")
    assert [name for name in result["rows"] if name not in steps] == ["loss alone, plain", "loss alone, ours as md-train runs it"]
    for name, values in result["rows"].items():
        assert values["n"] == 2
        assert values["samples_per_s"] == pytest.approx(2e3 / values["ms"])
        assert name in done.output


def test_ours_uncompiled_is_not_timed_as_compiled(monkeypatch):
    def compile_in_vain(step, **_):
        def fail(_):
            raise RuntimeError("no compiler here")

        step._compiled_call_impl = fail

    monkeypatch.setattr(TrainStep, "compile", compile_in_vain)
    monkeypatch.setattr(step_rows, "default_config", partial(step_rows.default_config, compile=True))
    *_, ours = whole_steps(networks_of(), random_batch(2, SIZE_PX), SIZE_PX, 18, compiled=False).values()
    assert "the step is not compiled, not compiled" in make_row(ours, CPU)


def test_rows_that_fail_or_disagree_are_named_and_the_others_timed():
    def broken():
        raise RuntimeError("no compiler here\nand much more")

    calls = iter(range(100))
    ways = {
        "plain": Way(lambda: lambda: torch.tensor(2.0)),
        "close": Way(lambda: lambda: torch.tensor(2.0001)),
        "off": Way(lambda: lambda: torch.tensor(2.01)),
        "nan": Way(lambda: lambda: torch.tensor(float("nan"))),
        "drifting": Way(lambda: lambda: torch.tensor(2.0 + next(calls))),
        "broken": Way(broken),
    }
    faults: dict[str, str] = {}
    rows, timings = measure(ways, CPU, rounds=3, faults=faults)
    assert list(rows) == ["plain", "close"]
    assert timings["plain"].n == 3
    assert faults["off"] == "its loss is 2.0100000, the plain fp32 one 2.0000000"
    assert "nan" in faults["nan"]
    assert faults["drifting"].endswith("after 3 rounds")
    assert faults["broken"] == "no compiler here"


def test_a_fault_ends_the_command_with_its_line_after_the_tables(monkeypatch):
    monkeypatch.setattr(
        bench_step, "whole_steps", lambda *_, **__: {"plain": Way(lambda: lambda: torch.ones(())), "other": Way(lambda: 1 / 0)}
    )
    monkeypatch.setattr(bench_step, "losses", lambda *_, **__: {"loss alone, plain": Way(lambda: lambda: torch.ones(()))})
    done = CliRunner().invoke(main, [*SMALL, "--rounds", "1"])
    assert done.exit_code == 1
    assert "loss alone, plain" in done.output
    assert "other: division by zero" in done.output


def test_figures_of_ten_steps_a_run():
    row = Row(Way(lambda: lambda: torch.ones(())), CPU)
    row.steps, row.peak_gib = 10, 1.5
    values = figures_of(row, Timing(3, 0.05, 0.04, 0.06), Timing(3, 0.2, 0.2, 0.2), 12, 3.5)
    assert values["ms"] == pytest.approx(5.0)
    assert values["samples_per_s"] == pytest.approx(2400)
    assert values["floor_share"] == pytest.approx(0.7)
    assert values["times_plain"] == pytest.approx(4)
    assert values["n"] == 30
    assert set(HEADINGS) == set(values) - {"n"}


def test_the_floor_holds_for_one_setting_on_one_gpu(monkeypatch):
    monkeypatch.setattr(harness, "gpu_model", lambda: "NVIDIA H200")
    assert has_floor((192, 640), 12, 18)
    assert not has_floor((192, 640), 12, 50)
    assert not has_floor((320, 1024), 12, 18)
    monkeypatch.setattr(harness, "gpu_model", lambda: None)
    assert not has_floor((192, 640), 12, 18)


def test_tf32_is_named_where_the_gpu_has_it_and_torch_uses_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert fp32_convolutions(torch.device("cuda")) == "TF32"
    assert fp32_convolutions(CPU) == "fp32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert fp32_convolutions(torch.device("cuda")) == "fp32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert fp32_convolutions(torch.device("cuda")) == "fp32"


def test_a_row_in_another_arithmetic_than_the_plain_one_is_not_timed(monkeypatch):
    # As on a GPU, of which a CPU has the switch.
    monkeypatch.setattr(step_rows, "fp32_convolutions", lambda _: "TF32" if torch.backends.cudnn.allow_tf32 else "fp32")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    def build_exact():
        torch.backends.cudnn.allow_tf32 = False
        return lambda: torch.tensor(2.0)

    faults: dict[str, str] = {}
    ways = {"plain": Way(lambda: lambda: torch.tensor(2.0)), "same": Way(lambda: lambda: torch.tensor(2.0)), "exact": Way(build_exact)}
    rows, _ = measure(ways, CPU, rounds=1, faults=faults)
    assert list(rows) == ["plain", "same"]
    assert faults == {"exact": "it has set fp32 convolutions to fp32, the plain ones are in TF32"}
    assert whole_steps(networks_of(), random_batch(2, SIZE_PX), SIZE_PX, 18, compiled=False)["ours fp32"].agreement == 1e-4
    torch.backends.cudnn.allow_tf32 = True
    assert whole_steps(networks_of(), random_batch(2, SIZE_PX), SIZE_PX, 18, compiled=False)["ours fp32"].agreement == TF32_AGREEMENT


def test_without_the_plain_row_nothing_is_compared():
    with pytest.raises(ClickException, match="plain: division by zero"):
        measure({"plain": Way(lambda: lambda: 1 / 0), "other": Way(lambda: lambda: torch.ones(()))}, CPU, rounds=1, faults={})


def test_the_kernels_of_a_row_are_listed_per_step():
    factor = torch.rand(300, 300)
    kernels = top_kernels(lambda: [factor @ factor for _ in range(4)] + [factor + 1], runs=4, device=CPU)
    assert kernels[0].name == "aten::mm"
    assert kernels[0].launches == 1
    assert sum(kernel.share for kernel in kernels) <= 1 + 1e-9
    assert kernels[0].ms >= kernels[1].ms


def test_ready_predictions_are_leaves_of_their_own():
    disp, angle, shift = (torch.rand(2, 3, requires_grad=True) * 2 for _ in range(3))
    taken = as_leaves(Predictions({0: disp}, {}, [(angle, shift)]))
    assert all(tensor.is_leaf and tensor.requires_grad for tensor in tensors(taken))
    assert [tensor.tolist() for tensor in tensors(taken)] == [tensor.tolist() for tensor in (disp, angle, shift)]


LOSSES_ALONE = """
import sys
sys.path[:0] = ["tests/support"]
import torch
from published import networks_of
from benchmarks.bench_step import measure
from benchmarks.step_inputs import random_batch, to_device
from benchmarks.step_rows import losses

device = torch.device(sys.argv[1])
batch = to_device(random_batch(2, (64, 96)), device)
ways = losses(networks_of().to(device), batch, (64, 96), compiled=False)
faults = {}
rows, _ = measure(ways, device, rounds=2, faults=faults)
assert not faults, faults
assert list(rows) == list(ways) == ["loss alone, plain", "loss alone, ours as md-train runs it"]
assert device.type == "cpu" or all(row.peak_gib > 0 for row in rows.values())
print("agreed")
"""


@pytest.mark.parametrize(
    "device",
    [
        "cpu",  # compiled as in a rehearsal
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]),
    ],
)
def test_our_loss_compiled_as_one_graph_is_the_plain_one(device):
    # Apart from the shape checks of this process, which a single graph cannot hold.
    environ = os.environ | ({harness.REHEARSAL_VARIABLE: "1"} if device == "cpu" else {})
    done = subprocess.run([sys.executable, "-c", LOSSES_ALONE, device], cwd=PROJECT, env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == "agreed", done.stderr[-4000:]
