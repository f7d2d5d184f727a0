"""The cost of an export on ground truth: the table of both, and what is said when something is missing."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from evaluation import count_reads
from onnx import numpy_helper
from published import networks_of

from engine.inference.depth_network import load_depth_network
from engine.weights import InputSize, save_weights
from export.config import ExportConfig
from export.conversion.accuracy import compare, prepare_evaluation
from export.conversion.run import export_model
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import ModelFacts
from splits.errors import InputError

KITTI_FACTOR = 5.4
STEREO = {"training": "stereo", "metric_factor": KITTI_FACTOR, "output": "depth_m"}


class Case:
    """A tree of frames and weights, and exports of them."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.folder = folder
        save_weights(folder / "weights", networks_of(frame_ids=(0,), use_stereo=True), InputSize(64, 96, False))
        self.network = load_depth_network(folder / "weights")
        self.config = ExportConfig(weights=folder / "weights", out=folder / "out.onnx", data_path=tree, eval_split=str(tree / "split"))

    def export(self, name: str, **facts: object) -> Path:
        path = self.folder / f"{name}.onnx"
        depth_onnx(self.network, ModelFacts(**({"height_px": 64, "width_px": 96, "opset": OPSET} | facts)), path)
        return path


@pytest.fixture(scope="module")
def case(kitti_tree, tmp_path_factory):
    return Case(kitti_tree(frames=4), tmp_path_factory.mktemp("weights"))


def abs_rels(table: str) -> tuple[float, float]:
    """The two that the last line of a comparison names."""
    before, after = re.search(r"from (\d\.\d+) in torch to (\d\.\d+) in onnxruntime", table.splitlines()[-1]).groups()
    return float(before), float(after)


def test_an_exact_export_costs_nothing_and_is_aligned_as_its_training_asks(case):
    table = compare(prepare_evaluation(case.config), case.export("mono"))
    assert [line.split()[0] for line in table.splitlines()] == ["abs_rel", "torch", "onnxruntime", "*", "abs_rel"]
    before, after = abs_rels(table)
    assert after == pytest.approx(before, abs=2e-4)
    # Metres as they are, where the file knows the factor: another number than the median's.
    metric = abs_rels(compare(prepare_evaluation(case.config), case.export("stereo", **STEREO)))
    assert metric[1] == pytest.approx(metric[0], abs=2e-4)
    assert abs(metric[0] - before) > 0.01
    whole = abs_rels(compare(prepare_evaluation(case.config), case.export("resizing", preprocessing=True)))
    assert whole[1] == pytest.approx(before, abs=5e-4)


def test_a_damaged_export_shows(case):
    model = onnx.load(case.export("damaged", **STEREO))
    bias = next(i for i in model.graph.initializer if i.name.endswith("decoder.10.conv.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    onnx.save(model, case.folder / "damaged.onnx")
    table = compare(prepare_evaluation(case.config), case.folder / "damaged.onnx")
    before, after = abs_rels(table)
    assert abs(after - before) > 0.005
    assert f"{after / before - 1:+.0%}"[0] == re.search(r": ([+-])[\d.]+%$", table)[1]


def test_what_is_missing_is_said_before_the_work(case, tmp_path):
    prepare_evaluation(case.config)
    prepare_evaluation(dataclasses.replace(case.config, data_path=None, weights=tmp_path / "nothing"))  # nobody asked for a comparison
    with pytest.raises(InputError, match="nowhere"):
        prepare_evaluation(dataclasses.replace(case.config, data_path=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no_such_split"):
        prepare_evaluation(dataclasses.replace(case.config, eval_split="no_such_split"))
    scan = next((case.config.data_path).rglob("velodyne_points/data/0000000001.bin"))
    content = scan.read_bytes()
    scan.unlink()
    try:
        with pytest.raises(InputError, match=r"0000000001\.bin"):
            prepare_evaluation(case.config)
    finally:
        scan.write_bytes(content)


def test_weights_are_read_once_and_scored_at_the_size_of_their_training(case, tmp_path, monkeypatch):
    reads, lines = count_reads(monkeypatch), []
    export_model(dataclasses.replace(case.config, out=tmp_path / "larger.onnx", height_px=96, width_px=128), show=lines.append)
    assert reads == {"encoder.pth": 1, "depth.pth": 1}
    assert any("at 128x96" in line for line in lines)
    monkeypatch.undo()
    comparison = next(line for line in lines if "abs_rel moved" in line)
    assert abs_rels(comparison)[0] == abs_rels(compare(prepare_evaluation(case.config), case.export("mono")))[0]
