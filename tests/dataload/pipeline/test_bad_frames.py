"""Frames that cannot be read: a run stops at the first, or skips a few, whose samples others replace, alike for all loaders."""

import logging
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from batches import BACKENDS, same
from kitti_tree import drive_folder

from dataload.batch import Batch
from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.frames.bad_frames import BadFrames, TooManyBadFrames
from dataload.loader import Loader
from dataload.pipeline.decoders import decoder_of
from dataload.pipeline.order import replacements
from dataload.store.choice import open_store
from dataload.store.reading import DeviceFrames, FrameStore
from splits.errors import InputError

CPU = torch.device("cpu")
SEED = 7


def frame(root: Path, number: int, drive: str = "0001") -> Path:
    return root / drive_folder(drive) / "image_02" / "data" / f"{number:010d}.jpg"


def damage(path: Path) -> None:
    """Cut a JPEG off in its middle; its header stays as it was."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def tree(kitti_tree, tmp_path) -> Path:
    """Two drives, 16 samples per camera; the fourth frame of the first drive's left camera is damaged."""
    root = shutil.copytree(kitti_tree(drives=("0001", "0002"), frames=6), tmp_path / "kitti")
    damage(frame(root, 3))
    return root


def config_of(root: Path, **options) -> DataConfig:
    fixed = {"data_path": root, "split": str(root / "split"), "height_px": 64, "width_px": 96, "batch_size": 3, "num_workers": 2}
    return DataConfig(**{**fixed, "seed": SEED, "bad_frames": "skip", "loader": "torch", **options})


def loader_of(config: DataConfig, *, training: bool = True, ranks: tuple[int, int] = (0, 1), store=None, bad=None) -> Loader:
    dataset = open_dataset(config)
    refs = dataset.read(config.split, "train")
    return Loader(config, dataset, refs, training=training, rank=ranks[0], world=ranks[1], store=store, bad=bad)


def store_of(config: DataConfig, folder: Path, bad: BadFrames | None) -> FrameStore | DeviceFrames:
    config = config_of(config.data_path, frame_store="disk", frame_store_dir=folder, loader=config.loader, bad_frames=config.bad_frames)
    dataset = open_dataset(config)
    refs = dataset.read(config.split, "train")
    store = open_store(config, dataset, refs, decoder=decoder_of(config, CPU), device=CPU, frames_to_load=10**9, bad=bad)
    assert store is not None
    return store


def bad_samples(loader: Loader, number: int = 3) -> set[int]:
    """Positions in the list of the samples that use a frame of the first drive's left camera."""
    return {
        index for index, ref in enumerate(loader.refs)
        if ref.folder == drive_folder("0001") and loader.dataset.side(ref) == "l" and abs(ref.frame_index - number) <= 1
    }  # fmt: skip


def expected_order(loader: Loader, epoch: int, bad: set[int] | None = None) -> list[int]:
    """The epoch's samples, each that is bad (by default uses the damaged frame) replaced by the first of its replacements that is not."""
    bad = bad_samples(loader) if bad is None else bad
    order = [int(index) for batch in loader._order(epoch) for index in batch]
    return [
        index if index not in bad else next(j for j in replacements(SEED, epoch, index, len(loader.refs)) if j not in bad)
        for index in order
    ]  # fmt: skip


def indices(batches) -> list[int]:
    return [int(index) for batch in batches for index in batch.indices]


