"""The plan of a run on many processes, made by one on its CPU: what each step exchanges and holds, and who gets which samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dataload.config import MIN_SIZE_PX, DataConfig
from dataload.loader import require_full_batch
from dataload.pipeline.order import epoch_batches
from dataload.system.console import console
from dataload.system.launch import Launch
from dataload.training_data import TrainingData
from engine.parallel.pretended import pretended
from engine.parallel.ranks import Ranks
from engine.parallel.sharing import share_of
from engine.precision import pick_device
from engine.training.build import Engine, build_engine
from engine.training.config import TrainConfig, learning_rate_factor
from engine.training.live_memory import PEAK, blank_batch, untrained, update_bytes_on_gpu
from engine.training.optim import learning_rate_at
from splits import NAMES, read_lines

MIB, GIB = 2**20, 2**30
# DistributedDataParallel makes its buckets again, in the order in which gradients come, before the third step of a static graph.
STEPS_TO_BUCKETS = 3


def plan(config: TrainConfig, world: int) -> dict[str, Any]:
    """The plan of a run of ``world`` processes, by names that say what and in which unit; values that JSON has.

    Memory is that of a GPU: without ``no_cuda`` alone, and counted, see ``live_memory``. Gradients are in the buckets that
    DistributedDataParallel really makes.

    Args:
        config: of a new run.
        world: how many processes train, at least 1.

    Raises:
        InputError: missing files, or a training list too short for one batch of each process.
    """
    batch_size, (num_train, num_val) = config.data.batch_size, _list_lengths(config.data, world)
    steps = _steps_per_epoch(config.data, num_train, world)
    total_steps = config.total_steps(steps)
    images = [len(share_of(Ranks(Launch(rank, world)), num_val, batch_size)) for rank in range(world)]
    engine, buckets = _exchanged(config, world)
    return {
        "processes": world,
        "batch_size_per_process": batch_size,
        "global_batch_size": batch_size * world,
        "training_samples": num_train,
        "steps_per_epoch": steps,
        "samples_left_out_per_epoch": num_train - steps * batch_size * world,
        "total_steps": total_steps,
        "learning_rate_from_epoch": _learning_rates(config, -(-total_steps // steps), world),
        "parameters": sum(p.numel() for p in engine.networks.parameters()),
        "gradients_exchanged_mib_per_step": round(sum(buckets) / MIB, 3),
        "gradient_buckets_per_step": len(buckets),
        **({} if config.no_cuda else {"gpu_memory_gib_per_process": _memory(config, engine, world)}),
        "validation_images": num_val,
        "validation_images_per_process": {"most": max(images), "least": min(images)},
    }


def _list_lengths(data: DataConfig, world: int) -> tuple[int, int]:
    """Samples of the training and the validation list; of a published split also where its dataset is not on this machine."""
    if data.split not in NAMES or data.data_path.is_dir():
        lists = TrainingData(data, world)
        return len(lists.train_refs), len(lists.val_refs)
    console.warning("No folder %s: the plan takes every line of split %s for a sample", data.data_path, data.split)
    num_train, num_val = (len(read_lines(data.split, subset)) for subset in ("train", "val"))
    require_full_batch(num_train, data.batch_size, world)
    return num_train, num_val


def _steps_per_epoch(data: DataConfig, num_samples: int, world: int) -> int:
    """How many batches each process gets, once it is sure that together they share out the first epoch."""
    shares = [
        epoch_batches(num_samples, batch_size=data.batch_size, seed=data.seed, epoch=0, rank=rank, world=world) for rank in range(world)
    ]
    require_partition(shares, num_samples, data.batch_size)
    return len(shares[0])


def require_partition(shares: Sequence[Sequence[np.ndarray]], num_samples: int, batch_size: int) -> None:
    """Assert that the ranks' batches are full, as many on each, hold no sample twice and leave out fewer than one batch of each."""
    assert len({len(share) for share in shares}) == 1, "ranks have different numbers of batches"
    batches = [batch for share in shares for batch in share]
    assert all(len(batch) == batch_size for batch in batches), "a batch is not full"
    taken = np.concatenate(batches)
    assert len(np.unique(taken)) == len(taken), "a sample is taken twice"
    assert 0 <= taken.min() <= taken.max() < num_samples, "a sample is not in the list"
    assert num_samples - len(taken) < batch_size * len(shares), "more samples than a step takes are left out"


def _learning_rates(config: TrainConfig, num_epochs: int, world: int) -> dict[str, float]:
    """By the first epoch that it holds for."""
    factor, step_size = learning_rate_factor(config.scale_lr, world), config.scheduler_step_size
    return {
        str(epoch): factor * learning_rate_at(epoch, base=config.learning_rate, step_size=step_size)
        for epoch in range(0, num_epochs, step_size)
    }


def _exchanged(config: TrainConfig, world: int) -> tuple[Engine, list[int]]:
    """A process's engine, and the bytes of each bucket of gradients that it exchanges per step; both are the same for small images."""
    data = replace(config.data, height_px=MIN_SIZE_PX, width_px=MIN_SIZE_PX, batch_size=config.grad_accumulation)
    small = replace(untrained(config), data=data, amp="off")
    device = pick_device(no_cuda=True)
    with pretended(world) as exchange:
        engine = build_engine(small, device, metric_factor=1.0, exchange=exchange)
        if engine.parallel is not None:
            exchange.watch(engine.parallel)
            for _ in range(STEPS_TO_BUCKETS):
                engine.parallel(blank_batch(data, device)).loss.backward()
        return engine, exchange.bucket_bytes


def _memory(config: TrainConfig, engine: Engine, world: int) -> dict[str, float]:
    """GiB of a process's GPU: what it always holds, and all that a step holds at its peak."""
    held = update_bytes_on_gpu(config, exchanges=world > 1)
    gradients = sum(p.numel() * p.element_size() for p in engine.networks.parameters() if p.requires_grad)
    of = {"weights": held["parameters"], "gradients": gradients, "adam": held["adam"], "peak_of_a_step": held[PEAK]}
    return {what: round(size / GIB, 3) for what, size in of.items()}
