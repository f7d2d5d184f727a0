"""ONNX files of a few hundred bytes that ask for all memory or all time: refused in a line, by both ways in."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
import onnx
import onnxruntime
import pytest
from hostile import require_refused, run_bounded
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_models import SIZE_PX, facts, images_of, save_onnx
from packaging.version import Version
from PIL import Image
from places import PROJECT

from export.runtime.bounds import within_seconds
from export.runtime.onnx_file import open_model
from export.session import DepthSession
from splits.errors import InputError

# How many numbers the image has, as a tensor of one: what is made of it cannot be made before the model runs.
COUNT = [helper.make_node("Shape", ["image"], ["shape"]), helper.make_node("ReduceProd", ["shape"], ["count"], keepdims=1)]


def write(path: Path, nodes: Sequence[NodeProto], constants: dict[str, object], last: str) -> Path:
    """A model whose result is the mean of the colours plus the greatest number of the tensor ``last``."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIZE_PX])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", 1, *SIZE_PX])
    ends = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"]),
        helper.make_node("ReduceMax", [last], ["greatest"], keepdims=0),
        helper.make_node("Add", ["mean", "greatest"], ["result"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, "axes": np.array([1])}.items()]
    graph = helper.make_graph([*nodes, *ends], "hostile", [image], [result], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, facts().to_metadata())
    path.write_bytes(model.SerializeToString())
    return path


def constant(path: Path) -> Path:
    return write(path, [helper.make_node("ConstantOfShape", ["size"], ["big"])], {"size": np.array([2**33])}, "big")


def made_at_run(path: Path) -> Path:
    nodes = [*COUNT, helper.make_node("Mul", ["count", "times"], ["size"]), helper.make_node("ConstantOfShape", ["size"], ["big"])]
    return write(path, nodes, {"times": np.array([2**20])}, "big")


def doubled(path: Path) -> Path:
    nodes = [helper.make_node("Concat", [f"m{n}"] * 2, [f"m{n + 1}"], axis=3) for n in range(24)]
    return write(path, [helper.make_node("Identity", ["image"], ["m0"]), *nodes], {}, "m24")


def looped(path: Path) -> Path:
    """2^62 times the same image."""
    i, go, value = (helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("go", 9, []), ("value", 1, None)))
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, None)
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["value"], ["same"])],
        "body",
        [i, go, value],
        [on, same],
    )
    nodes = [helper.make_node("Loop", ["trips", "yes", "image"], ["looped"], body=body)]
    return write(path, nodes, {"trips": np.int64(2**62), "yes": np.array(True)}, "looped")


def long_when_opened(path: Path) -> Path:
    """A convolution of constants: onnxruntime computes it when it opens the file, and cannot be told to stop."""
    nodes = [helper.make_node("ConstantOfShape", [f"{n}_size"], [n]) for n in ("x", "w")]
    nodes.append(helper.make_node("Conv", ["x", "w"], ["y"], pads=[1000] * 4))
    return write(path, nodes, {"x_size": np.array([1, 1, 4096, 4096]), "w_size": np.array([1, 1, 2000, 2000])}, "y")


# Earlier ones compute constants without a limit when they open a file, and no other thread of Python runs meanwhile.
BOUNDED_WHEN_OPENED = pytest.mark.skipif(Version(onnxruntime.__version__) < Version("1.31"), reason="needs onnxruntime 1.31")


@pytest.mark.parametrize("made", [pytest.param(constant, marks=BOUNDED_WHEN_OPENED), made_at_run, doubled])
def test_memory_is_bounded(made: object, tmp_path: Path) -> None:
    session = DepthSession(made(tmp_path / "model.onnx"), "cpu")  # type: ignore[operator]
    with pytest.raises(
        InputError, match=r"model\.onnx needs more memory than the 1\.25 GiB that a model gets, .* set MD_MAX_MODEL_BYTES to more"
    ):
        session.predict(images_of(1))


