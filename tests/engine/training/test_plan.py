"""The plan of a run on processes that are not there: its figures are those of the run, and it shares the list out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from dataload.pipeline.order import epoch_batches
from engine.training.build import make_networks
from engine.training.checkpoint import Position
from engine.training.config import TrainConfig
from engine.training.plan import plan, require_partition
from engine.training.train import planned_steps
from splits.errors import InputError

# What DistributedDataParallel puts into a bucket at most, but for one larger weight.
BUCKET_MIB = 25
ZHOU_TRAIN, ZHOU_VAL = 39810, 4424


def config_of(data_path: Path, **options: Any) -> TrainConfig:
    return TrainConfig.from_options(**{"data_path": data_path, "height": 64, "width": 96} | options)


@pytest.mark.parametrize("world", [1, 64, 512])
def test_a_plan_of_a_published_split_needs_no_data(tmp_path, world):
    config = config_of(tmp_path / "none", batch_size=12, scale_lr="sqrt", num_epochs=40)
    planned = plan(config, world)
    steps = ZHOU_TRAIN // (12 * world)
    assert (planned["processes"], planned["global_batch_size"]) == (world, 12 * world)
    assert (planned["training_samples"], planned["validation_images"]) == (ZHOU_TRAIN, ZHOU_VAL)
    assert planned["steps_per_epoch"] == steps
    assert planned["samples_left_out_per_epoch"] == ZHOU_TRAIN - steps * 12 * world
    assert planned["total_steps"] == 40 * steps == planned_steps(config, Position(samples=0), ZHOU_TRAIN, world)
    rate = 1e-4 * world**0.5
    assert planned["learning_rate_from_epoch"] == pytest.approx({"0": rate, "15": rate / 10, "30": rate / 100})
    most, least = (planned["validation_images_per_process"][which] for which in ("most", "least"))
    assert most - least <= 12
    assert least * world <= ZHOU_VAL <= most * world
    assert not dist.is_initialized()


@pytest.mark.parametrize("options", [{}, {"sync_bn": True}, {"checkpoint_activations": True}, {"grad_accumulation": 2}], ids=str)
def test_all_gradients_are_exchanged_in_buckets_of_which_some_leave_while_others_come(tmp_path, options):
    config = config_of(tmp_path / "none", batch_size=2, no_cuda=True, **options)
    trained = [p.numel() * 4 / 2**20 for p in make_networks(config).parameters() if p.requires_grad]
    planned = plan(config, 4)
    assert planned["gradients_exchanged_mib_per_step"] == pytest.approx(sum(trained), abs=0.001)
    assert sum(trained) / (BUCKET_MIB + max(trained)) <= planned["gradient_buckets_per_step"] < sum(trained) / BUCKET_MIB + 2


def test_memory_is_of_a_gpu_and_depends_on_what_a_process_holds(tmp_path):
    def memory(world: int, **options: Any) -> dict[str, float]:
        config = config_of(tmp_path / "none", **{"height": 192, "width": 640, "batch_size": 4} | options)
        held: dict[str, float] = plan(config, world)["gpu_memory_gib_per_process"]
        return held

    alone, shared = memory(1), memory(64)
    fixed = [name for name in alone if name != "peak_of_a_step"]
    assert [alone[name] for name in fixed] == [shared[name] for name in fixed]
    assert alone["adam"] == pytest.approx(2 * alone["gradients"], abs=0.002)
    # Buckets are there when activations are at their most; the gradients of one process alone are not there yet.
    assert shared["peak_of_a_step"] == pytest.approx(alone["peak_of_a_step"] + alone["gradients"], abs=0.002)
    assert memory(64, checkpoint_activations=True)["peak_of_a_step"] < 0.8 * shared["peak_of_a_step"]


def test_one_process_exchanges_nothing_and_without_a_gpu_no_memory_is_counted(tmp_path):
    planned = plan(config_of(tmp_path / "none", no_cuda=True), 1)
    assert "gpu_memory_gib_per_process" not in planned
    assert (planned["gradients_exchanged_mib_per_step"], planned["gradient_buckets_per_step"]) == (0, 0)


def test_lists_of_data_that_is_there_are_read(kitti_tree: Callable[..., Path]):
    tree = kitti_tree(frames=12)  # 20 samples
    config = config_of(tree, split=str(tree / "split"), batch_size=3, max_steps=7, scheduler_step_size=2)
    planned = plan(config, 2)
    assert (planned["training_samples"], planned["validation_images"]) == (20, 20)
    assert (planned["steps_per_epoch"], planned["samples_left_out_per_epoch"], planned["total_steps"]) == (3, 2, 7)
    # The third epoch is the last that begins.
    assert list(planned["learning_rate_from_epoch"]) == ["0", "2"]
    # Seven batches, the last of two.
    assert planned["validation_images_per_process"] == {"most": 11, "least": 9}
    with pytest.raises(InputError, match=r"20 samples, fewer than one batch of 3 for each of 7 processes \(21\); .* start fewer processes"):
        plan(config, 7)


def batches_of(rank: int) -> list[np.ndarray]:
    return epoch_batches(50, batch_size=4, seed=0, epoch=0, rank=rank, world=3)


@pytest.mark.parametrize(
    ("shares", "fault"),
    [
        ([batches_of(0), batches_of(1), batches_of(1)], "taken twice"),
        ([batches_of(0), batches_of(1), batches_of(2)[:-1]], "different numbers"),
        ([batches_of(rank)[:-1] for rank in range(3)], "left out"),
        ([[batch[:3] for batch in batches_of(rank)] for rank in range(3)], "not full"),
        ([batches_of(0), batches_of(1), [batch + 50 for batch in batches_of(2)]], "not in the list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_order_that_is_no_partition_is_noticed(shares, fault):
    require_partition([batches_of(rank) for rank in range(3)], 50, 4)
    with pytest.raises(AssertionError, match=fault):
        require_partition(shares, 50, 4)
