"""How fast many GPUs train together, computed from parts that were measured, counted or assumed: pure functions of seconds and bytes.

All processes make their steps in time with each other, and exchange gradients while the backward pass makes more of them. Not in the
model: processes of unlike speed, other traffic on the network, and what the exchange takes from the GPU's own work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Sums and squares of a layer's channels, and how many values they are of: at most 513 channels' worth of fp32.
NORM_BYTES = 4 * (2 * 512 + 1)
# What costs less than this share of the step is no bottleneck.
SMALL_SHARE = 0.05
COMPUTING, STORE, NORMS, INSIDE, BETWEEN = "computing", "reading frames", "BatchNorm's exchange", "links inside", "network"


class Link(NamedTuple):
    """What joins processes in one direction: its rate, and what one hop costs however little it carries."""

    bytes_per_s: float
    latency_s: float


class Cluster(NamedTuple):
    """Machines that are alike.

    Attributes:
        per_machine: GPUs of a machine.
        inside: from a GPU to the next one of its machine.
        between: from a machine to the next one; all its GPUs share it.
        store_bytes_per_s: how fast a machine reads frames.
    """

    per_machine: int
    inside: Link
    between: Link
    store_bytes_per_s: float


class Bucket(NamedTuple):
    """Gradients that are exchanged together.

    Attributes:
        size: their bytes.
        ready: the share of the backward pass after which all of them are there.
    """

    size: int
    ready: float


class Training(NamedTuple):
    """What a step of one process does.

    Attributes:
        batch_size: samples per process.
        step_s: a step without exchange.
        backward_s: the backward pass of it.
        buckets: the gradients, in the order in which they come.
        norm_exchanges: how often a step exchanges BatchNorm's statistics, and waits for them; 0 without --sync_bn.
        sample_bytes: what a sample's frames take in the frame store.
    """

    batch_size: int
    step_s: float
    backward_s: float
    buckets: tuple[Bucket, ...]
    norm_exchanges: int
    sample_bytes: int


class Prediction(NamedTuple):
    """What so many GPUs do.

    Attributes:
        step_s: a step with all that it waits for.
        exchange_s: the gradients' exchange by itself; ``exposed_s``: what of it the step waits for.
        store_bytes_per_s: what each machine reads.
        efficiency: samples per second over those of as many GPUs that wait for nothing.
        bottleneck: what a step waits for the longest; computing where it waits for nothing much.
    """

    step_s: float
    exchange_s: float
    exposed_s: float
    store_bytes_per_s: float
    samples_per_s: float
    efficiency: float
    bottleneck: str


def ring_s(size: float, members: int, link: Link) -> float:
    """All-reduce of ``size`` bytes in a ring: 2 (n - 1) hops, an n-th of the bytes in each (Patarasuk and Yuan, 2009)."""
    return 2 * (members - 1) * (size / members / link.bytes_per_s + link.latency_s)


def trees_s(size: float, members: int, link: Link) -> float:
    """All-reduce of ``size`` bytes in NCCL's double binary trees: up and down, all bytes once each way (Sanders et al., 2009)."""
    return 2 * (size / link.bytes_per_s + math.ceil(math.log2(members)) * link.latency_s) if members > 1 else 0.0


def all_reduce_s(size: float, members: int, link: Link) -> float:
    """All-reduce in the way that takes less time, as NCCL chooses it: the ring for few members or many bytes, else the trees."""
    return min(ring_s(size, members, link), trees_s(size, members, link))


def levels_s(size: float, gpus: int, cluster: Cluster) -> tuple[float, float]:
    """All-reduce in two levels: seconds inside the machines, each of whose GPUs ends up with its part of the sum, and between them."""
    local = min(gpus, cluster.per_machine)
    return all_reduce_s(size, local, cluster.inside), all_reduce_s(size, math.ceil(gpus / local), cluster.between)


def exposed_s(backward_s: float, buckets: Sequence[Bucket], costs_s: Sequence[float]) -> float:
    """How much longer than the backward pass the exchange takes: bucket after bucket, each once it is ready and the one before is done."""
    ends_s = 0.0
    for bucket, cost_s in zip(buckets, costs_s, strict=True):
        ends_s = max(ends_s, bucket.ready * backward_s) + cost_s
    return max(ends_s - backward_s, 0.0)


def predict(training: Training, gpus: int, cluster: Cluster) -> Prediction:
    """What ``gpus`` of the cluster do; frames are read while the step before is computed."""
    parts_s = [levels_s(bucket.size, gpus, cluster) for bucket in training.buckets]
    waits_s = exposed_s(training.backward_s, training.buckets, [sum(part) for part in parts_s])
    norms_s = training.norm_exchanges * sum(levels_s(NORM_BYTES, gpus, cluster))
    machine_bytes = min(gpus, cluster.per_machine) * training.batch_size * training.sample_bytes
    trained_s = training.step_s + norms_s + waits_s
    step_s = max(trained_s, machine_bytes / cluster.store_bytes_per_s)
    inside_s, between_s = (sum(level) for level in zip(*parts_s, strict=True))
    lost_s = {NORMS: norms_s, BETWEEN if between_s > inside_s else INSIDE: waits_s}
    worst = max(lost_s, key=lambda cause: lost_s[cause])
    held_up = worst if lost_s[worst] > SMALL_SHARE * training.step_s else COMPUTING
    return Prediction(
        step_s=step_s,
        exchange_s=inside_s + between_s,
        exposed_s=waits_s,
        store_bytes_per_s=machine_bytes / step_s,
        samples_per_s=gpus * training.batch_size / step_s,
        efficiency=training.step_s / step_s,
        bottleneck=STORE if step_s > trained_s else held_up,
    )
