"""Frames from a store: the very pixels of their files, whatever is asked in which order, and damaged ones mended before they are used."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import images, same
from stores import (
    CPU,
    build,
    config_of,
    file_bytes_limit,
    file_in,
    flip_bit,
    frame_offset,
    is_whole,
    key_of,
    mounted,
    opened,
    read_only,
    refs_of,
    store_of,
    table_of,
)

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.loader import Loader
from dataload.pipeline.decoders import TorchDecoder
from dataload.store import build as store_build
from dataload.store import reading as frame_store
from dataload.store.file import Layout, StoreFile, StoreKey
from dataload.store.reading import DeviceFrames, FrameStore, fingerprint, fingerprints
from splits.errors import InputError

__all__ = ["mounted"]
JITTER_LEVELS = 1


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    """Two drives, one to train on and one to validate on, and two frames in common."""
    root = kitti_tree(drives=("0001", "0002"), frames=7)
    for subset, drive in (("train", "0001"), ("val", "0002")):
        path = root / "split" / f"{subset}_files.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([line for line in lines if drive in line] + lines[2:4]) + "\n")
    return root


@pytest.fixture
def config(kitti_tree: Callable[..., Path], tmp_path: Path) -> DataConfig:
    """A run of 12 frames over a tree of its own, so that its files may be changed."""
    return config_of(kitti_tree(), tmp_path / "stores")


def loader_of(config: DataConfig, store: FrameStore | DeviceFrames | None, *, subset: str = "train", **options) -> Loader:
    options = {"training": True, **options}
    return Loader(config, open_dataset(config), refs_of(config, subset), store=store, **options)


def all_same(a: Loader, b: Loader, epoch: int = 0, start_step: int = 0) -> bool:
    with a, b:
        pairs = list(zip(a.epoch(epoch, start_step), b.epoch(epoch, start_step), strict=True))
        assert pairs
        return all(same(x, y) for x, y in pairs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{"use_stereo": True, "source_levels": 2}, {"frame_ids": (0, 1, -1), "num_workers": 0}])
def test_epochs_from_any_step_are_those_without_a_store(tree, tmp_path, training, options) -> None:
    config = config_of(tree, tmp_path, **options)
    store = opened(config)
    with loader_of(config, None, training=training) as cold, loader_of(config, store, training=training) as stored:
        for epoch, start_step in [(0, 0), (3, 2), (1, 1), (0, 0)]:
            pairs = list(zip(cold.epoch(epoch, start_step), stored.epoch(epoch, start_step), strict=True))
            assert len(pairs) == cold.steps_per_epoch - start_step > 0
            assert all(same(a, b) for a, b in pairs)
    reseeded = config_of(tree, tmp_path, seed=1, **options)
    assert all_same(loader_of(reseeded, None, training=training), loader_of(reseeded, store, training=training))


def test_one_store_serves_the_loaders_of_both_lists(tree, tmp_path) -> None:
    config = config_of(tree, tmp_path)
    store = opened(config, subsets=("train", "val"))
    # 7 frames of 2 cameras of 2 drives; those in common are there once.
    assert len(store.table) == len(set(store.table.names)) == 28
    with (
        loader_of(config, None, subset="train") as cold_train,
        loader_of(config, store, subset="train") as train,
        loader_of(config, None, subset="val", training=False) as cold_val,
        loader_of(config, store, subset="val", training=False) as val,
    ):
        # Both at once, as in a training loop.
        for a, b, c, d in zip(cold_train.epoch(1), train.epoch(1), cold_val.epoch(0), val.epoch(0), strict=False):
            assert same(a, b)
            assert same(c, d)
            assert not torch.equal(b.target[0][0], d.target[0][0])


@pytest.mark.parametrize("training", [True, False])
def test_ranks_share_one_store(tree, tmp_path, training) -> None:
    config = config_of(tree, tmp_path, batch_size=2)
    store = opened(config)
    for rank in range(2):
        ranks = {"training": training, "rank": rank, "world": 2}
        assert all_same(loader_of(config, None, **ranks), loader_of(config, opened(config), **ranks), epoch=2)
    first, second = (next(loader_of(config, store, rank=rank, world=2).epoch(0)) for rank in range(2))
    assert not set(first.indices.tolist()) & set(second.indices.tolist())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"use_stereo": True, "source_levels": 3}, {"frame_ids": (0,), "num_workers": 0}])
def test_frames_in_a_devices_memory_make_the_same_batches(tree, tmp_path, training, options, monkeypatch) -> None:
    monkeypatch.setattr(frame_store, "FRAMES_PER_COPY", 5)  # not a divisor of their number
    config = config_of(tree, tmp_path, **options)
    kept = DeviceFrames(opened(config, subsets=("train", "val")), CPU)
    assert kept.frames.shape == (len(kept.table), 64, 96, 3)
    with loader_of(config, None, training=training) as cold, loader_of(config, kept, training=training) as loader:
        for a, b in [pair for epoch in (0, 1) for pair in zip(cold.epoch(epoch), loader.epoch(epoch), strict=True)]:
            assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("K", "T_stereo", "indices"))
            assert all(torch.equal(x, y) for x, y in zip([*a.target, *a.sources], [*b.target, *b.sources], strict=True))
            for x, y in [(a.target_input, b.target_input), (a.source_inputs, b.source_inputs)]:
                assert x.shape == y.shape
                if x.numel():
                    assert (x.int() - y.int()).abs().max() <= (JITTER_LEVELS if training else 0)


def test_a_loader_reads_no_file_but_the_stores(config) -> None:
    store = opened(config)
    expected = [images(batch) for batch in loader_of(config, None).epoch(0)]
    for path in config.data_path.rglob("*.jpg"):
        path.unlink()
    with loader_of(config, store) as loader:
        for batch, wanted in zip(loader.epoch(0), expected, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(images(batch), wanted, strict=True))


def damage(path: Path, rows: range) -> None:
    for row in rows:
        flip_bit(path, frame_offset(path, row) + 777 * row, row % 8)


@pytest.mark.parametrize("rows", [range(3, 4), range(12)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_frame_is_mended_before_it_is_used(config, caplog, rows, workers) -> None:
    store = opened(config)
    path = store.file.path
    whole = path.read_bytes()
    damage(path, rows)
    assert path.read_bytes() != whole
    options = config_of(config.data_path, config.frame_store_dir, num_workers=workers)
    assert all_same(loader_of(options, None, training=False), loader_of(options, store, training=False))
    names = {store.table.names[row] for row in rows}
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    messages = {f"Frame store  the frame of {config.data_path / name} in {path} was damaged; decoded again" for name in names}
    # Three of them are named, the third with a word on the others.
    assert len(set(warned)) == min(len(names), 3)
    assert {text.removesuffix("; no others are named") for text in warned} <= messages
    assert any(text.endswith("; no others are named") for text in warned) == (len(names) >= 3)
    assert path.read_bytes() == whole
    caplog.clear()
    assert all_same(loader_of(options, None), loader_of(options, store))
    assert not caplog.records


def test_a_damaged_checksum_is_mended_too(config, caplog) -> None:
    build(config)[0].close()
    path = file_in(config.frame_store_dir)
    whole = path.read_bytes()
    flip_bit(path, Layout.of(key_of(config), len(key_of(config).to_json())).records + 5 * 24 + 16, 7)
    assert all_same(loader_of(config, None, training=False), loader_of(config, opened(config), training=False))
    assert "was damaged; decoded again" in caplog.text
    assert path.read_bytes() == whole


def test_what_goes_to_a_device_is_mended_first(config) -> None:
    store = opened(config)
    expected = DeviceFrames(store, CPU).frames
    damage(store.file.path, range(2, 5))
    assert torch.equal(DeviceFrames(store, CPU).frames, expected)
    assert is_whole(store.file.path, config)


def test_in_a_store_that_cannot_be_written_it_is_mended_in_memory_alone(tree, mounted, monkeypatch, caplog) -> None:
    disk = mounted(2**21)
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 0)
    config = config_of(tree, disk)
    table, whole = table_of(config), store_of(config)
    whole.close()
    damage(whole.file.path, range(1, 2))
    damaged = whole.file.path.read_bytes()
    read_only(disk)
    store = FrameStore(StoreFile(whole.file.path), table, TorchDecoder(config).frame)
    assert all_same(loader_of(config, None, training=False), loader_of(config, store, training=False))
    assert f"the frame of {table.path(1)} in {whole.file.path} was damaged; decoded again" in caplog.text
    assert whole.file.path.read_bytes() == damaged


def test_a_store_that_was_removed_goes_on_and_is_mended_in_memory_alone(config) -> None:
    store = opened(config)
    damage(store.file.path, range(1, 2))
    store.file.path.unlink()
    assert all_same(loader_of(config, None), loader_of(config, store))
    assert not store.file.path.exists()


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_damaged_frame_of_another_source_is_an_error_with_the_remedy(config, what) -> None:
    store = opened(config)
    source, path = store.table.path(4), store.file.path
    data = source.read_bytes()
    damage(path, range(4, 5))
    source.unlink()
    if what == "changed":
        source.write_bytes(data + b"\0")
    wanted = rf"^the frame of {source} in {path} is damaged, and its source has changed since; start again to repair it$"
    with loader_of(config, store, training=False) as loader, pytest.raises(InputError, match=wanted):
        list(loader.epoch(0))
    if what == "gone":
        with pytest.raises(InputError, match=rf"cannot read {source} \(No such file or directory\); restore the file"):
            opened(config)
        source.write_bytes(data)
    assert all_same(loader_of(config, None), loader_of(config, opened(config)))
    assert is_whole(path, config)


def test_where_the_disk_takes_nothing_it_is_mended_in_memory_alone(config) -> None:
    store = opened(config)
    frame, expected = np.empty((64, 96, 3), np.uint8), np.empty((64, 96, 3), np.uint8)
    store.read(4, expected)
    damage(store.file.path, range(4, 5))
    with file_bytes_limit(1000):
        store.read(4, frame)
    assert np.array_equal(frame, expected)


def test_a_store_that_is_cut_off_while_in_use_is_an_error_with_the_remedy_or_goes_on(config) -> None:
    store = opened(config)
    os.truncate(store.file.path, frame_offset(store.file.path, 6))
    try:
        assert all_same(loader_of(config, None), loader_of(config, store))
    except InputError as error:
        assert str(store.file.path) in str(error)  # noqa: PT017


def test_a_store_that_another_process_makes_anew_stays_as_it_was_opened(config) -> None:
    store = opened(config)
    before = np.empty((64, 96, 3), np.uint8)
    store.read(0, before)
    source = store.table.path(0)
    source.write_bytes(store.table.path(5).read_bytes())
    opened(config).close()
    assert is_whole(store.file.path, config)
    after = np.empty((64, 96, 3), np.uint8)
    store.read(0, after)
    assert np.array_equal(before, after)


def test_fingerprints_tell_size_and_time(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(5, 1_234_567_890_123_456_789))
    key = StoreKey("kitti", str(tmp_path), (64, 96), "torch", ["a", "b"])
    assert fingerprints(key).tolist() == [[3, 1_234_567_890_123_456_789], [0, 0]]
    assert fingerprints(key._replace(names=[])).shape == (0, 2)
    assert fingerprint(tmp_path / "a" / "c") == (0, 0)


def test_what_the_disk_does_not_give_is_decoded_anew(config, caplog) -> None:
    store = opened(config)
    expected, frame = np.empty((64, 96, 3), np.uint8), np.empty((64, 96, 3), np.uint8)
    store.read(4, expected)
    # A descriptor that may not be read from stands for a disk that cannot be.
    descriptor = os.open(store.file.path, os.O_WRONLY)
    os.dup2(descriptor, store.file._fd)
    os.close(descriptor)
    store.read(4, frame)
    assert np.array_equal(frame, expected)
    assert store.table.names[4] in caplog.text
