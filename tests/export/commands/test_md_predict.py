"""md-predict on small folders: what it writes, what it skips, what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from places import PROJECT
from predicting import ORIGINAL_PX, SIZE_PX, names, run, save_image, save_model

from engine.inference.depth_network import load_depth_network
from engine.pictures import colour_disp
from export.choices import OutputConfig
from export.commands.md_predict import md_predict
from export.prediction.predict import BATCH_SIZE, Predictor, predict_images
from export.prediction.writers import WRITERS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stereo"), use_stereo=True)


@pytest.fixture(scope="module")
def mono_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("mono"), use_stereo=False)


def test_one_image_is_the_networks_own_prediction(model: Path, tmp_path: Path) -> None:
    path = save_image(tmp_path / "street.png")
    before = path.read_bytes()
    result = run("--image", path, "--model", model)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["street.png", "street_disp.jpeg", "street_disp.npy"]
    assert path.read_bytes() == before

    resized = np.array(Image.open(path).resize((SIZE_PX[1], SIZE_PX[0]), Image.Resampling.LANCZOS))
    network = load_depth_network(model)
    disp = network(torch.from_numpy(resized).permute(2, 0, 1)[None] / 255.0)
    inv_depth = np.load(tmp_path / "street_disp.npy")
    assert inv_depth.shape == (1, 1, *SIZE_PX)
    assert inv_depth.dtype == np.float32
    np.testing.assert_allclose(inv_depth, 0.01 + 9.99 * disp.numpy(), rtol=1e-4)
    full = torch.nn.functional.interpolate(disp, ORIGINAL_PX, mode="bilinear", align_corners=False)[0, 0].numpy()
    picture = np.asarray(Image.open(tmp_path / "street_disp.jpeg")).astype(int)
    assert picture.shape == (*ORIGINAL_PX, 3)
    assert np.abs(picture - colour_disp(full)).mean() < 8  # JPEG


def test_metric_depth_replaces_inverse_depth(model: Path, tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg")
    assert run("--image", path, "--model", model).exit_code == 0
    result = run("--image_path", path, "--model_name", model, "--pred_metric_depth", "--out", tmp_path / "metric")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "metric") == ["a_depth.npy", "a_disp.jpeg"]
    depth = np.load(tmp_path / "metric" / "a_depth.npy")
    np.testing.assert_allclose(depth, 5.4 / np.load(tmp_path / "a_disp.npy"), rtol=1e-6)


@pytest.mark.parametrize("option", [["--pred_metric_depth"], ["--format", "png16"], ["--format", "jpeg", "png16"]])
def test_metres_of_a_mono_model_are_refused_with_the_reason(mono_model: Path, tmp_path: Path, option: list[str]) -> None:
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", mono_model, *option)
    assert result.exit_code == 2, result.output
    named = "--format png16" if "png16" in option else "--pred_metric_depth"
    assert f"{named} needs a model trained with stereo" in result.output
    assert "scale of the world cannot be observed" in result.output
    assert names(tmp_path) == ["a.jpg"]


def test_a_folder_is_done_in_batches_and_again_without_its_own_outputs(model: Path, tmp_path: Path) -> None:
    count = BATCH_SIZE + 2
    for number in range(count):
        save_image(tmp_path / f"{number:02d}{('.jpg', '.JPEG', '.png')[number % 3]}", number)
    (tmp_path / "notes.txt").write_text("no image")
    first = run("--image", tmp_path, "--model", model)
    assert first.exit_code == 0, first.output
    assert f"{count} of {count} images predicted" in first.output
    written = names(tmp_path)
    assert len(written) == 3 * count + 1
    assert len({np.load(tmp_path / f"{n:02d}_disp.npy").tobytes() for n in range(count)}) == count
    assert f"{count} of {count} images" in run("--image", tmp_path, "--model", model).output
    assert names(tmp_path) == written


def test_an_unreadable_image_is_named_after_the_rest_is_done(model: Path, tmp_path: Path) -> None:
    for name in ("a", "c"):
        save_image(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    (tmp_path / "d.jpg").write_text("text")
    result = run("--image", tmp_path, "--model", model)
    assert result.exit_code == 1
    assert "2 of 4 images predicted" in result.output
    assert "Traceback" not in result.output
    for name in ("b.jpg", "d.jpg"):
        assert f"{tmp_path / name} is a damaged image (" in result.output
    assert {"a_disp.npy", "c_disp.npy"} <= set(names(tmp_path))


def test_a_prediction_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    files = [save_image(tmp_path / f"{name}.jpg") for name in "ab"]
    (tmp_path / "out").mkdir()
    answers = np.ones((2, 32, 64), np.float32)
    answers[1, 3, 4] = np.nan
    predictor = Predictor(lambda images: answers, (32, 64), None)
    done = list(predict_images(predictor, files, OutputConfig(folder=tmp_path / "out")))
    assert done[0] is None
    assert done[1] is not None
    assert f"{files[1]}: its prediction holds values that are no numbers" in done[1]
    assert names(tmp_path / "out") == ["a_disp.jpeg", "a_disp.npy"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [(OSError(28, "No space left on device"), "No space left on device"), (OSError("24576 requested and 0 written"), "24576 requested")],
)
def test_a_full_disk_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, said: str) -> None:
    def full(*_args: object) -> None:
        raise fault

    monkeypatch.setitem(WRITERS, "npy", full)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", model)
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'a.jpg'}: its prediction cannot be written ({tmp_path / 'a_disp.npy'}: {said}" in result.output
    assert names(tmp_path) == ["a.jpg"]


def test_missing_model_is_one_line(model: Path, tmp_path: Path) -> None:
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", tmp_path / "none")
    assert result.exit_code == 1
    assert f"model {tmp_path / 'none'} does not exist" in result.output
    assert names(tmp_path) == ["a.jpg"]
    assert run("--model", model).exit_code == 2


def test_the_original_commands_with_another_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/mono+stereo_640x192").symlink_to(model / "models" / "weights_0")
    for folder in ("assets", "photos"):
        Path(folder).mkdir()
    save_image(Path("assets/test_image.jpg"))
    for name in ("a.png", "b.png", "c.jpg"):
        save_image(Path("photos") / name)
    commands = (
        "--image_path assets/test_image.jpg --model_name mono+stereo_640x192",
        "--image_path photos --ext png --model_name mono+stereo_640x192 --pred_metric_depth --no_cuda",
        f"--image assets/test_image.jpg --model {model}",
    )
    for command in commands:
        result = CliRunner().invoke(md_predict, command.split())
        assert result.exit_code == 0, result.output
    assert names(Path("assets")) == ["test_image.jpg", "test_image_disp.jpeg", "test_image_disp.npy"]
    assert names(Path("photos")) == ["a.png", "a_depth.npy", "a_disp.jpeg", "b.png", "b_depth.npy", "b_disp.jpeg", "c.jpg"]


@pytest.mark.parametrize("amp", ["auto", "off", "bf16"])
def test_precision_option(model: Path, tmp_path: Path, amp: str) -> None:
    exact = run("--image", save_image(tmp_path / "a.jpg"), "--model", model, "--out", tmp_path / "exact")
    result = run("--image", tmp_path / "a.jpg", "--model", model, "--out", tmp_path / amp, "--amp", amp)
    assert exact.exit_code == result.exit_code == 0, result.output
    difference = np.abs(np.load(tmp_path / amp / "a_disp.npy") - np.load(tmp_path / "exact" / "a_disp.npy")).max()
    assert difference < 0.1
    assert (difference > 0) == (amp == "bf16")


def test_every_option_is_used_in_a_test() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "tests" / "export").rglob("test_*.py"))
    options = [name for option in md_predict.params for name in option.opts if name.startswith("--")]
    assert [name for name in options if name != "--version" and f'"{name}"' not in sources and f" {name} " not in sources] == []
    assert CliRunner().invoke(md_predict, ["--version"]).output.startswith("md-predict, version ")
    shown = CliRunner().invoke(md_predict, ["-h"]).output
    assert all(name in shown for name in options)
    assert "did you mean --colormap?" in run("--image", "a.jpg", "--model", "b", "--colourmap", "turbo").output


def test_the_command_imports_no_numpy_and_prediction_no_torch() -> None:
    rooms = "export.commands.md_predict, export.prediction.models, export.choices"
    light = f"import sys, {rooms}; print(sorted({{'torch', 'numpy', 'PIL', 'av'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    rest = "import sys, export.prediction.predict, export.prediction.models; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", rest], capture_output=True, text=True, check=True).stdout.strip() == "False"
