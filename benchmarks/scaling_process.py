"""What torchrun starts for ``bench_scaling``: the parts of training together, each by itself and in turn, among the same processes.

``python -m benchmarks.scaling_process TASK FILE``; rank 0 writes the ``Parts`` to the file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.scaling_counts import arrivals, buckets_of
from benchmarks.scaling_model import NORM_BYTES, Bucket, exposed_s
from benchmarks.step_inputs import default_config, random_batch, to_device
from dataload.batch import Batch
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import joined
from engine.precision import pick_device
from engine.training.build import Engine, build_engine
from engine.training.update import Updater

ALONE, BESIDE, TOGETHER = "alone", "beside", "together"
FORWARD, GRADIENTS = "forward", "gradients"
EXCHANGE, SMALL = "exchange", "small"
SMALL_RUNS = 20
WAIT = timedelta(minutes=10)


class Task(NamedTuple):
    """What is measured: steps of which size, how many in a row, and how often each part has its turn."""

    size_px: tuple[int, int]
    batch_size: int
    steps: int
    rounds: int
    no_cuda: bool


class Part(NamedTuple):
    """What is done ``runs`` times in a row; ``by_first``: by rank 0 alone, while the others wait."""

    run: Callable[[], object]
    runs: int
    by_first: bool = False


class Parts(NamedTuple):
    """What the parts took.

    Attributes:
        seconds: of each part by turn, those of the slowest process.
        buckets: the gradients, in the order in which they come.
    """

    seconds: dict[str, list[float]]
    buckets: tuple[Bucket, ...]

    def gradient_bytes(self) -> int:
        """All gradients of a process."""
        return sum(bucket.size for bucket in self.buckets)

    def median_s(self, part: str) -> float:
        """The median of a part's turns."""
        return median(self.seconds[part])

    def contention(self) -> float:
        """How much longer a step takes beside others: they share caches, memory and clock, and wait for the slowest of them."""
        return self.median_s(BESIDE) / self.median_s(ALONE)

    def exposed_s(self) -> float:
        """What of the exchange a step would wait for, if computing and exchanging did not hinder each other."""
        per_byte_s = self.median_s(EXCHANGE) / self.gradient_bytes()
        backward_s = max(self.median_s(GRADIENTS) - self.median_s(FORWARD), 0.0)
        return exposed_s(backward_s, self.buckets, [bucket.size * per_byte_s for bucket in self.buckets])

    def hidden_shares(self) -> list[float]:
        """By turn, the share of the exchange that steps do not wait for; below 0 where they take longer by more than it, above 1 where they
        take less time than without it: the parts of a turn are timed one after the other, on a machine that may be busy."""
        whole_s = self.median_s(EXCHANGE)
        return [1 - (with_s - without_s) / whole_s for with_s, without_s in zip(self.seconds[TOGETHER], self.seconds[BESIDE], strict=True)]


def main() -> None:
    """Measure the parts in turn."""
    task = Task(**json.loads(sys.argv[1]))
    with joined() as ranks:
        device = pick_device(no_cuda=task.no_cuda)
        exchange = Exchange(ranks, device, WAIT)
        parts, buckets = parts_of(task, device, exchange)
        seconds: dict[str, list[float]] = {name: [] for name in parts}
        for round_number in range(1 + task.rounds):
            for name, part in parts.items():
                ranks.meet()
                taken_s = 0.0 if part.by_first and not ranks.is_first else time_runs(part, device)
                # All have done it when the last one has.
                (longest_s,) = exchange.most([taken_s])
                if round_number > 0:
                    seconds[name].append(longest_s)
        if ranks.is_first:
            Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "buckets": buckets}), encoding="utf-8")


def parts_of(task: Task, device: torch.device, exchange: Exchange) -> tuple[dict[str, Part], tuple[Bucket, ...]]:
    """The parts by name, and the gradients.

    A step is md-train's update of random frames: of one process alone, on a GPU in a CUDA graph; of all beside each other, without
    exchange; of all together. Of one process alone, nothing is exchanged.
    """
    height_px, width_px = task.size_px
    config = default_config(height_px=height_px, width_px=width_px, batch_size=task.batch_size, no_cuda=task.no_cuda)
    torch.manual_seed(exchange.ranks.rank)
    batch = to_device(random_batch(task.batch_size, task.size_px), device)

    def engine(exchange: Exchange | None = None) -> Engine:
        return build_engine(config, device, metric_factor=1.0, exchange=exchange)

    alone, plain = Updater(engine(), capture=True), engine()
    beside = Updater(plain)
    parts = {
        ALONE: Part(lambda: alone(batch), task.steps, by_first=True),
        BESIDE: Part(lambda: beside(batch), task.steps),
        FORWARD: Part(lambda: plain.step(batch), task.steps),
        GRADIENTS: Part(lambda: fill_gradients(plain, batch), task.steps),
    }
    buckets = time_arrivals(plain, batch)
    if exchange.ranks.world == 1:
        return parts, buckets
    together = Updater(engine(exchange))
    sums = [torch.zeros(bucket.size // 4, device=device) for bucket in buckets]
    small = [torch.zeros(NORM_BYTES // 4, device=device)]
    exchanging = {
        TOGETHER: Part(lambda: together(batch), task.steps),
        EXCHANGE: Part(lambda: all_reduce(sums), task.steps),
        SMALL: Part(lambda: all_reduce(small), SMALL_RUNS),
    }
    return parts | exchanging, buckets


def fill_gradients(engine: Engine, batch: Batch) -> None:
    """Forward and backward pass, as an update makes them."""
    engine.optimizer.zero_grad(set_to_none=True)
    engine.scaler.scale(engine.step(batch).loss).backward()


def time_arrivals(engine: Engine, batch: Batch) -> tuple[Bucket, ...]:
    """The gradients of the engine's second backward pass: in the first, libraries and compilers get ready."""

    def clock() -> float:
        wait_for(engine.device)
        return time.perf_counter() - start_s

    for _ in range(2):
        engine.optimizer.zero_grad(set_to_none=True)
        loss = engine.scaler.scale(engine.step(batch).loss)
        wait_for(engine.device)
        start_s = time.perf_counter()
        come = arrivals(engine.networks, loss.backward, clock)
        end_s = clock()
    return buckets_of(come, end_s)


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Sum each over the processes, one after the other, as gradients are."""
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for work in works:
        assert work is not None
        work.wait()


def time_runs(part: Part, device: torch.device) -> float:
    """Seconds of one of the part's runs."""
    start_s = time.perf_counter()
    for _ in range(part.runs):
        part.run()
    wait_for(device)
    return (time.perf_counter() - start_s) / part.runs


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
