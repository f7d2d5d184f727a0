"""The loader: the same batches from either backend, from any starting point, for any number of ranks; geometry follows the flips."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import BACKENDS, HAS_DALI, images, same

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.loader import Loader
from dataload.pipeline.order import draw
from dataload.pipeline.parcel import Parcel
from splits.errors import InputError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SMALL = {"height_px": 64, "width_px": 96, "batch_size": 3, "num_workers": 2}


@pytest.fixture(scope="module")
def tree(kitti_tree) -> Path:
    return kitti_tree(drives=("0001", "0002"), frames=6)


def make(
    root: Path, *, training: bool = True, subset: str = "train", device: str = "cpu", ranks: tuple[int, int] = (0, 1), **options
) -> Loader:
    """A loader over a tree that brings its own split."""
    config = DataConfig(**{"data_path": root, "split": str(root / "split"), "loader": "torch", **SMALL, **options})
    dataset = open_dataset(config)
    return Loader(config, dataset, dataset.read(config.split, subset), training=training, device=device, rank=ranks[0], world=ranks[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_stereo": True, "source_levels": 2},
        {"frame_ids": (0,), "use_stereo": True},
        {"frame_ids": (0,), "num_levels": 1},
        {"num_workers": 0},
    ],
)
def test_batches_keep_the_contract(tree, backend, training, options) -> None:
    with make(tree, loader=backend, training=training, **options) as loader:
        config, batches = loader.config, list(loader.epoch(0))
        assert loader.backend == backend
        assert len(batches) == loader.steps_per_epoch == (16 // 3 if training else 6)
        for batch, size in zip(batches, [3] * 5 + [1], strict=False):
            temporal = len(config.temporal_ids)
            assert [tuple(t.shape) for t in batch.target] == [(size, 3, 64 >> s, 96 >> s) for s in range(config.num_levels)]
            expected = [(size, config.num_sources, 3, 64 >> s, 96 >> s) for s in range(config.source_levels)]
            assert [tuple(s.shape) for s in batch.sources] == expected
            assert tuple(batch.target_input.shape) == (size, 3, 64, 96)
            assert tuple(batch.source_inputs.shape) == (size, temporal, 3, 64, 96)
            assert all(image.dtype == torch.uint8 for image in images(batch))
            assert all(level.is_contiguous(memory_format=torch.channels_last) for level in batch.target)
            assert (batch.K.shape, batch.T_stereo.shape, batch.indices.shape) == ((size, 3, 3), (size, 4, 4), (size,))
            if not training:
                assert torch.equal(batch.target_input, batch.target[0])
                assert torch.equal(batch.source_inputs, batch.sources[0][:, :temporal])
        if not training:
            assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(16))


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@pytest.mark.parametrize("split", ["kitti_mini", "kitti_mini_stereo"])
def test_both_backends_make_the_same_batches_of_real_frames(shared, split) -> None:
    options = {"split": str(shared / "kitti" / "splits" / split), "height_px": 192, "width_px": 640, "batch_size": 4}
    if split.endswith("stereo"):
        options |= {"frame_ids": (0,), "use_stereo": True}
    loaders = [make(shared / "kitti" / "raw_jpg", loader=backend, **options) for backend in ("torch", "dali")]
    epochs = [loader.epoch(2) for loader in loaders]
    for _ in range(3):
        a, b = (next(epoch) for epoch in epochs)
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.K, b.K)
        assert torch.equal(a.T_stereo, b.T_stereo)
        for x, y in zip(images(a), images(b), strict=True):
            if x.numel():
                # One level as decoded, one more in the levels below; jitter, whose rounding sees another mean colour, may add another.
                assert (x.int() - y.int()).abs().max() <= 3
                assert (x.int() - y.int()).abs().float().mean() < 0.06


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_epoch_can_be_left_and_taken_up_anywhere(tree, backend) -> None:
    with make(tree, loader=backend) as loader:
        whole = list(loader.epoch(3))
        left = loader.epoch(1)
        next(left)
        rest = list(loader.epoch(3, start_step=2))
        assert len(rest) == len(whole) - 2
        assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))
        assert list(loader.epoch(3, start_step=len(whole))) == []
    with make(tree, loader=backend, num_workers=1) as other:
        assert same(next(other.epoch(3, start_step=1)), whole[1])
        assert not same(next(other.epoch(4, start_step=1)), whole[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kept_batch_is_not_overwritten(tree, backend) -> None:
    with make(tree, loader=backend) as loader:
        kept = [(batch, [image.clone() for image in images(batch)]) for epoch in range(3) for batch in loader.epoch(epoch)]
    assert all(torch.equal(a, b) for batch, copies in kept for a, b in zip(images(batch), copies, strict=True))


def test_ranks_share_the_batches_of_one_process(tree) -> None:
    alone = list(make(tree, batch_size=4).epoch(1))
    ranks = [list(make(tree, batch_size=2, ranks=(rank, 2)).epoch(1)) for rank in range(2)]
    for batch, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        for x, *shares in zip(images(batch), *(images(part) for part in parts), strict=True):
            assert torch.equal(x, torch.cat(shares))


def test_what_other_ranks_had_is_left_out_when_an_epoch_goes_on(tree) -> None:
    whole = list(make(tree, batch_size=2).epoch(1))
    # Three ranks of two samples took one step; two ranks take what is left.
    ranks = [list(make(tree, batch_size=2, ranks=(rank, 2)).epoch(1, samples_done=6)) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [2, 2]
    assert all(same(*pair) for pair in zip(whole[3:7], [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]], strict=True))
    assert same(next(make(tree, batch_size=2, ranks=(1, 2)).epoch(1, 1, samples_done=6)), whole[6])


def test_outside_training_whole_batches_go_round_the_ranks(tree) -> None:
    alone = list(make(tree, training=False, batch_size=5).epoch(0))
    assert [len(batch.indices) for batch in alone] == [5, 5, 5, 1]
    for world in (2, 3, 6):
        for rank in range(world):
            with make(tree, training=False, batch_size=5, ranks=(rank, world)) as loader:
                batches = list(loader.epoch(0))
            assert len(batches) == loader.steps_per_epoch
            assert all(same(*pair) for pair in zip(batches, alone[rank::world], strict=True))


def test_all_frames_of_a_sample_share_flip_and_jitter(tree) -> None:
    # The target as its own source: whatever is drawn must come out alike.
    with make(tree, batch_size=16) as loader:
        loader.rows = loader.rows[:, [0, 0, 0]]
        batch = next(loader.epoch(0))
    assert torch.equal(batch.sources[0][:, 0], batch.target[0])
    assert torch.equal(batch.source_inputs[:, 1], batch.target_input)
    jittered = [draw(0, 0, int(i), training=True).jitter for i in batch.indices]
    changed = [not torch.equal(a, b) for a, b in zip(batch.target_input, batch.target[0], strict=True)]
    assert changed == jittered
    assert {True, False} == set(jittered)


@pytest.mark.parametrize("backend", BACKENDS)
def test_flips_mirror_images_K_and_T_stereo(tree, backend) -> None:
    with make(tree, loader=backend, use_stereo=True, batch_size=16) as loader:
        loader.dataset.K = lambda ref, height, width: np.array([[50, 0, 40], [0, 60, 30], [0, 0, 1]], np.float32)
        batch = next(loader.epoch(0))
        still = make(tree, loader=backend, use_stereo=True, training=False, batch_size=16)
        recorded = next(still.epoch(0))
    flips = [draw(0, 0, int(i), training=True).flip for i in batch.indices]
    assert {True, False} == set(flips)
    for row, flip in enumerate(flips):
        source = int(batch.indices[row])
        assert batch.K[row].tolist() == [[50, 0, 96 - 1 - 40 if flip else 40], [0, 60, 30], [0, 0, 1]]
        side = 1 if loader.refs[source].side == "r" else -1
        expected = np.eye(4)
        expected[0, 3] = side * (-0.1 if flip else 0.1)
        assert batch.T_stereo[row].numpy() == pytest.approx(expected)
        for level, still_level in zip((*batch.target, *batch.sources), (*recorded.target, *recorded.sources), strict=True):
            image = still_level[source].flip(-1) if flip else still_level[source]
            assert (level[row].int() - image.int()).abs().max() <= (0 if level.shape[-1] == 96 else 2)


def test_K_is_the_published_one_in_pixels(tree) -> None:
    batch = next(make(tree).epoch(0))
    assert batch.K[0].numpy() == pytest.approx(np.array([[0.58 * 96, 0, 48], [0, 1.92 * 64, 32], [0, 0, 1]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_frame_ends_the_epoch_with_its_name(kitti_tree, backend, workers) -> None:
    root = kitti_tree()
    bad = next(root.glob("*/*/image_02/data/0000000003.jpg"))
    data = bad.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    with make(root, loader=backend, num_workers=workers) as loader:
        with pytest.raises(InputError, match=r"image_02/data/0000000003\.jpg is a damaged image"):
            list(loader.epoch(0))
        bad.unlink()
        with pytest.raises(InputError, match=r"cannot read .*image_02/data/0000000003\.jpg"):
            list(loader.epoch(0))
        bad.write_bytes(data)
        assert len(list(loader.epoch(0))) == loader.steps_per_epoch


def test_the_list_must_fill_a_batch(tree) -> None:
    with pytest.raises(
        InputError,
        match=r"^the training list has 16 samples, fewer than one batch of 17 for each of 2 processes \(34\); "
        r"give a smaller --batch_size, or start fewer processes$",
    ):
        make(tree, batch_size=17, ranks=(0, 2))


def test_workers_leave_the_callers_threads_alone() -> None:
    # In processes of their own: this one's threads have long been counted.
    def printed(program: str) -> list[str]:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
        return done.stdout.split()

    alone = printed("import torch; print(torch.get_num_threads())")
    beside = printed(
        "import torch; from dataload.system.workers import Workers\n"
        "print(Workers(1).pool.submit(torch.get_num_threads).result(), torch.get_num_threads())"
    )
    assert beside == ["1", *alone]


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_gpu_the_batches_are_those_of_the_cpu(shared, backend) -> None:
    options = {"split": str(shared / "kitti" / "splits" / "kitti_mini"), "height_px": 192, "width_px": 640}
    root = shared / "kitti" / "raw_jpg"
    a, b = next(make(root, **options).epoch(0)), next(make(root, loader=backend, device="cuda", **options).epoch(0))
    for x, y in zip(images(a), images(b), strict=True):
        assert y.is_cuda
        assert (x.int() - y.cpu().int()).abs().float().mean() < 0.6
    assert torch.equal(a.K, b.K.cpu())


@needs_gpu
@pytest.mark.gpu
def test_copies_to_the_gpu_do_not_wait_for_it() -> None:
    parcel = Parcel.of({"K": torch.arange(3.0), "indices": torch.arange(5)}, pin_memory=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = parcel.to(torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert there["indices"].tolist() == list(range(5))
    assert there["K"].tolist() == [0.0, 1.0, 2.0]
