"""The gate: a training step on a GPU has no more operators and moves no more bytes than it did; and what the counts mean."""

import json
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from published import networks_of, step_of
from torch import nn

from benchmarks.bench_traffic import ADAM, SECTIONS, TOGETHER, count, to_rows
from benchmarks.harness import RESULTS
from benchmarks.step_inputs import random_batch
from benchmarks.traffic import Tally, Traffic, fused_adam
from engine.training.without_data import CudaAutocast, on_meta

COMMITTED = RESULTS / "bench_traffic.json"
# The limits for 12 samples of 640x192 by ResNet-18.
MOST_OPERATORS, MOST_GB = 900, 15.0
# Another torch may take an operator apart otherwise.
OTHER_TORCH = 1.02


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, float]]:
    return to_rows(count(12, (192, 640), 18))


def grown(before: dict[str, dict[str, float]], now: dict[str, dict[str, float]], slack: float) -> list[str]:
    """What has more operators or GB on the GPU path than before, in words."""
    units = {"fused_operators": "{:.0f} operators", "fused_gb": "{:.3f} GB"}
    return [
        f"{section}: {form.format(before[section][key])} -> {form.format(now[section][key])}"
        for section in (*SECTIONS, TOGETHER)
        for key, form in units.items()
        if now[section][key] > slack * before[section][key]
    ]


def test_the_gpu_path_moves_no_more_than_committed(rows):
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    torch_then = committed["circumstances"]["versions"]["torch"]
    more = grown(committed["rows"], rows, 1.0 if torch_then == torch.__version__.split("+")[0] else OTHER_TORCH)
    # A section may hand work to another; what counts is the whole.
    assert not [words for words in more if words.startswith(TOGETHER)], (
        f"the training step on a GPU has grown since benchmarks/results/bench_traffic.json (torch {torch_then}, here {torch.__version__}): "
        + "; ".join(more)
        + ". Where it has to, run: python -m benchmarks.bench_traffic --save"
    )


def test_the_gpu_path_keeps_its_limits(rows):
    assert rows[TOGETHER]["fused_operators"] <= MOST_OPERATORS
    assert rows[TOGETHER]["fused_gb"] <= MOST_GB


def test_what_has_grown_is_named():
    before = {section: {"fused_operators": 10.0, "fused_gb": 1.0} for section in (*SECTIONS, TOGETHER)}
    now = before | {"loss": {"fused_operators": 12.0, "fused_gb": 1.0}, TOGETHER: {"fused_operators": 10.1, "fused_gb": 1.5}}
    assert grown(before, now, 1.02) == ["loss: 10 operators -> 12 operators", "together: 1.000 GB -> 1.500 GB"]
    assert grown(before, before, 1.0) == []


def test_the_plain_step_counts_as_published_for_the_reference(rows):
    # Forward passes of the same networks in fp32: 140 and 200 operators, 5.91 and 5.40 GB; the whole step 82.65 GB.
    assert rows["depth network"]["plain_operators"] == pytest.approx(140, abs=2)
    assert rows["pose network"]["plain_operators"] == pytest.approx(200, abs=2)
    assert rows["depth network"]["plain_gb"] == pytest.approx(5.91, rel=0.05)
    assert rows["pose network"]["plain_gb"] == pytest.approx(5.40, rel=0.01)
    assert rows[TOGETHER]["plain_gb"] == pytest.approx(82.65, rel=0.05)
    assert rows[ADAM]["plain_gb"] == pytest.approx(0.75, rel=0.01)


def test_counting_twice_gives_the_same_and_a_larger_batch_more():
    once, again, larger = (count(batch_size, (64, 96), 18) for batch_size in (1, 1, 2))
    assert once == again
    for way, sections in once.items():
        assert list(sections) == list(SECTIONS)
        assert all(larger[way][name].operators == tally.operators for name, tally in sections.items())
        assert all(larger[way][name].bytes > tally.bytes for name, tally in sections.items() if name != ADAM)


def counted(run: Any) -> Tally:
    with Traffic() as traffic:
        run()
    return traffic.tallies[""]


def test_views_and_allocations_are_free_and_changes_in_place_read_and_write():
    x, y = torch.ones(4, 8), torch.ones(4, 8)
    assert counted(lambda: (x[1:].transpose(0, 1).detach(), torch.empty(9))) == Tally(0, 0)
    assert counted(lambda: x + y) == Tally(1, 3 * 128)
    assert counted(lambda: x.add_(y)) == Tally(1, 3 * 128)
    assert counted(lambda: x.mul_(2)) == Tally(1, 2 * 128)
    assert counted(lambda: x.copy_(y)) == Tally(1, 2 * 128)
    assert counted(lambda: x.fill_(2)) == Tally(1, 128)


def test_batchnorm_goes_through_its_input_twice_each_way():
    norm, x = nn.BatchNorm2d(1, affine=False, track_running_stats=False), torch.rand(2, 1, 64, 64, requires_grad=True)
    image, statistics = x.numel() * 4, 2 * 4
    forward = counted(lambda: norm(x))
    assert forward == Tally(1, 3 * image + statistics)
    y = norm(x)
    backward = counted(lambda: torch.autograd.grad(y, x, torch.ones_like(x)))
    assert backward.bytes - 2 * image == pytest.approx(5 * image, abs=64)  # ones_like makes and fills an image


def test_adam_moves_what_has_a_gradient():
    used, unused = (nn.Parameter(torch.ones(10)) for _ in range(2))
    used.grad = torch.ones(10)
    assert fused_adam([used, unused]) == Tally(1, 7 * 40)


@torch.library.custom_op("md_test::undeclared", mutates_args=())
def undeclared(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


def test_a_kernel_of_ours_has_to_declare_what_it_moves():
    with pytest.raises(KeyError, match="md_test::undeclared"):
        counted(lambda: undeclared(torch.ones(3)))


def test_bf16_is_modelled_as_autocast_casts(monkeypatch):
    batch = random_batch(1, (64, 96))
    pad = F.pad

    def pad_as_on_a_gpu(*args: Any, **kwargs: Any) -> torch.Tensor:
        # A CPU's autocast reflects borders in fp32, CUDA's in what it is given.
        with torch.autocast("cpu", enabled=False):
            return pad(*args, **kwargs)

    monkeypatch.setattr(F, "pad", pad_as_on_a_gpu)

    class Names(Traffic):
        def __init__(self) -> None:
            super().__init__()
            self.names: Counter[str] = Counter()

        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
            self.names[func._schema.name] += 1
            return super().__torch_dispatch__(func, types, args, kwargs)

    def names(*, modelled: bool) -> tuple[Counter[str], int]:
        torch.manual_seed(0)
        step = step_of(networks_of(), frame_ids=(0, -1, 1), use_stereo=False, autocast_dtype=torch.bfloat16)
        with Names() as traffic:
            with on_meta() if modelled else nullcontext(), CudaAutocast() if modelled else nullcontext():
                predictions = step.predict(batch)
            sum(disp.sum() for disp in predictions.disps.values()).backward()
            predictions.motions[0][0].sum().backward()
        return traffic.names, sum(tally.bytes for tally in traffic.tallies.values())

    model, real = names(modelled=True), names(modelled=False)
    # Weights are cast together, by one operator; what is left are a few images and maps.
    assert model[0]["aten::_to_copy"] == real[0]["aten::_to_copy"] > 10
    assert model == real
