"""Checksums beside weights: a flipped bit is noticed wherever it is, nothing damaged is loaded, and others' folders are read."""

import hashlib
import logging
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engines import SIZE, stereo_networks
from onnx_models import facts, save_onnx
from publishing import pack_files
from torch import nn

from dataload.system.console import console
from engine import weights
from engine.inference.depth_network import load_depth_network
from engine.sums import OWN_SUFFIX, SUMS_FILE, digest_of, own_sums, require_undamaged, sums_text
from engine.training import checkpoint
from engine.training.checkpoint import Position
from engine.training.optim import build_optimizer
from export.runtime.onnx_file import open_model
from splits.errors import InputError

SCALER = torch.amp.GradScaler("cpu", enabled=False)
FLIPS = 200


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    networks = stereo_networks()
    optimizer = build_optimizer(networks, 1e-3)
    images = torch.rand(1, 3, *SIZE[:2], generator=torch.Generator().manual_seed(0))
    sum(disp.mean() for disp in networks.depth(networks.encoder(images)).values()).backward()
    optimizer.step()
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_0"
    checkpoint.save_checkpoint(folder, networks, SIZE, optimizer, SCALER, Position(1, 0, 4, 0.5, 0.3, 16))
    return folder


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file over, in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all its files, of networks so small that any part of them is hashed in no time."""
    networks = nn.ModuleDict({"encoder": nn.Conv2d(3, 8, 3), "depth": nn.Conv2d(8, 1, 3)})
    optimizer = build_optimizer(networks, 1e-3)
    networks["depth"](networks["encoder"](torch.ones(1, 3, 8, 8))).mean().backward()
    optimizer.step()
    folder = tmp_path_factory.mktemp("small") / "weights_0"
    checkpoint.save_checkpoint(folder, networks, SIZE, optimizer, SCALER, Position(1, 0, 4, 0.5, 0.3, 16))
    return folder


def flips_noticed(path: Path, read: Callable[[], object]) -> int:
    """How many of ``FLIPS`` bits of a file, anywhere in it, are noticed when each is turned over alone; without one it is read."""
    read()
    noticed = 0
    for bit in random.Random(0).sample(range(8 * path.stat().st_size), FLIPS):
        flip(path, bit)
        try:
            read()
        except InputError as error:
            noticed += any(words in str(error) for words in (SUMS_FILE, OWN_SUFFIX))
        flip(path, bit)
    read()
    return noticed


@pytest.mark.parametrize("name", ["encoder.pth", "depth.pth", "adam.pth", "state.pt", SUMS_FILE])
def test_every_flipped_bit_is_noticed(name: str, small: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(small, tmp_path / "weights_0")) / name
    read = path.with_name("state.pt" if name == SUMS_FILE else name)
    assert flips_noticed(path, lambda: require_undamaged(read)) == FLIPS


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.sha256", "model_pose.onnx"])
def test_every_flipped_bit_of_an_export_is_noticed(name: str, tmp_path: Path) -> None:
    pack_files(tmp_path / "model.onnx", b"an old one", b"of both")
    pack_files(tmp_path / "model.onnx", b"what onnxruntime " * 64, b"would run " * 64)
    path = tmp_path / name
    read = path.with_name(name.removesuffix(OWN_SUFFIX))
    assert flips_noticed(path, lambda: require_undamaged(read, among_others=True)) == FLIPS


def test_an_export_that_was_changed_is_one_line_and_others_beside_it_are_read(tmp_path: Path) -> None:
    out, foreign = save_onnx(tmp_path / "model.onnx", facts()), save_onnx(tmp_path / "foreign.onnx", facts())
    (tmp_path / SUMS_FILE).write_text(sums_text({"encoder.pth": digest_of(b"")}))  # of a checkpoint that they lie in
    pack_files(out, out.read_bytes())
    for path in (out, foreign):
        open_model(path)
    save_onnx(out, facts(licence="changed"))
    with pytest.raises(InputError, match=r"model\.onnx is damaged: .*; where you changed it yourself, remove its model\.onnx\.sha256"):
        open_model(out)
    own_sums(out).unlink()
    open_model(out)


@pytest.mark.parametrize("name", ["a\nb\r.onnx", "a\\b.onnx", "# *  a.onnx", "caf\udce9\x85.onnx"])
def test_a_file_of_any_name_has_its_checksum(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    pack_files(out, b"content")
    require_undamaged(out, among_others=True)
    if name.isascii():
        subprocess.run(["sha256sum", "--strict", "-c", own_sums(out)], cwd=tmp_path, capture_output=True, check=True)
    out.write_bytes(b"another")
    with pytest.raises(InputError, match="is damaged"):
        require_undamaged(out, among_others=True)


@pytest.mark.parametrize("name", ["encoder.pth", "adam.pth", "state.pt"])
def test_a_resume_names_the_damaged_file_and_what_to_do(name: str, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "weights_0"))
    flip(folder / name, 8 * (folder / name).stat().st_size // 2)
    networks = stereo_networks()
    with pytest.raises(InputError, match=rf"{name} is damaged: .*; copy the folder again, or take another; .* remove its {SUMS_FILE}"):
        checkpoint.load_checkpoint(folder, networks, build_optimizer(networks, 1e-3), SCALER)


@pytest.mark.parametrize("name", ["encoder.pth", "adam.pth", "state.pt", SUMS_FILE])
def test_a_resume_takes_the_checkpoint_before_a_damaged_one(name: str, saved: Path, tmp_path: Path) -> None:
    for folder in ("step_4", "step_8"):
        shutil.copytree(saved, tmp_path / folder)
    last = checkpoint.latest_resumable(tmp_path)
    flip(last / name, 8 * (last / name).stat().st_size // 2)
    assert {last.name, checkpoint.latest_resumable(tmp_path).name} == {"step_4", "step_8"}


def test_evaluation_prediction_and_finetuning_refuse_a_damaged_file(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "weights_0"))
    flip(folder / "depth.pth", 8 * 100_000)
    with pytest.raises(InputError, match=r"depth\.pth is damaged"):
        load_depth_network(folder)
    networks = stereo_networks()
    with pytest.raises(InputError, match=r"depth\.pth is damaged"):
        weights.load_weights(networks, folder, ["depth"])


def test_sha256sum_reads_the_list(saved: Path) -> None:
    done = subprocess.run(["sha256sum", "--strict", "-c", SUMS_FILE], cwd=saved, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name}: OK" for name in ("adam.pth", "depth.pth", "encoder.pth", "state.pt")]


def test_a_file_that_was_put_there_later_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "weights_0"))
    shutil.copy(folder / "depth.pth", folder / "pose.pth")
    with pytest.raises(InputError, match=rf"pose\.pth is not in the list {SUMS_FILE} beside it"):
        weights.read_network(folder, "pose")


def test_what_has_no_list_or_another_programs_is_read_and_told_in_the_log(saved: Path, tmp_path: Path) -> None:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    folder = Path(shutil.copytree(saved, tmp_path / "weights_0"))
    (folder / SUMS_FILE).unlink()
    level = console.level
    console.addHandler(handler)
    console.setLevel(logging.DEBUG)
    try:
        load_depth_network(folder)
        assert any("encoder.pth has no SHA256SUMS beside it" in line for line in told)
        (folder / SUMS_FILE).write_text(f"{hashlib.sha256(b'').hexdigest()}  image.iso\n")
        load_depth_network(folder)
        assert any("encoder.pth is not in" in line for line in told)
    finally:
        console.setLevel(level)
        console.removeHandler(handler)
    (folder / SUMS_FILE).write_text(f"{hashlib.sha256(b'').hexdigest()}  encoder.pth\n")
    with pytest.raises(InputError, match=r"encoder\.pth is damaged"):
        load_depth_network(folder)