@pytest.mark.parametrize("made", [looped, pytest.param(long_when_opened, marks=BOUNDED_WHEN_OPENED)])
def test_time_is_bounded(made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MD_MAX_MODEL_SECONDS", "1")
    path = made(tmp_path / "model.onnx")  # type: ignore[operator]
    with pytest.raises(
        InputError, match=r"model\.onnx takes more than 1 s of the processor for one image.* set MD_MAX_MODEL_SECONDS to more"
    ):
        DepthSession(path, "cpu").predict(images_of(1))


def test_ctrl_c_ends_the_run_before_it_is_raised(tmp_path: Path) -> None:
    """A thread that came back from onnxruntime while Python ends would abort it."""
    asked, ended = Event(), Event()

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        if asked.wait(60):
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        within_seconds(60, work, asked.set, tmp_path)
    assert ended.is_set()


# A command whose model comes back from its operator, which nothing ends, while Python is ending: that takes as long as this does.
ENDING_LATE = """
import time

class Late:
    def __del__(self, sleep=time.sleep):
        sleep(20)

late = Late()
from export.runtime import bounds

bounds.GRACE_S = 0
from export.commands.md_predict import md_predict

md_predict()
"""


@pytest.mark.slow
def test_an_operator_that_nothing_ends_does_not_abort_the_command(tmp_path: Path) -> None:
    nodes = [*COUNT, helper.make_node("Mul", ["count", "nothing"], ["zero"])]
    for name in ("x", "w"):
        nodes.append(helper.make_node("Add", ["zero", f"{name}_size"], [f"{name}_shape"]))
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name]))
    nodes.append(helper.make_node("Conv", ["x", "w"], ["y"], pads=[50] * 4))
    sizes = {"nothing": np.array([0]), "x_size": np.array([1, 1, 1500, 1500]), "w_size": np.array([1, 1, 100, 100])}
    path = write(tmp_path / "model.onnx", nodes, sizes, "y")
    Image.new("RGB", SIZE_PX[::-1]).save(tmp_path / "photo.png")
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "MD_MAX_MODEL_SECONDS": "1"}
    command = [sys.executable, "-c", ENDING_LATE, "--image", "photo.png", "--model", str(path), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Error: " in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.slow
@BOUNDED_WHEN_OPENED
@pytest.mark.parametrize("made", [constant, made_at_run, doubled, looped, long_when_opened])
def test_md_predict_ends_in_a_line_within_the_bounds(made: object, tmp_path: Path) -> None:
    path = made(tmp_path / "model.onnx")  # type: ignore[operator]
    Image.new("RGB", SIZE_PX[::-1]).save(tmp_path / "photo.png")
    require_refused(run_bounded(["md-predict", "--image", "photo.png", "--model", path, "--out", "out"], cwd=tmp_path), "model.onnx")


@pytest.mark.parametrize("name", ["/dev/zero", "../../../../../../dev/zero", "../weights.bin"])
def test_weights_outside_the_models_folder_are_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    path = write(folder / "model.onnx", [], {"w": np.zeros(4, np.float32)}, "w")
    model = onnx.load(path)
    (tensor,) = (each for each in model.graph.initializer if each.name == "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"says that its weights are in .*, which is not beside it, and so is not opened"):
        DepthSession(path, "cpu")


def test_sizes_that_no_run_has_are_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIZE_PX])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", 1, 16384, 16384])
    nodes = [helper.make_node("ReduceMean", ["image", "axes"], ["m"]), helper.make_node("Resize", ["m", "", "", "size"], ["result"])]
    tensors = [numpy_helper.from_array(np.array(v), n) for n, v in (("axes", [1]), ("size", [1, 1, 16384, 16384]))]
    model = helper.make_model(
        helper.make_graph(nodes, "large", [image], [result], tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    helper.set_model_props(model, facts().to_metadata())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"takes or gives 268,435,456 pixels in a run, and at most 16,777,216 are computed"):
        DepthSession(tmp_path / "model.onnx", "cpu")


def test_a_size_that_only_the_facts_have_is_refused(tmp_path: Path) -> None:
    """Else images are resized to it before the graph refuses them."""
    path = save_onnx(tmp_path / "model.onnx", facts(height_px=2**14, width_px=2**14))
    with pytest.raises(InputError, match=r"model.onnx records an input of 16384 x 16384 pixels, which no network takes"):
        open_model(path)
