"""An environment of numpy, Pillow, click and onnxruntime alone: our wheel predicts from an ONNX file there, and says what needs more."""

import importlib.util
import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from onnx_models import facts, save_onnx
from PIL import Image
from predicting import ORIGINAL_PX, names, run, save_image, save_model

from export import DepthModel
from splits.version import DISTRIBUTION

PACKAGES = ("numpy", "PIL", "click", "onnxruntime")
REMEDY = "install monodepth-engine with its requirements (pip install . in its folder), or give an ONNX file of md-export"
INTRINSICS = ("100", "110", "60", "30")


@pytest.fixture(scope="module")
def bare(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of such an environment; the packages are those of this one, linked."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        package = Path(found.origin).parent
        site.joinpath(name).symlink_to(package)
        # Where wheels keep the libraries they bring.
        for libraries in package.parent.glob(f"{'pillow' if name == 'PIL' else name}*.libs"):
            site.joinpath(libraries.name).symlink_to(libraries)
    site.joinpath("ours.pth").write_text(f"{installed}\n")
    return folder / "bin" / "python"


def predict(python: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """md-predict there."""
    command = [str(python), "-c", "from export.commands.md_predict import md_predict; md_predict()", *map(str, args)]
    return subprocess.run(command, cwd=python.parent, capture_output=True, text=True, check=False)


def test_nothing_else_is_there(bare: Path) -> None:
    for name in ("torch", "onnx", "matplotlib", "tqdm", "platformdirs", "pooch", "jaxtyping"):
        done = subprocess.run([str(bare), "-c", f"import {name}"], capture_output=True, text=True, check=False)
        assert f"No module named '{name}'" in done.stderr


def test_every_format_is_that_of_the_full_environment(bare: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.jpg")
    model = save_onnx(tmp_path / "a.onnx", facts(training="stereo", metric_factor=5.4))
    formats = ("--format", "npy", "png16", "jpeg", "png", "ply", "--intrinsics", *INTRINSICS)
    done = predict(bare, "--image", image, "--model", model, "--out", tmp_path / "there", *formats)
    assert (done.returncode, done.stderr) == (0, "Predicting\n"), done.stderr
    assert run("--image", image, "--model", model, "--out", tmp_path / "here", *formats).exit_code == 0
    assert len(names(tmp_path / "there")) == 5
    np.testing.assert_array_equal(np.load(tmp_path / "there/a_disp.npy"), np.load(tmp_path / "here/a_disp.npy"))
    for name in names(tmp_path / "there"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


DEPTH_MODEL = """
import sys
import numpy as np
from PIL import Image
from export import DepthModel, DepthSession, __version__
image, model, out = sys.argv[1:]
pixels = np.asarray(Image.open(image))
depths = DepthModel.load(model).predict([image, pixels, Image.open(image)])
assert all(np.array_equal(depth.inv_depth, depths[0].inv_depth) for depth in depths)
assert np.array_equal(DepthSession(model).predict(pixels[None])[0], depths[0].depth_m)
np.save(out, depths[0].inv_depth)
depths[0].colorize("turbo").save(out + ".png")
print(depths[0].point_cloud((100, 110, 60, 30)).points.shape, sorted({"torch", "onnx", "matplotlib"} & set(sys.modules)), __version__)
"""


def test_the_model_in_python_is_that_of_the_full_environment(bare: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    model = save_onnx(tmp_path / "a.onnx", facts(training="stereo", metric_factor=5.4))
    command = [str(bare), "-c", DEPTH_MODEL, str(image), str(model), str(tmp_path / "there.npy")]
    done = subprocess.run(command, cwd=bare.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"({ORIGINAL_PX[0] * ORIGINAL_PX[1]}, 3) [] {version(DISTRIBUTION)}\n"
    depth = DepthModel.load(model, provider="cpu").predict(image)
    np.testing.assert_array_equal(np.load(tmp_path / "there.npy"), depth.inv_depth)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "there.npy.png")), np.asarray(depth.colorize("turbo")))


def test_weights_without_torch_are_one_message_in_python(bare: Path, tmp_path: Path) -> None:
    weights = save_model(tmp_path / "run", use_stereo=False)
    program = f"from export import DepthModel\nDepthModel.load({str(weights)!r})"
    done = subprocess.run([str(bare), "-c", program], cwd=bare.parent, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"splits.errors.InputError: model {weights} needs torch: {REMEDY}"


def test_what_needs_more_says_so_in_one_line(bare: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    model = save_onnx(tmp_path / "a.onnx", facts())
    weights = save_model(tmp_path / "run", use_stereo=False)
    (tmp_path / "mono_640x192.zip").write_bytes(b"no zip")
    for given, message in [
        ((image, weights), f"model {weights} needs torch: {REMEDY}"),
        ((image, "mono_640x192"), f"model mono_640x192 needs torch: {REMEDY}"),
        ((image, tmp_path / "mono_640x192.zip"), f"model {tmp_path / 'mono_640x192.zip'} needs torch: {REMEDY}"),
        ((tmp_path / "a.mp4", model), "videos and webcams need PyAV (No module named 'av'): pip install av"),
        ((tmp_path / "none.jpg", model), f"{tmp_path / 'none.jpg'} does not exist"),
    ]:
        done = predict(bare, "--image", given[0], "--model", given[1])
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {message}"), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
