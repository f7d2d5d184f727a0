"""The log: its pictures are what TensorBoard makes of floats, and training goes on while a thread of its own writes them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import make_engine, on
from meta_copies import META, record_copies
from steps import make_batch, make_step
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import image as tensorboard_image

from dataload.batch import Batch
from engine.training.log import RunLog
from engine.training.showing import Snapshot
from engine.training.step import TrainStep
from engine.training.without_data import on_meta

NAMES = ["-1", "1"]
SAMPLES = 6


def step_and_batch(**options: object) -> tuple[TrainStep, Batch]:
    step, _ = make_step(noise=0.0, **options)
    return step.train(), make_batch(samples=SAMPLES)


def floats(step: TrainStep, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """The pictures (C,h,w) of the first four samples, one by one and in floats, as Monodepth2 hands them to TensorBoard."""
    pictures = step.pictures(batch)
    for j in range(4):
        yield from ((f"color_0_{level}/{j}", target[j]) for level, target in enumerate(batch.target))
        for s, name in enumerate(NAMES):
            yield from ((f"color_{name}_{level}/{j}", sources[j, s]) for level, sources in enumerate(batch.sources))
            yield f"color_pred_{name}_0/{j}", pictures.warped[j, s].clamp(0, 1)
        for scale, disp in pictures.disps.items():
            low, high = disp[j].min(), disp[j].max()
            yield f"disp_{scale}/{j}", (disp[j] - low) / (high - low).clamp(min=1e-7)
        yield from ((f"automask_{scale}/{j}", mask[j][None]) for scale, mask in (pictures.automask or {}).items())
        for s, name in enumerate(NAMES):
            yield from (
                (f"predictive_mask_{name}_{scale}/{j}", mask[j, s][None]) for scale, mask in (pictures.predictive_mask or {}).items()
            )


def png(image: Tensor | np.ndarray, layout: str) -> bytes:
    return tensorboard_image("", image, dataformats=layout).value[0].image.encoded_image_string


@pytest.mark.parametrize("options", [{}, {"predictive_mask": True, "automask": False, "scales": (1, 3)}], ids=str)
def test_pictures_are_what_tensorboard_makes_of_floats_one_by_one(options) -> None:
    step, batch = step_and_batch(**options)
    expected = {name: png(picture, "CHW") for name, picture in floats(step, batch)}
    shown = {name: png(picture, "HWC") for name, picture in Snapshot(step, batch, NAMES).images()}
    assert shown == expected
    assert step.networks.encoder.training


def test_a_diverged_step_still_has_pictures() -> None:
    step, batch = step_and_batch()
    with torch.no_grad():
        step.networks.depth.decoder[10].conv.bias.fill_(torch.nan)
    shown = dict(Snapshot(step, batch, NAMES).images())
    assert not shown["disp_0/0"].any()
    np.testing.assert_array_equal(shown["color_0_0/3"], batch.target[0][3].movedim(0, -1).numpy())


def test_what_happens_to_the_batch_afterwards_is_not_shown() -> None:
    step, batch = step_and_batch()
    before = dict(Snapshot(step, batch, NAMES).images())
    snapshot = Snapshot(step, batch, NAMES)
    for tensor in batch.tensors():
        tensor.zero_()
    for name, picture in snapshot.images():
        np.testing.assert_array_equal(picture, before[name])


@pytest.mark.parametrize("options", [{}, {"predictive_mask": True, "automask": False}, {"v1_multiscale": True}], ids=str)
def test_a_snapshot_is_begun_without_reading_anything(monkeypatch, options) -> None:
    happened: list[str] = []
    record_copies(monkeypatch, happened)
    step = make_engine(device=META, **options).step
    batch = make_batch(samples=SAMPLES)
    with on_meta():
        snapshot = Snapshot(step, batch.with_tensors([tensor.to(META) for tensor in batch.tensors()]), NAMES)
    assert happened == ["copy"]
    assert len(dict(snapshot.images())["disp_0/3"]) == 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_a_snapshot_is_begun_without_waiting() -> None:
    device = torch.device("cuda")
    step, batch = make_engine(device=device, noise=0.0).step, on(device, make_batch(samples=SAMPLES))
    # cuDNN searches its algorithms once, and that waits.
    expected = dict(Snapshot(step, batch, NAMES).images())
    torch.cuda.set_sync_debug_mode("error")
    try:
        snapshot = Snapshot(step, batch, NAMES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, picture in snapshot.images():
        np.testing.assert_allclose(picture.astype(int), expected[name].astype(int), atol=1)


class SlowDisk:
    """Pictures are written when ``free`` is set, not before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        add_image = SummaryWriter.add_image

        def wait(*args: object, **options: object) -> None:
            assert self.free.wait(timeout=300), "nothing went on while pictures were written"
            add_image(*args, **options)

        monkeypatch.setattr(SummaryWriter, "add_image", wait)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def take() -> Callable[[], Snapshot]:
    step, batch = step_and_batch()
    return lambda: Snapshot(step, batch, NAMES)


