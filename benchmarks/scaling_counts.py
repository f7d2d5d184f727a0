"""What a step of md-train on a GPU exchanges, counted on tensors without data, and what is assumed about machines that nobody measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.bench_memory import TRAININGS, batch_of
from benchmarks.bench_traffic import NETWORKS_BACKWARD, count_ours
from benchmarks.gpu_targets import TARGETS
from benchmarks.scaling_model import Cluster, Link, Prediction, Training, predict
from benchmarks.step_inputs import default_config, to_device
from benchmarks.step_rows import OURS
from benchmarks.traffic import Tally, on_meta
from engine.training.build import make_networks

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
    "GPUs per machine": "8",
    "NVLink": "450 GB/s and 2 us per hop",
    "network per machine": "400 Gb/s and 5 us per hop",
    "frames per machine from memory": "40 GB/s",
    "from NVMe": "7 GB/s",
}
GPUS = (8, 64, 512)
SIZE_PX, BATCH_SIZE = (192, 640), 12
MAIN = "M, ResNet-18"
TRAINED = {MAIN: ("M", 18), "S, ResNet-18": ("S", 18), "M, ResNet-50": ("M", 50)}
# The results that hold a step's time on a GPU.
SCALING = "bench_scaling_gpu"


class Counted(NamedTuple):
    """What one step does, counted.

    Attributes:
        buckets: bytes of gradients that are exchanged together, in the order in which they come.
        norm_calls: how often a BatchNorm runs.
        moved, backward_moved: bytes that the step moves, and its networks' backward pass among them.
        sample_bytes: what a sample's frames take in the frame store.
    """

    buckets: tuple[int, ...]
    norm_calls: int
    moved: int
    backward_moved: int
    sample_bytes: int


def count(num_layers: int, frames: Mapping[str, Any]) -> Counted:
    """One step of md-train on a GPU; ``frames`` are options that say which frames it compares."""
    config = default_config(num_layers=num_layers, height_px=SIZE_PX[0], width_px=SIZE_PX[1], batch_size=BATCH_SIZE, **frames)
    batch, norm_calls = to_device(batch_of(config), META), 0

    def note(module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        nonlocal norm_calls
        norm_calls += isinstance(module, _BatchNorm)

    hook = register_module_forward_hook(note)
    with on_meta(), META:
        sections = count_ours(config, batch, fused=True)
        buckets = bucket_bytes(make_networks(config).parameters())
    hook.remove()
    moved = sum(sections.values(), Tally(0, 0)).bytes
    sample_bytes = (1 + config.data.num_sources) * 3 * SIZE_PX[0] * SIZE_PX[1]
    return Counted(buckets, norm_calls, moved, sections[NETWORKS_BACKWARD].bytes, sample_bytes)


def bucket_bytes(parameters: Iterable[nn.Parameter]) -> tuple[int, ...]:
    """Bytes of the buckets that DistributedDataParallel makes: from the last parameter to the first, a small one to begin with."""
    tensors = [parameter for parameter in parameters if parameter.requires_grad][::-1]
    buckets, _ = dist._compute_bucket_assignment_by_size(tensors, [dist._DEFAULT_FIRST_BUCKET_BYTES, BUCKET_BYTES])
    return tuple(sum(tensors[index].nbytes for index in bucket) for bucket in buckets)


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
        "mb": sum(training.buckets) / 1e6,
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
