"""The examples run as they stand, and each is short enough to read at once."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import nbclient
import nbformat
import numpy as np
import pytest
from places import PROJECT

EXAMPLES = PROJECT / "examples"
MOST_LINES = 60


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of_code(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code")
    return sum(bool(line.strip()) for line in text.splitlines())


@pytest.mark.parametrize("name", ["own_loop.py", "quickstart.ipynb", "ros2_node.py"])
def test_each_fits_on_a_screen_or_two(name: str) -> None:
    assert lines_of_code(EXAMPLES / name) < MOST_LINES


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in said) == 2, "two figures"
    assert any("abs_rel" in output.get("text", "") for output in said)
    assert [output for output in said if output.output_type == "error"] == []


def test_the_notebook_is_kept_without_its_outputs() -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell.get("outputs")] == []


def test_a_loop_of_ones_own_learns_and_md_eval_reads_its_weights(tmp_path: Path) -> None:
    from engine import EvalConfig, TrainConfig, evaluate

    own_loop = load("own_loop")
    config = TrainConfig.from_options(
        dataset="demo", use_stereo=True, height=64, width=192, batch_size=4, weights_init="scratch", initial_depth=11
    )  # fmt: skip
    losses = own_loop.train(config, tmp_path / "weights", epochs=2, steps_per_epoch=6)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    (result,) = evaluate(EvalConfig.from_options(dataset="demo", eval_mono=True, load_weights_folder=[tmp_path / "weights"], no_cuda=True))
    assert result.num_images == 25


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_the_ros_node_reads_images_and_fills_depth(encoding: str) -> None:
    from rosbags.typesys import Stores, get_typestore

    ros2_node = load("ros2_node")
    types = get_typestore(Stores.ROS2_HUMBLE).types
    image, header, time = (types[name] for name in ("sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time"))
    stamp = header(stamp=time(sec=7, nanosec=5), frame_id="camera")
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    sent = {"rgb8": pixels, "bgr8": pixels[..., ::-1], "mono8": pixels[..., 0]}[encoding]
    seen = {"mono8": np.repeat(pixels[..., :1], 3, axis=2)}.get(encoding, pixels)
    data = np.frombuffer(np.ascontiguousarray(sent).tobytes(), np.uint8)
    message = image(header=stamp, height=4, width=6, encoding=encoding, is_bigendian=0, step=data.size // 4, data=data)
    np.testing.assert_array_equal(ros2_node.read_rgb(message), seen)
    depth = np.linspace(1, 9, 24, dtype=np.float32).reshape(4, 6)
    empty = image(header=None, height=0, width=0, encoding="", is_bigendian=0, step=0, data=np.zeros(0, np.uint8))
    filled = ros2_node.fill_depth(empty, message.header, depth)
    assert (filled.header, filled.encoding, filled.step, filled.height, filled.width) == (stamp, "32FC1", 24, 4, 6)
    np.testing.assert_array_equal(np.frombuffer(bytes(filled.data), "<f4").reshape(4, 6), depth)