def test_while_pictures_are_written_lines_go_on_and_further_pictures_are_left_out(monkeypatch, tmp_path, caplog, take) -> None:
    caplog.set_level("INFO", "md")
    taken: list[str] = []
    disk = SlowDisk(monkeypatch)
    with RunLog(tmp_path, total_steps=9, done_steps=0) as log:
        for step in range(3):
            log.write("train", step, 0, {"loss": float(step)}, lambda: taken.append("train") or take())
        log.write("val", 3, 0, {"loss": 3.0}, lambda: taken.append("val") or take())
        disk.free.set()
        log.drain()
        log.write("train", 4, 0, {"loss": 4.0}, lambda: taken.append("train") or take())
    assert taken == ["train", "val", "train"]
    assert [(line["mode"], line["step"], line["loss"]) for line in lines(tmp_path)] == [
        ("train", 0, 0.0), ("train", 1, 1.0), ("train", 2, 2.0), ("val", 3, 3.0), ("train", 4, 4.0),
    ]  # fmt: skip
    assert [record.message for record in caplog.records if "without pictures" in record.message] == [
        "Step 1 is logged without pictures and depth errors, as those of the last one are still being written (said once); "
        "a larger --log_frequency leaves more time"
    ]


@pytest.mark.parametrize(("error", "written"), [(ValueError, [0, 1]), (KeyboardInterrupt, [0])])
def test_an_error_leaves_nothing_unwritten_and_ctrl_c_waits_for_what_is_begun_alone(monkeypatch, tmp_path, take, error, written) -> None:
    disk = SlowDisk(monkeypatch)

    def free(second: Future[None]) -> None:
        while error is KeyboardInterrupt and not second.cancelled():
            time.sleep(0.01)
        disk.free.set()

    def fail() -> None:
        with RunLog(tmp_path, total_steps=9, done_steps=0) as log:
            log.write("train", 0, 0, {"loss": 0.0}, take)
            log.write("train", 1, 0, {"loss": 1.0}, take)
            while not (tmp_path / "metrics.jsonl").exists():
                time.sleep(0.01)
            threading.Thread(target=free, args=[log._pending[-1]]).start()
            raise error

    with pytest.raises(error):
        fail()
    assert [line["step"] for line in lines(tmp_path)] == written


def test_a_fault_is_raised_where_training_can_be_stopped(tmp_path, take) -> None:
    before = threading.excepthook
    log = RunLog(tmp_path, total_steps=9, done_steps=0)
    (tmp_path / "metrics.jsonl").mkdir()
    log.write("train", 0, 0, {"loss": 0.0}, take)
    with pytest.raises(IsADirectoryError, match=r"metrics\.jsonl"):
        log.drain()
    log.write("train", 1, 0, {"loss": 0.0}, take)
    with pytest.raises(IsADirectoryError, match=r"metrics\.jsonl"):
        log.__exit__(None, None, None)
    assert threading.excepthook is before


@pytest.mark.parametrize("validated", [True, False])
def test_a_resumed_run_keeps_what_it_will_not_log_again(tmp_path, validated) -> None:
    logged = [("train", 2), ("val", 2), ("train", 3), ("val", 4), ("train", 4), ("train", 5)]
    text = "".join(json.dumps({"mode": mode, "epoch": 0, "step": step, "loss": 1.0}) + "\n" for mode, step in logged)
    (tmp_path / "metrics.jsonl").write_text(text + '{"mode": "tra')
    with RunLog(tmp_path, total_steps=9, done_steps=4, validated=validated):
        kept = [(line["mode"], line["step"]) for line in lines(tmp_path)]
    assert kept == [("train", 2), ("val", 2), ("train", 3), *([("val", 4)] if validated else [])]
