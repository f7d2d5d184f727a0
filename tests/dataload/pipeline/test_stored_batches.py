"""Batches of stored frames are those of the files, by every backend, and a backend's store is made by it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batches import BACKENDS, HAS_DALI, count_builds, images, same

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.loader import Loader
from dataload.pipeline.decoders import decoder_of
from dataload.store.choice import open_store
from dataload.store.reading import DeviceFrames, FrameStore
from splits.errors import InputError

SMALL = {"height_px": 64, "width_px": 96, "batch_size": 3, "num_workers": 2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def tree(kitti_tree) -> Path:
    return kitti_tree(drives=("0001", "0002"), frames=6)


def parts(root: Path, folder: Path, device: str = "cpu", **options):
    """What a loader is made of: config, dataset, lines, and a store in ``folder``."""
    config = DataConfig(
        **{"data_path": root, "split": str(root / "split"), "frame_store": "disk", "frame_store_dir": folder, **SMALL, **options}
    )
    dataset = open_dataset(config)
    refs = dataset.read(config.split, "train")
    there = torch.device(device)
    store = open_store(config, dataset, refs, decoder=decoder_of(config, there), device=there, frames_to_load=10**9)
    return config, dataset, refs, store


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"use_stereo": True, "source_levels": 4}, {"frame_ids": (0,)}, {"num_workers": 0}])
def test_batches_are_the_same_with_and_without_a_store(tree, tmp_path, backend, training, options) -> None:
    config, dataset, refs, store = parts(tree, tmp_path, loader=backend, **options)
    with (
        Loader(config, dataset, refs, training=training) as cold,
        Loader(config, dataset, refs, training=training, store=store) as stored,
    ):
        for epoch, start in ((0, 0), (1, 2)):
            batches = list(zip(cold.epoch(epoch, start), stored.epoch(epoch, start), strict=True))
            assert len(batches) == cold.steps_per_epoch - start
            assert all(same(a, b) for a, b in batches)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_real_frames_too(shared, tmp_path, backend) -> None:
    kitti = shared / "kitti"
    config, dataset, refs, store = parts(
        kitti / "raw_jpg", tmp_path, split=str(kitti / "splits" / "kitti_mini"), height_px=192, width_px=640, batch_size=8, loader=backend
    )
    with Loader(config, dataset, refs, training=True) as cold, Loader(config, dataset, refs, training=True, store=store) as stored:
        for _, (a, b) in zip(range(4), zip(cold.epoch(2), stored.epoch(2), strict=True), strict=False):
            assert same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_epoch_left_early_leaves_nothing_behind(tree, tmp_path, backend) -> None:
    config, dataset, refs, store = parts(tree, tmp_path, loader=backend)
    with Loader(config, dataset, refs, training=True, store=store) as loader:
        whole = list(loader.epoch(1))
        next(loader.epoch(0))
        again = list(loader.epoch(1))
        kept = [image.clone() for image in images(whole[0])]
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(images(whole[0]), kept, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backends_store_is_its_own(tree, tmp_path, backend) -> None:
    _, _, _, store = parts(tree, tmp_path, loader=backend)
    assert isinstance(store, FrameStore)
    assert store.file.key.made_by.startswith("dali") == (backend == "dali")
    assert [path.name for path in tmp_path.glob("*.frames")] == [store.file.path.name]
    assert store.file.path.name == store.file.key.file_name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_frame_is_mended_by_the_backend_that_made_it(tree, tmp_path, backend, caplog) -> None:
    config, dataset, refs, store = parts(tree, tmp_path, loader=backend)
    sound = store.file.path.read_bytes()
    store.file.path.write_bytes(sound[:-5] + bytes([sound[-5] ^ 1]) + sound[-4:])
    frame = np.empty((64, 96, 3), np.uint8)
    store.read(len(store.table) - 1, frame)
    assert store.table.names[-1] in caplog.text
    assert store.file.path.read_bytes() == sound
    with Loader(config, dataset, refs, training=True) as cold, Loader(config, dataset, refs, training=True, store=store) as stored:
        assert all(same(a, b) for a, b in zip(cold.epoch(0), stored.epoch(0), strict=True))


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_dali_mends_all_damaged_frames_by_one_pipeline_and_makes_batches_of_a_store_by_none(tree, tmp_path, monkeypatch) -> None:
    config, dataset, refs, store = parts(tree, tmp_path, loader="dali")
    builds = count_builds(monkeypatch)
    with Loader(config, dataset, refs, training=True, store=store) as loader:
        sound = list(loader.epoch(0))
        assert builds == []
        data = bytearray(store.file.path.read_bytes())
        for row in range(len(store.table)):
            data[-1 - row * 64 * 96 * 3] ^= 1
        store.file.path.write_bytes(data)
        assert all(same(a, b) for a, b in zip(loader.epoch(0), sound, strict=True))
    assert len(builds) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_source_is_named_and_what_was_made_stays(kitti_tree, tmp_path, backend) -> None:
    root = kitti_tree(drives=("0001", "0002", "0003", "0004"), frames=6)
    bad = sorted(root.glob("*/*/image_03/data/0000000003.jpg"))[-1]
    data = bad.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"image_03/data/0000000003\.jpg is a damaged image"):
        parts(root, tmp_path, loader=backend)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == [".partial"]
    bad.write_bytes(data)
    _, _, _, store = parts(root, tmp_path, loader=backend)
    assert store.file.records["bytes"].all()


def test_frames_in_the_gpus_memory_make_the_same_batches(tree, tmp_path) -> None:
    # On the CPU here, where jitter may round otherwise than the workers' does.
    config, dataset, refs, store = parts(tree, tmp_path, loader="torch", use_stereo=True)
    frames = DeviceFrames(store, torch.device("cpu"))
    store.close()
    with Loader(config, dataset, refs, training=True) as cold, Loader(config, dataset, refs, training=True, store=frames) as stored:
        for a, b in zip(cold.epoch(0), stored.epoch(0), strict=True):
            assert all(torch.equal(x, y) for x, y in zip([*a.target, *a.sources, *a[-3:]], [*b.target, *b.sources, *b[-3:]], strict=True))
            assert (a.target_input.int() - b.target_input.int()).abs().max() <= 1
            assert (a.source_inputs.int() - b.source_inputs.int()).abs().max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
def test_the_way_that_batches_for_a_gpu_go_makes_the_same(tree, tmp_path, backend, training) -> None:
    # On the CPU here, where jitter may round otherwise than the workers' does.
    config, dataset, refs, store = parts(tree, tmp_path, loader=backend, use_stereo=True)
    for source in (None, store):
        with Loader(config, dataset, refs, training=training, store=source) as loader:
            on_workers = list(loader.epoch(1))
            plans = [loader._plan(1, index) for index in loader._order(1)]
            on_device = list(loader._maker._on_device(iter(plans)))
        assert len(on_device) == len(on_workers) == loader.steps_per_epoch
        for a, b in zip(on_device, on_workers, strict=True):
            assert all(torch.equal(x, y) for x, y in zip([*a.target, *a.sources, *a[-3:]], [*b.target, *b.sources, *b[-3:]], strict=True))
            assert (a.target_input.int() - b.target_input.int()).abs().max() <= 1
            assert (a.source_inputs.int() - b.source_inputs.int()).abs().max() <= 1


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
def test_on_a_gpu_too_from_the_disk_and_from_its_memory(kitti_tree, tmp_path, backend, training) -> None:
    # Of KITTI's size, as small frames are decoded on another way.
    tree = kitti_tree(drives=("0001", "0002"), frames=6, size_px=(375, 1242))
    config, dataset, refs, store = parts(tree, tmp_path, "cuda", loader=backend)
    loaders = [
        Loader(config, dataset, refs, training=training, device="cuda", store=source)
        for source in (None, store, DeviceFrames(store, torch.device("cuda")))
    ]
    for epoch in range(2):
        for batches in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            assert all(image.is_cuda for image in images(batches[0]))
            assert same(batches[0], batches[1])
            assert same(batches[0], batches[2])
    for loader in loaders:
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert sum(len(batch.indices) for batch in loader.epoch(2)) > 0
        finally:
            torch.cuda.set_sync_debug_mode("default")
        loader.close()