def nearly(a: Batch, b: Batch) -> bool:
    """Whether two batches are the same but for the rounding of jittered pixels, which the CPU's way and the GPU's may do differently."""
    return all(
        (x.double() - y.double()).abs().max() <= (1 if place in (len(a.tensors()) - 5, len(a.tensors()) - 4) else 0)
        for place, (x, y) in enumerate(zip(a.tensors(), b.tensors(), strict=True))
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_samples_of_a_bad_frame_are_replaced_by_others_of_the_same_epoch(tree, backend, training) -> None:
    with loader_of(config_of(tree, loader=backend), training=training) as loader:
        assert loader.backend == backend
        for epoch in (0, 1):
            batches = list(loader.epoch(epoch))
            assert indices(batches) == expected_order(loader, epoch)
            sizes = {len(batch.K) for batch in batches}
            assert sizes == ({3} if training else {3, 1})
        assert len(bad_samples(loader)) == 3
        assert loader.replaced == bad_samples(loader) & {int(i) for epoch in (0, 1) for b in loader._order(epoch) for i in b}
        assert len(loader.bad.lines()) == 1
        assert str(frame(tree, 3)) in loader.bad.lines()[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_the_first_replacement_is_damaged_too_the_next_takes_its_place(tree, backend) -> None:
    frame(tree, 3).unlink()  # found before anything is decoded; that the other is damaged is found by decoding it
    with loader_of(config_of(tree, loader=backend)) as loader:
        gone, order = bad_samples(loader), [int(index) for batch in loader._order(0) for index in batch]
        firsts = {index: next(replacements(SEED, 0, index, len(loader.refs))) for index in order if index in gone}
        other = loader.refs[next(first for first in firsts.values() if first not in gone)]
        damage(loader.dataset.image_path(other))
        bad = gone | {
            index for index, ref in enumerate(loader.refs)
            if (ref.folder, ref.side) == (other.folder, other.side) and abs(ref.frame_index - other.frame_index) <= 1
        }  # fmt: skip
        assert indices(loader.epoch(0)) == expected_order(loader, 0, bad)
        assert loader.replaced == bad & set(order)


def test_a_replaced_sample_is_the_other_one_in_all_that_a_batch_holds(tree) -> None:
    with loader_of(config_of(tree)) as loader, loader_of(config_of(tree)) as plain:
        by_index = {}
        for batch in loader.epoch(0):
            for row, index in enumerate(batch.indices.tolist()):
                sample = [tensor[row] for tensor in batch.tensors()]
                kept = by_index.setdefault(index, sample)
                assert all(torch.equal(a, b) for a, b in zip(kept, sample, strict=True))
        assert by_index
        assert sorted(indices(plain.epoch(0))) != sorted(by_index)  # some stand there twice


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_source_makes_the_same_batches(tree, tmp_path, backend) -> None:
    config = config_of(tree, loader=backend)
    bad = BadFrames(100)
    store = store_of(config, tmp_path / "stores", bad)
    assert len(bad.lines()) == 1
    on_device = DeviceFrames(store, CPU, bad)
    with (
        loader_of(config) as files,
        loader_of(config, store=store, bad=bad) as stored,
        loader_of(config, store=on_device, bad=bad) as kept,
    ):
        expected = list(files.epoch(0))
        assert indices(expected) == expected_order(files, 0)
        assert all(same(a, b) for a, b in zip(expected, stored.epoch(0), strict=True))
        assert all(nearly(a, b) for a, b in zip(expected, kept.epoch(0), strict=True))
        # The way that batches for a GPU go, here on the CPU.
        for loader in (files, stored):
            plans = (loader._plan(0, index) for index in loader._order(0))
            assert all(nearly(a, b) for a, b in zip(expected, loader._maker._on_device(plans), strict=True))


def test_any_number_of_processes_replaces_the_same_samples_by_the_same(tree) -> None:
    with (
        loader_of(config_of(tree, batch_size=4)) as alone,
        loader_of(config_of(tree, batch_size=2), ranks=(0, 2)) as first,
        loader_of(config_of(tree, batch_size=2), ranks=(1, 2)) as second,
    ):
        together = [[*a.indices.tolist(), *b.indices.tolist()] for a, b in zip(first.epoch(1), second.epoch(1), strict=True)]
        assert together == [batch.indices.tolist() for batch in alone.epoch(1)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_that_is_damaged_or_gone_in_mid_epoch_is_replaced_too(tree, backend) -> None:
    with loader_of(config_of(tree, loader=backend, batch_size=2, num_workers=1)) as loader:
        batches = loader.epoch(0)
        next(batches)
        frame(tree, 2, "0002").unlink()
        damage(frame(tree, 4, "0002"))
        rest = list(batches)
        assert [len(batch.K) for batch in rest] == [2] * (loader.steps_per_epoch - 1)
        list(loader.epoch(1))  # all that is left of the old frames is what was read ahead
        assert len(loader.bad.lines()) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_default_the_first_bad_frame_stops(tree, backend) -> None:
    assert DataConfig(data_path=tree).bad_frames == "stop"
    with loader_of(config_of(tree, loader=backend, bad_frames="stop")) as loader:
        assert loader.bad is None
        with pytest.raises(InputError, match=f"{frame(tree, 3)} is a damaged image"):
            list(loader.epoch(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_that_is_gone_is_no_bad_frame(tree, backend) -> None:
    with loader_of(config_of(tree, loader=backend)) as loader:
        for drive in ("0001", "0002"):
            shutil.rmtree(tree / drive_folder(drive))
        with pytest.raises(TooManyBadFrames, match="11 frames cannot be read, and --bad_frames skip skips 10 at most: is their disk"):
            list(loader.epoch(0))


def test_the_bound_grows_with_the_lists() -> None:
    assert BadFrames(20).most == BadFrames(1000).most == 10
    assert BadFrames(39810).most == 398


def test_a_few_are_named_in_the_log_and_none_is_tried_twice(tmp_path, caplog) -> None:
    bad, tried = BadFrames(1000), []

    def unreadable(path: Path) -> None:
        tried.append(path)
        raise InputError(f"{path} is a damaged image")

    with caplog.at_level(logging.WARNING, "md"):
        for number in [*range(6), *range(6)]:
            assert not bad.reads(tmp_path / str(number), lambda number=number: unreadable(tmp_path / str(number)))
    assert len(tried) == len(bad.lines()) == 6
    assert [record.getMessage().count("skipped") for record in caplog.records] == [1, 1, 1]
    assert "further ones are not named here" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_without_a_bad_frame_is_used_again_but_not_where_bad_frames_stop(tree, tmp_path, backend) -> None:
    folder, config = tmp_path / "stores", config_of(tree, loader=backend)
    store_of(config, folder, BadFrames(100)).close()
    (file,) = folder.glob("*.frames")
    made = file.stat().st_mtime_ns, file.stat().st_ino
    bad = BadFrames(100)
    store_of(config, folder, bad).close()
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == made
    assert len(bad.lines()) == 1
    with pytest.raises(InputError, match=f"{frame(tree, 3)} is a damaged image"):
        store_of(config_of(tree, loader=backend, bad_frames="stop"), folder, None)
    # Mended, it comes into the store.
    shutil.copy(frame(tree, 2), frame(tree, 3))
    bad = BadFrames(100)
    with loader_of(config, store=store_of(config, folder, bad), bad=bad) as loader:
        assert sorted(indices(loader.epoch(0))) == sorted(int(i) for batch in loader._order(0) for i in batch)
    assert not bad.lines()


def test_replacements_depend_on_seed_epoch_and_sample_alone() -> None:
    def first(*key: int) -> list[int]:
        return list(islice(replacements(*key, 1000), 5))

    assert first(0, 1, 2) == first(0, 1, 2)
    assert len({tuple(first(*key)) for key in ((0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3))}) == 4


def test_a_camera_that_is_no_number_is_named(tree) -> None:
    with loader_of(config_of(tree)) as loader:
        real = loader.dataset.K
        loader.dataset.K = lambda ref, *size: real(ref, *size) * float("nan")
        with pytest.raises(InputError, match=r"the camera of '.* holds NaN or infinite numbers; correct the calibration"):
            next(loader.epoch(0))
