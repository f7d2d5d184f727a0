"""md-export as its users meet it: files that are compared before they are written, and bad input that leaves nothing behind."""

import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from published import networks_of

from engine.weights import InputSize, save_weights
from export.commands.md_export import md_export
from export.config import TARGETS, ExportConfig
from export.conversion.images import find_images, spread
from export.conversion.quantize import RUNS_SINCE
from export.runtime.model_facts import ModelFacts
from export.runtime.providers import version_of
from export.session import DepthSession
from export.targets.exported import find_target

SIZE_PX = (64, 96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A run folder of a small mono+stereo model."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_weights(run / "models" / "weights_3", networks_of(use_stereo=True), InputSize(*SIZE_PX, True))
    options = {"min_depth": 0.2, "max_depth": 50.0, "dataset": "kitti", "frame_ids": [0, -1, 1, "s"]}
    (run / "models" / "opt.json").write_text(json.dumps(options))
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:75, 0:248]
    for number in range(6):
        channels = [127 + 100 * np.sin((x + 9 * number) / (7 + c)) * np.cos(y / (5 + c)) for c in range(3)]
        Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(md_export, [str(argument) for argument in arguments])


def facts_of(path: Path) -> ModelFacts:
    return ModelFacts.from_metadata({entry.key: entry.value for entry in onnx.load(path).metadata_props}, path)


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_keeps_the_contract(name):
    target = find_target(name)
    assert isinstance(target.IS_FOLDER, bool)
    assert len(inspect.signature(target.require).parameters) == 1
    assert len(inspect.signature(target.pack).parameters) == 2
    assert f"{name}: {TARGETS[name].help}" in " ".join(run("--help").output.split())


def test_a_file_with_its_facts(weights, tmp_path):
    scores = tmp_path / "scores.json"
    model = {"name": "run", "abs_rel": 0.1, "median_ratio": 31.5}
    scores.write_text(json.dumps({"settings": {"eval_split": "eigen"}, "models": [model]}))
    out = tmp_path / "depth.onnx"
    done = run("--load_weights_folder", weights, "--out", out, "--output", "depth", "--scores", scores, "--with_pose")
    assert done.exit_code == 0, done.output
    assert "99 %" in done.output  # the table
    assert "4 real" in done.output
    facts = facts_of(out)
    assert (facts.size_px, facts.output, facts.training, facts.metric_factor) == (SIZE_PX, "depth_m", "mono+stereo", 5.4)
    assert (facts.min_depth, facts.max_depth, facts.median_ratio, facts.opset) == (0.2, 50.0, 31.5, 18)
    assert "KITTI" in facts.licence
    assert "commit" in facts.source
    pose = facts_of(tmp_path / "depth_pose.onnx")
    assert (pose.kind, pose.frame_ids, pose.size_px) == ("pose", (0, 1), SIZE_PX)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "depth.onnx", "depth.onnx.sha256", "depth_pose.onnx", "depth_pose.onnx.sha256", "scores.json"
    ]  # fmt: skip


needs_bytes = pytest.mark.skipif(version_of(onnxruntime) < RUNS_SINCE, reason="this onnxruntime has no Max of bytes")


@pytest.mark.parametrize("precision", ["fp32", "fp16", pytest.param("int8", marks=needs_bytes)])
@pytest.mark.parametrize("graph", [["--dynamic_size"], ["--with_preprocessing", "--batch_size", "2"]], ids=["open size", "frames"])
def test_every_precision_is_compared(weights, photos, tmp_path, precision, graph):
    out = tmp_path / "depth.onnx"
    done = run("--load_weights_folder", weights, "--out", out, "--precision", precision, "--images", photos, *graph)
    assert done.exit_code == 0, done.output
    assert f"images of {photos}" in done.output
    assert ("kept in float" in done.output) == (precision == "int8")
    assert facts_of(out).precision == precision
    frames = np.stack([np.asarray(Image.open(photos / f"{i}.png").resize(SIZE_PX[::-1])) for i in range(3)])
    assert DepthSession(out, "cpu").predict(frames).shape == (3, *SIZE_PX)


def test_paths_of_an_export_may_be_text():
    config = ExportConfig(weights="~/run", out="a.onnx", images="photos")
    assert config == ExportConfig(weights=Path.home() / "run", out=Path("a.onnx"), images=Path("photos"))


def test_calibration_and_comparison_share_no_image(weights, photos, tmp_path):
    images = find_images(ExportConfig(weights=weights, out=tmp_path / "x.onnx", images=photos))
    shown, calibrated = ([reader.args[0] for reader in part] for part in (images.for_parity, images.for_calibration))
    assert len(shown) == 2
    assert len(calibrated) == 4
    assert not set(shown) & set(calibrated)
    assert spread(range(10), 3) == [1, 5, 8]


def test_another_size_than_the_trained_one(weights, tmp_path):
    out = tmp_path / "depth.onnx"
    done = run("--load_weights_folder", weights, "--out", out, "--height", 96, "--width", 128, "--batch_size", 1)
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 96, 128]
    assert facts_of(out).size_px == (96, 128)


