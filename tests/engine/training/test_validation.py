"""Validation waits for no batch, and scores those images of its list that have ground truth."""

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import make_engine
from kitti_tree import drive_folder
from meta_copies import META, record_copies

from dataload.batch import Batch
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.loader import Loader
from dataload.training_data import TrainingData
from engine.evaluation.metrics import METRICS
from engine.interrupt import Stop, Stopped
from engine.training import validation
from engine.training.build import Engine, build_engine
from engine.training.config import TrainConfig
from engine.training.validation import Validated, Validation
from engine.training.without_data import on_meta

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(kitti_tree: Callable[..., Path]) -> TrainConfig:
    """Of a validation list of eight, in batches of three."""
    tree = kitti_tree(frames=6)
    options = {"height": 64, "width": 96, "batch_size": 3, "num_workers": 0, "weights_init": "scratch", "amp": "off", "loader": "torch"}
    return TrainConfig.from_options(data_path=tree, split=str(tree / "split"), model_name="unused", no_cuda=True, **options)


@pytest.fixture(scope="module")
def engine(config: TrainConfig) -> Engine:
    return build_engine(config, CPU, metric_factor=1.0)


@pytest.fixture
def data(config: TrainConfig) -> TrainingData:
    return TrainingData(config.data)


def validate(config: TrainConfig, engine: Engine, dataset: Dataset, refs: list[FrameRef]) -> Validated:
    validation = Validation(config, dataset, refs)
    with Loader(config.data, dataset, refs, training=False) as loader:
        return validation.run(engine, loader)


def test_images_without_truth_between_others_count_in_the_losses_alone(config, engine, data, monkeypatch) -> None:
    refs, dataset = list(data.val_refs), data.dataset
    bare = {1, 2, 3, 6}
    alone = validate(config, engine, dataset, [ref for number, ref in enumerate(refs) if number not in bare])
    whole = validate(config, engine, dataset, refs)
    depth_source = dataset.depth_source
    monkeypatch.setattr(dataset, "depth_source", lambda ref: None if refs.index(ref) in bare else depth_source(ref))
    found = validate(config, engine, dataset, refs)
    assert found.errors == pytest.approx(alone.errors, rel=1e-5)
    assert found.errors != pytest.approx(whole.errors, rel=1e-3)
    assert found.losses == pytest.approx(whole.losses, rel=1e-6)


def test_losses_are_means_over_the_list_whatever_the_last_batch(config, engine, data) -> None:
    engine.step.eval()
    with Loader(config.data, data.dataset, data.val_refs, training=False) as loader, torch.no_grad():
        batches = list(loader.epoch(0))
        expected = sum(float(engine.step(batch.samples(slice(row, row + 1))).loss) for batch in batches for row in range(len(batch.K)))
    assert [len(batch.K) for batch in batches] == [3, 3, 2]
    found = validate(config, engine, data.dataset, list(data.val_refs))
    assert found.losses["loss"] == pytest.approx(expected / 8, rel=1e-4)


def test_pictures_are_of_the_first_batch(config, engine, data) -> None:
    with Loader(config.data, data.dataset, data.val_refs, training=False) as loader:
        first = next(loader.epoch(0)).target[0].movedim(1, -1).numpy().copy()
    found = validate(config, engine, data.dataset, list(data.val_refs)).snapshot
    shown = dict(found.images())
    assert len(first) == 3
    for number, image in enumerate(first):
        np.testing.assert_array_equal(shown[f"color_0_0/{number}"], image)
    assert "color_0_0/3" not in shown
    assert found.scalars() == {}


def test_images_that_cannot_be_read_count_in_the_losses_alone(config, engine, tmp_path) -> None:
    """``--bad_frames skip``: others take their place, whose depth is not compared with the truth of these."""
    tree = shutil.copytree(config.data.data_path, tmp_path / "kitti")
    config = replace(config, data=replace(config.data, data_path=tree, split=str(tree / "split"), bad_frames="skip"))
    data = TrainingData(config.data)
    refs, whole = list(data.val_refs), validate(config, engine, data.dataset, list(data.val_refs))
    damaged = tree / drive_folder("0001") / "image_03" / "data" / "0000000001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:900])
    readable = [ref for ref in refs if (ref.side, ref.frame_index) not in {("r", 1), ("r", 2)}]  # both are made with this frame
    assert len(readable) == len(refs) - 2
    alone, found = validate(config, engine, data.dataset, readable), validate(config, engine, data.dataset, refs)
    assert found.errors == pytest.approx(alone.errors, rel=1e-5)
    assert found.errors != pytest.approx(whole.errors, rel=1e-3)
    assert found.losses != pytest.approx(alone.losses, rel=1e-6)


def test_a_request_to_stop_leaves_it_at_the_next_batch(config, engine, data) -> None:
    stop, loaded = Stop(), 0

    class AskingLoader(Loader):
        def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
            nonlocal loaded
            for batch in super().epoch(epoch, start_step):
                yield batch
                loaded += 1
                stop.number = signal.SIGTERM

    judge = Validation(config, data.dataset, data.val_refs)
    with AskingLoader(config.data, data.dataset, data.val_refs, training=False) as loader, pytest.raises(Stopped):
        judge.run(engine, loader, stop)
    assert loaded == 1


def test_no_batch_is_waited_for(config, data, monkeypatch) -> None:
    happened: list[str] = []
    record_copies(monkeypatch, happened)
    monkeypatch.setattr(validation, "read_scalars", lambda values: happened.append("losses") or dict.fromkeys(values, 1.0))

    class MetaLoader(Loader):
        def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
            for batch in super().epoch(epoch, start_step):
                happened.append("batch")
                yield batch.with_tensors([tensor.to(META) for tensor in batch.tensors()])

    judge = Validation(config, data.dataset, data.val_refs)
    engine = make_engine(device=META, frame_ids=config.data.frame_ids)
    with on_meta(), MetaLoader(config.data, data.dataset, data.val_refs, training=False) as loader:
        found = judge.run(engine, loader)
    pictures, losses = ["copy"], ["losses"]
    assert happened == ["batch", *pictures, "copy", "batch", "copy", "read", "batch", "copy", "read", "read", *losses]
    assert found.errors.keys() == set(METRICS)
