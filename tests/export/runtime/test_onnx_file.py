"""ONNX files whose weights lie elsewhere, that are cut off, or that say what cannot be: refused for the true reason."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.choices import AssumedFacts
from export.runtime.model_facts import ModelFacts
from export.runtime.onnx_file import open_model
from splits.errors import InputError

ASSUMED = AssumedFacts(output="inv_depth", size_px=None)


def write_model(path: Path, *, data: str | None = None, sides: tuple[int | str, int | str] = (64, 96), name: str = "image") -> Path:
    """A network of one convolution; its weights in the file ``data`` beside it, where that is named."""
    weights = np.random.default_rng(0).normal(size=(1, 3, 9, 9)).astype(np.float32)
    node = helper.make_node("Conv", [name, "w"], ["depth"], pads=[4, 4, 4, 4])
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, *sides]) for n, c in ((name, 3), ("depth", 1))]
    graph = helper.make_graph([node], "net", shapes[:1], shapes[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=data is not None, location=data, size_threshold=0)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_model(path, ASSUMED)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx.data", "weights.bin"])
def test_weights_that_lie_elsewhere_are_named(name: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", data=name)
    assert open_model(path, ASSUMED)[1].size_px == (64, 96)
    (tmp_path / name).rename(tmp_path / "another.data")
    assert refusal(path).startswith(f"{path} keeps its weights in {name}, a file that is not beside it; copy that one into {tmp_path} too")
    (tmp_path / name).write_bytes((tmp_path / "another.data").read_bytes()[:100])
    assert refusal(path).startswith(f"{path} keeps its weights in {name}, which is shorter than recorded")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    assert refusal(path) == f"{path} is a pointer of Git LFS, not the model itself; fetch it with git lfs pull"


def test_sides_that_no_image_has_are_refused(tmp_path: Path) -> None:
    assert "which no image has" in refusal(write_model(tmp_path / "model.onnx", sides=(2**31, 2**31)))


def test_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", name="image", sides=("rows", "width"))
    path.write_bytes(path.read_bytes().replace(b"rows", b"\xff\xfe\xfd\xfc"))
    assert "is damaged: a name in it is no UTF-8 text" in refusal(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("height_px", "-32"), ("width_px", "1000000000"), ("min_depth", "nan"), ("max_depth", "0.05"), ("metric_factor", "-1")],
)
def test_facts_that_cannot_be_true_are_damage(name: str, value: str) -> None:
    metadata = ModelFacts(height_px=192, width_px=640).to_metadata()
    assert ModelFacts.from_metadata(metadata, Path("m.onnx")) == ModelFacts(height_px=192, width_px=640)
    with pytest.raises(InputError, match=re.escape("m.onnx has damaged metadata (")):
        ModelFacts.from_metadata(metadata | {f"md_engine.{name}": value}, Path("m.onnx"))