def test_a_network_that_fp16_cannot_hold_is_not_written(weights, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(weights / "models" / "weights_3", folder)
    content = torch.load(folder / "encoder.pth", weights_only=True)
    content["encoder.layer1.0.bn2.weight"].fill_(3e5)  # beyond fp16's range, where fp32 has long been saturated
    torch.save(content, folder / "encoder.pth")
    (folder / "SHA256SUMS").unlink()  # of the weights before
    out = tmp_path / "depth.onnx"
    out.write_bytes(b"before")
    done = run("--load_weights_folder", folder, "--out", out, "--precision", "fp16")
    assert done.exit_code == 1
    assert "differs from torch" in done.output
    assert "Nothing was written" in done.output
    assert out.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model"], "model must be a file that ends in .onnx, for example model.onnx"),
        (["--out", "model.onx"], "model.onx must be a file that ends in .onnx, for example model.onnx"),
        (["--out", "."], "must be a file that ends in .onnx"),
        (["--out", "nowhere/m.onnx"], "no folder nowhere to write m.onnx to"),
        (["--out", "m.onnx", "--height", "190"], "height=190 must be a multiple of 32 .* nearest: 160 or 192"),
        (["--out", "m.onnx", "--width", "32"], "width=32 must be a multiple of 32 .*; nearest: 64"),
        (["--out", "m.onnx", "--precision", "int8"], "add --images FOLDER"),
        (
            ["--out", "m.onnx", "--precision", "fp16", "--images", "empty"],
            "folder empty holds no jpg, jpeg, png, bmp, webp, tif, tiff, ppm, pgm image",
        ),
        (["--out", "m.onnx", "--images", "fotos"], "fotos does not exist"),
        (["--out", "m.onnx", "--dynamic_size", "--with_preprocessing"], "leave out --dynamic_size"),
        (["--out", "m.onnx", "--batch_size", "0"], "batch_size=0 must be above 0"),
        (["--out", "m.onnx", "--scores", "scores.json"], "cannot read scores.json .* md-eval --json"),
        (["--out", "m.onnx", "--eval_split", "eigen_benchmark"], "without --data_path"),
        (["--out", "m.onnx", "--target", "tensorrt"], "'tensorrt' is not one of"),
        (["--out", "pose.onnx", "--with_pose"], "pose_pose.onnx would be written, and is a folder"),
        (["--out", "new", "--target", "hub", "--height", "96"], "leave out --height and --width"),
        (["--out", "full", "--target", "hub"], "full exists already; .* name a new one"),
        (["--out", "page", "--target", "web", "--dynamic_size"], "leave out --dynamic_size"),
        (["--out", "m.onnx", "--presicion", "fp16"], "did you mean --precision?"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(weights, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/photo.jpg").touch()
    Path("pose_pose.onnx").mkdir()
    done = run("--load_weights_folder", weights, *arguments)
    assert done.exit_code in (1, 2)
    assert re.search(f"Error: .*{message}", done.output), done.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "full", "photo.jpg", "pose_pose.onnx"]


@pytest.mark.parametrize(
    ("split", "ratio", "message"),
    [("eigen", "5", "holds values that md-eval --json does not write"), (5, 5.4, "holds values"), ("eigen", -1.0, "holds values")],
)
def test_scores_of_other_types_are_refused_before_the_work(weights, tmp_path, split, ratio, message):
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"settings": {"eval_split": split}, "models": [{"abs_rel": 0.1, "median_ratio": ratio}]}))
    done = run("--load_weights_folder", weights, "--out", tmp_path / "m.onnx", "--scores", scores)
    assert done.exit_code == 1
    assert f"Error: --scores {scores} {message}" in done.output
    assert "Exporting" not in done.output


@pytest.mark.parametrize("target", ["onnx", "hub"])
def test_a_full_disk_names_the_output(weights, tmp_path, monkeypatch, target):
    def full(*_args):
        raise OSError(28, "No space left on device", "/somewhere/model.onnx")

    monkeypatch.setattr("export.targets.file.copyfile", full)
    monkeypatch.setattr("export.targets.hub.copyfile", full)
    out = tmp_path / "made" / "m.onnx"
    out.parent.mkdir()
    done = run("--load_weights_folder", weights, "--out", out, "--target", target)
    assert done.exit_code == 1
    assert f"Error: --out {out} cannot be written (No space left on device); make room" in done.output
    assert not any(out.parent.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "another network", "missing"])
def test_damaged_weights(weights, tmp_path, damage):
    folder = tmp_path / "weights"
    if damage != "missing":
        shutil.copytree(weights / "models" / "weights_3", folder)
        (folder / "SHA256SUMS").unlink()  # which sees any damage
    if damage == "truncated":
        (folder / "depth.pth").write_bytes((folder / "depth.pth").read_bytes()[:100_000])
    if damage == "another network":
        shutil.copy(folder / "pose.pth", folder / "depth.pth")
    done = run("--load_weights_folder", folder, "--out", tmp_path / "m.onnx")
    assert done.exit_code == 1
    expected = {"truncated": "depth.pth is corrupt", "another network": "depth.pth holds no depth decoder", "missing": "does not exist"}
    assert expected[damage] in done.output
    assert "--model" not in done.output
    assert not (tmp_path / "m.onnx").exists()
