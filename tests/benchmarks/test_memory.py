"""The counted memory of a training step: held against what the CPU's allocator gave out, and against what was committed."""

import json
from typing import Any

import pytest
import torch
from published import networks_of, step_of
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_memory import GIB, KINDS, PEAK, TRAININGS, count
from benchmarks.harness import RESULTS
from benchmarks.step_inputs import default_config, random_batch, to_device
from engine.parallel.pretended import pretended
from engine.training.build import build_engine
from engine.training.live_memory import LiveBytes, blank_batch, count_update
from engine.training.plan import STEPS_TO_BUCKETS
from engine.training.update import Updater
from engine.training.without_data import on_meta

CPU = torch.device("cpu")
SMALL = {"height_px": 64, "width_px": 96, "batch_size": 4}
# Where activations are most of it.
FULL = {"height_px": 192, "width_px": 640, "batch_size": 4}


def allocated_peak(run: Any) -> int:
    """The most bytes that ``run`` had of the CPU's allocator at once, beside what was held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.mark.parametrize("options", [{}, {"checkpoint_activations": True}, {"grad_accumulation": 2}], ids=str)
def test_the_count_is_what_the_allocator_gave_out(options):
    config = default_config(amp="off", **SMALL, **options)
    batch = random_batch(SMALL["batch_size"], (SMALL["height_px"], SMALL["width_px"]))
    engine = build_engine(config, torch.device("cpu"), metric_factor=1.0)
    updater = Updater(engine, parts=config.grad_accumulation)
    counted = count_update(engine, batch, parts=config.grad_accumulation)
    engine.optimizer.zero_grad(set_to_none=True)
    given = allocated_peak(lambda: updater(batch))
    step = counted["activations"] + counted["gradients"]
    # Workspaces of convolutions, and of the losses' tensors that one operator makes and frees, are the allocator's alone.
    assert 0.93 * given < step <= given


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_that_are_exchanged_count_as_torch_keeps_them(parts):
    config = default_config(amp="off", grad_accumulation=parts, **SMALL)
    batch = blank_batch(config.data, CPU)
    with pretended(2) as exchange:
        engine = build_engine(config, CPU, metric_factor=1.0, exchange=exchange)
        assert engine.parallel is not None
        exchange.watch(engine.parallel)
        updater = Updater(engine, parts=parts)
        for _ in range(STEPS_TO_BUCKETS):
            updater(batch)
        engine.optimizer.zero_grad(set_to_none=True)
        given = allocated_peak(lambda: updater(batch))
    alone = build_engine(config, CPU, metric_factor=1.0)
    counted = count_update(alone, batch, parts=parts, exchanges=True)
    assert counted["gradients"] == sum(4 * p.numel() for p in alone.networks.parameters() if p.requires_grad)
    # The buckets were there before. Workspaces of convolutions are the allocator's alone.
    assert 0.9 * given < counted["activations"] <= given


def test_tensors_without_data_count_as_real_ones_do():
    def peak(device: torch.device) -> int:
        batch = to_device(random_batch(2, (64, 96)), device)
        with device:
            step = step_of(networks_of())
        with LiveBytes(batch.tensors()) as live:
            predictions = step.predict(batch)
            tensors = [*predictions.disps.values(), *(part for motion in predictions.motions for part in motion)]
            torch.autograd.backward(tensors, [torch.ones_like(tensor) for tensor in tensors])
        return live.peak

    with on_meta():
        without_data = peak(torch.device("meta"))
    assert without_data == pytest.approx(peak(torch.device("cpu")), rel=0.01)


def test_what_saves_memory_saves_activations_and_a_larger_batch_takes_more():
    plain, less, parts = (count(**FULL, **options) for options in ({}, {"checkpoint_activations": True}, {"grad_accumulation": 2}))
    assert less["activations"] < 0.8 * plain["activations"]
    assert parts["activations"] < 0.8 * plain["activations"]
    larger = count(**FULL | {"batch_size": 8})
    assert larger["activations"] > 1.5 * plain["activations"]
    assert larger["batch"] == 2 * plain["batch"]
    assert larger["parameters"] == plain["parameters"] < plain["adam"]
    for held in (plain, less, parts, larger):
        assert sum(held[kind] for kind in KINDS) == held[PEAK]
        assert all(held[kind] >= 0 for kind in KINDS)


def test_a_step_holds_no_more_than_committed():
    committed = json.loads((RESULTS / "bench_memory.json").read_text(encoding="utf-8"))
    height_px, width_px = committed["setting"]["size_px"]
    now = count(height_px=height_px, width_px=width_px, batch_size=committed["setting"]["batch_size"])[PEAK] / GIB
    then = committed["rows"]["M, ResNet-18"]["peak_gib"]
    assert now == pytest.approx(then, rel=0.02), "where it has to change, run: python -m benchmarks.bench_memory --save"


def test_memory_counts_once_and_until_it_is_freed():
    present = torch.ones(10)
    with LiveBytes([present, present[2:]]) as live:
        assert live.now == 40
        kept = torch.zeros(5) + 1
        assert live.now == 40 + 20
        assert live.peak == 40 + 2 * 20
        view = kept[1:]
        kept += 1
        assert live.now == 60
        del kept
        assert live.now == 60
        del view
        assert live.now == 40
    assert live.at_peak([present]) == 40


def test_what_a_graph_keeps_for_the_backward_pass_counts():
    layer, x = nn.Linear(8, 8), torch.rand(4, 8)
    with LiveBytes([*layer.parameters(), x]) as live:
        before = live.now
        y = layer(x).sigmoid().exp()
        # The layer's own answer is needed no more; the sigmoid's and the exponential are.
        assert live.now - before == 2 * 4 * 8 * 4
        y.sum().backward()
        del y
        assert live.now - before == sum(p.numel() * 4 for p in layer.parameters())


def test_each_training_holds_its_own_networks_and_frames():
    held = {name: count(**FULL, **frames) for name, frames in TRAININGS.items()}
    # Without neighbours there is no pose network; the other camera is a frame more to compare with.
    assert held["S"]["parameters"] < 0.6 * held["M"]["parameters"]
    assert held["MS"]["parameters"] == held["M"]["parameters"]
    assert held["S"]["batch"] < held["M"]["batch"] < held["MS"]["batch"]
