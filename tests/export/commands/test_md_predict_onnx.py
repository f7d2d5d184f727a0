"""md-predict with an ONNX file: the same files as with the checkpoint it was made of, and its own options."""

import builtins
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx_models import SIZE_PX as TINY_PX
from onnx_models import facts, result_of, save_onnx
from PIL import Image
from predicting import SIZE_PX, names, run, save_image, save_model

from engine.inference.depth_network import load_depth_network
from export.commands.md_predict import md_predict
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import ModelFacts

REMEDY = "install monodepth-engine with its requirements (pip install . in its folder), or give an ONNX file of md-export"
INTRINSICS = (100.0, 110.0, 60.0, 30.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stereo"), use_stereo=True)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    path = checkpoint / "model.onnx"
    known = ModelFacts(height_px=SIZE_PX[0], width_px=SIZE_PX[1], training="stereo", metric_factor=5.4, opset=OPSET)
    depth_onnx(load_depth_network(checkpoint), known, path)
    return path


def predict(*args: object) -> Result:
    return CliRunner().invoke(md_predict, list(map(str, args)))


def test_every_format_is_that_of_the_checkpoint(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    for number in range(3):
        save_image(tmp_path / f"{number}.png", number)
    formats = ("--format", "npy", "png16", "jpeg", "png", "ply", "--intrinsics", *INTRINSICS)
    for model, out in ((checkpoint, "theirs"), (exported, "ours")):
        result = predict("--image", tmp_path, "--model", model, "--out", tmp_path / out, *formats)
        assert result.exit_code == 0, result.output
        assert "3 of 3 images predicted" in result.output
        assert predict("--image", tmp_path, "--model", model, "--out", tmp_path / out, "--pred_metric_depth").exit_code == 0
    assert names(tmp_path / "ours") == names(tmp_path / "theirs")
    for path in (tmp_path / "ours").iterdir():
        other = tmp_path / "theirs" / path.name
        if path.suffix == ".npy":
            np.testing.assert_allclose(np.load(path), np.load(other), rtol=1e-5)
        elif path.suffix == ".png":
            assert np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(other))).max() <= 3
        elif path.suffix == ".jpeg":
            assert np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(other))).mean() < 0.5
        else:
            assert path.read_bytes()[:200] == other.read_bytes()[:200]


def test_videos_too(exported: Path, tmp_path: Path) -> None:
    # Without av the import skips this test.
    from videos import read_video, save_video

    result = predict("--image", save_video(tmp_path / "a.mp4", count=3), "--model", exported)
    assert result.exit_code == 0, result.output
    assert len(read_video(tmp_path / "a_depth.mp4")[2]) == 3


def test_preprocessing_makes_no_difference(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    whole = save_onnx(tmp_path / "whole.onnx", facts(preprocessing=True), size_px=("h", "w"), takes_bytes=True)
    plain = save_onnx(tmp_path / "plain.onnx", facts())
    for model in (whole, plain):
        assert predict("--image", image, "--model", model, "--out", tmp_path / model.stem).exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "whole/a_disp.npy"), np.load(tmp_path / "plain/a_disp.npy"), rtol=1e-6)


def test_metres_of_a_mono_model_are_refused(tmp_path: Path) -> None:
    model = save_onnx(tmp_path / "a.onnx", facts())
    result = predict("--image", save_image(tmp_path / "a.jpg"), "--model", model, "--pred_metric_depth")
    assert result.exit_code == 2
    assert "--pred_metric_depth needs a model trained with stereo: this one learned from a single moving camera" in result.output


def test_a_foreign_file_is_described_by_options(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    model = save_onnx(tmp_path / "a.onnx", None, size_px=("h", "w"))
    asked = predict("--image", image, "--model", model)
    assert asked.exit_code == 1
    assert (
        "add --onnx_output disp|inv_depth|depth (disp is a sigmoid's, and needs --min_depth and --max_depth), --height and" in asked.output
    )
    described = ("--onnx_output", "disp", "--min_depth", 0.5, "--max_depth", 50, "--height", TINY_PX[0], "--width", TINY_PX[1])
    assert predict("--image", image, "--model", model, *described).exit_code == 0
    fitted = np.asarray(Image.open(image).resize(TINY_PX[::-1], Image.Resampling.LANCZOS))[None]
    np.testing.assert_allclose(np.load(tmp_path / "a_disp.npy")[:, 0], 0.02 + 1.98 * result_of(fitted), rtol=1e-5)
    metric = predict("--image", image, "--model", model, *described, "--pred_metric_depth")
    assert metric.exit_code == 2
    assert "--pred_metric_depth needs metres, but the unit of this file is unknown; leave it out" in metric.output
    ours = predict("--image", image, "--model", save_onnx(tmp_path / "ours.onnx", facts()), "--onnx_output", "disp")
    assert (ours.exit_code, "records all of that itself; leave out --onnx_output" in ours.output) == (1, True)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("weights", ["--provider", "cpu"], "--provider is for ONNX files, and --model weights is a checkpoint; leave it out"),
        ("weights", ["--height", "64"], "--height and --width go together"),
        ("weights", ["--height", "64", "--width", "100"], "width=100 must be a multiple of 32"),
        ("weights", ["--min_depth", "0.0"], "--min_depth is for ONNX files, and"),
        ("a.onnx", ["--amp", "fp16"], "--amp fp16: an ONNX file computes in the precision it was exported with"),
        ("a.onnx", ["--no_cuda", "--provider", "cuda"], "--no_cuda and --provider cuda contradict each other"),
        ("a.onnx", ["--width", "64"], "--height and --width go together"),
        ("a.onnx", ["--onnx_output", "metres"], "'metres' is not one of 'disp', 'inv_depth', 'depth'"),
        ("a.onnx", ["--onnx_output", "depth", "--max_depth", "9"], "--onnx_output depth has no range; leave out --max_depth"),
    ],
)
def test_options_of_the_other_kind_of_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_onnx(tmp_path / "a.onnx", facts())
    result = predict("--image", save_image(tmp_path / "a.jpg"), "--model", model, *args)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_faults_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save_image(tmp_path / "a.jpg")
    (tmp_path / "text.onnx").write_text("no model")
    for model, message in [("text.onnx", "is damaged or no ONNX file"), ("none.onnx", "does not exist; did you mean")]:
        result = predict("--image", image, "--model", tmp_path / model)
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert message in result.output
        assert result.output.count("\n") == 1
    monkeypatch.setattr("export.runtime.providers.gpu_count", lambda: 0)
    model = save_onnx(tmp_path / "a.onnx", facts())
    refused = predict("--image", image, "--model", model, "--provider", "cuda")
    assert (refused.exit_code, "provider=cuda is not available" in refused.output) == (1, True)
    assert predict("--image", image, "--model", model, "--provider", "cpu").exit_code == 0


@pytest.mark.parametrize("lacking", ["torch", "jaxtyping"])
def test_a_checkpoint_without_torch_names_what_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any) -> ModuleType:
        if name == lacking:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args)

    for module in [name for name in sys.modules if name.startswith(("export.", "engine."))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", absent)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", checkpoint)
    assert result.exit_code == 1
    assert result.output == f"Error: model {checkpoint} needs {lacking}: {REMEDY}\n"
