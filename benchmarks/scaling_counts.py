"""What a step of md-train on a GPU exchanges, counted on tensors without data, and what is assumed about machines that nobody measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.bench_memory import TRAININGS
from benchmarks.gpu_targets import TARGETS
from benchmarks.scaling_model import Bucket, Cluster, Link, Prediction, Training, predict
from benchmarks.step_inputs import default_config
from benchmarks.step_rows import OURS
from benchmarks.traffic import Traffic, fused_adam
from engine.training.build import build_engine
from engine.training.live_memory import blank_batch
from engine.training.without_data import CudaAutocast, on_meta

META = torch.device("meta")
# DistributedDataParallel's default, for which torch has no public name.
BUCKET_BYTES = 25 * 2**20
GB, GBIT = 1e9, 1e9 / 8
# What no machine here could measure: eight GPUs such as H200 (NVLink's 900 GB/s are those of both directions), one port of 400 Gb/s for
# all of them, frames that the system keeps in memory. ``ASSUMPTIONS`` says so below the table.
ASSUMED = Cluster(8, Link(450 * GB, 2e-6), Link(400 * GBIT, 5e-6), 40 * GB)
PORT_PER_GPU = ASSUMED._replace(between=Link(8 * 400 * GBIT, 5e-6))
NVME = ASSUMED._replace(store_bytes_per_s=7 * GB)
ASSUMPTIONS = {
    "GPUs per machine": f"{ASSUMED.per_machine}",
    "NVLink": f"{ASSUMED.inside.bytes_per_s / GB:.0f} GB/s and {1e6 * ASSUMED.inside.latency_s:.0f} us per hop",
    "network per machine": f"{ASSUMED.between.bytes_per_s / GBIT:.0f} Gb/s and {1e6 * ASSUMED.between.latency_s:.0f} us per hop",
    "frames per machine from memory": f"{ASSUMED.store_bytes_per_s / GB:.0f} GB/s",
    "from NVMe": f"{NVME.store_bytes_per_s / GB:.0f} GB/s",
}
GPUS = (8, 64, 512)
SIZE_PX, BATCH_SIZE = (192, 640), 12
MAIN = "M, ResNet-18"
TRAINED = {MAIN: ("M", 18), "S, ResNet-18": ("S", 18), "M, ResNet-50": ("M", 50)}
FORWARD, BACKWARD = "forward", "backward"
# The result of ``bench_scaling`` on GPUs.
SCALING = "bench_scaling_gpu"


class Counted(NamedTuple):
    """What one step does, counted.

    Attributes:
        buckets: gradients, in the order in which they come.
        norm_calls: how often a BatchNorm runs.
        moved, backward_moved: bytes that the step moves, and its backward pass among them.
        sample_bytes: what a sample's frames take in the frame store.
    """

    buckets: tuple[Bucket, ...]
    norm_calls: int
    moved: int
    backward_moved: int
    sample_bytes: int


def count(num_layers: int, frames: Mapping[str, Any]) -> Counted:
    """One uncompiled step of md-train on a GPU in bf16; ``frames`` are options that say which frames it compares."""
    height_px, width_px = SIZE_PX
    config = default_config(num_layers=num_layers, height_px=height_px, width_px=width_px, batch_size=BATCH_SIZE, amp="bf16", **frames)
    batch, norm_calls = blank_batch(config.data, META), 0

    def note(module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        nonlocal norm_calls
        norm_calls += isinstance(module, _BatchNorm)

    with on_meta():
        with META:
            engine = build_engine(config, META, metric_factor=1.0)
            engine.step.cast_where_used()  # as with several processes
        hook = register_module_forward_hook(note)
        with CudaAutocast(), Traffic() as traffic:
            traffic.enter(FORWARD)
            loss = engine.step(batch).loss
            traffic.enter(BACKWARD)
            come = arrivals(engine.networks, loss.backward, lambda: traffic.tallies[BACKWARD].bytes)
        hook.remove()
    backward_moved = traffic.tallies[BACKWARD].bytes
    moved = traffic.tallies[FORWARD].bytes + backward_moved + fused_adam(engine.networks.parameters()).bytes
    sample_bytes = (1 + config.data.num_sources) * 3 * height_px * width_px
    return Counted(buckets_of(come, backward_moved), norm_calls, moved, backward_moved, sample_bytes)


def arrivals(networks: nn.Module, backward: Callable[[], object], clock: Callable[[], float]) -> list[tuple[Tensor, float]]:
    """The weights in the order in which ``backward`` makes their gradients, and what the clock showed at each."""
    come: list[tuple[Tensor, float]] = []
    weights = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    hooks = [weight.register_post_accumulate_grad_hook(lambda each: come.append((each, clock()))) for weight in weights]
    backward()
    for hook in hooks:
        hook.remove()
    return come


def buckets_of(come: Sequence[tuple[Tensor, float]], whole: float) -> tuple[Bucket, ...]:
    """The buckets that DistributedDataParallel makes of gradients, a small one to begin with.

    Args:
        come: weights in the order in which their gradients come, and when.
        whole: when the backward pass ends, by the same clock.
    """
    weights, when = zip(*come, strict=True)
    limits = [dist._DEFAULT_FIRST_BUCKET_BYTES, BUCKET_BYTES]
    members, _ = dist._compute_bucket_assignment_by_size(list(weights), limits)
    return tuple(Bucket(sum(weights[index].nbytes for index in bucket), max(when[index] for index in bucket) / whole) for bucket in members)


def model_rows(step_s: float) -> dict[str, dict[str, Any]]:
    """What the model says of each published training on so many GPUs, and of the main one in other circumstances.

    A GPU's step is limited by the bytes that it moves: the steps of the other trainings, and the backward pass within each, take their
    share of time by them.

    Args:
        step_s: of the main one, without exchange.
    """
    counted = {name: count(num_layers, TRAININGS[frames]) for name, (frames, num_layers) in TRAINED.items()}
    per_byte_s = step_s / counted[MAIN].moved
    steps = {
        name: Training(BATCH_SIZE, per_byte_s * of.moved, per_byte_s * of.backward_moved, of.buckets, 0, of.sample_bytes)
        for name, of in counted.items()
    }
    main = steps[MAIN]
    cases = {name: (step, ASSUMED) for name, step in steps.items()} | {
        # The statistics are exchanged when the layer runs, and their gradients when its backward pass does.
        f"{MAIN}, `--sync_bn`": (main._replace(norm_exchanges=2 * counted[MAIN].norm_calls), ASSUMED),
        f"{MAIN}, a port per GPU": (main, PORT_PER_GPU),
        f"{MAIN}, frames from NVMe": (main, NVME),
    }
    return {f"{name}: {gpus} GPUs": figures(step, predict(step, gpus, where)) for name, (step, where) in cases.items() for gpus in GPUS}


def figures(training: Training, of: Prediction) -> dict[str, Any]:
    """A row of the table."""
    return {
        "samples_per_s": of.samples_per_s,
        "efficiency": of.efficiency,
        "ms": 1e3 * of.step_s,
        "mb": sum(bucket.size for bucket in training.buckets) / 1e6,
        "exchange_ms": 1e3 * of.exchange_s,
        "exposed_ms": 1e3 * of.exposed_s,
        "store_gb_per_s": of.store_bytes_per_s / GB,
        "bottleneck": of.bottleneck,
    }


def gpu_step(scaling: Mapping[str, Any] | None, alone: Mapping[str, Any] | None) -> tuple[float, str]:
    """Seconds of the main training's step on a GPU, without exchange, and where they come from.

    Args:
        scaling: the result of ``bench_scaling`` on GPUs, where there is one; the others likewise.
        alone: of ``bench_step``, whose step is one process's, in a CUDA graph.
    """
    if scaling is not None and _is_main(scaling):
        return float(scaling["step_s"]), f"measured on {scaling['circumstances']['gpu']}"
    if alone is not None and _is_main(alone):
        ms = next(float(values["ms"]) for name, values in alone["rows"].items() if name.startswith(OURS))
        return ms / 1e3, f"measured on {alone['circumstances']['gpu']}, in a CUDA graph"
    return TARGETS[0].goal / 1e3, "not measured: the goal for an H200"


def _is_main(result: Mapping[str, Any]) -> bool:
    setting = result["setting"]
    return (tuple(setting["size_px"]), setting["batch_size"], setting["num_layers"]) == (SIZE_PX, BATCH_SIZE, 18)
