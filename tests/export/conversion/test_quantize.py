"""int8: what is calibrated, what stays in float, which bytes move as bytes; that the graph keeps its form and nearly its depth."""

import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from published import networks_of

from engine.inference.depth_network import DepthNetwork
from export.conversion.byte_graph import MAX_BYTE, Levels
from export.conversion.quantize import RUNS_SINCE, _shared_levels, quantize, require_runtime
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import ModelFacts
from export.runtime.providers import version_of
from splits.errors import InputError

SIZE_PX = (64, 96)
FACTS = {"height_px": 64, "width_px": 96, "opset": OPSET, "precision": "int8", "source": "here", "licence": "none"}
KEPT = ("depth.decoder.0.conv.conv", "depth.decoder.10.conv")


needs_bytes = pytest.mark.skipif(version_of(onnxruntime) < RUNS_SINCE, reason="this onnxruntime has no Max of bytes")


def small_network(num_layers: int = 18, scales: tuple[int, ...] = (0, 1, 2, 3)) -> DepthNetwork:
    """An untrained network whose answer depends on the image: its head is steeper than a fresh one."""
    torch.manual_seed(0)
    networks = networks_of(num_layers=num_layers, scales=scales)
    with torch.no_grad():
        for head in networks.depth.heads:
            head.conv.weight.mul_(20)
    facts = {"height": 64, "width": 96, "use_stereo": False, "num_layers": num_layers, "min_depth": 0.1, "max_depth": 100.0}
    return DepthNetwork(networks.encoder, networks.depth, facts).eval().requires_grad_(False)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth images (count,3,h,w) in 0..1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SIZE_PX[0], 0 : SIZE_PX[1]]
    waves = [
        np.sin(x * a + y * b + c) for a, b, c in zip(*rng.uniform(-0.4, 0.4, (2, count * 3)), rng.uniform(0, 6, count * 3), strict=True)
    ]
    return (0.5 + 0.45 * np.stack(waves)).reshape(count, 3, *SIZE_PX).astype(np.float32)


def as_bytes(images: np.ndarray) -> np.ndarray:
    return np.round(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


class Pair:
    """An export in float and what became of it."""

    def __init__(self, folder: Path, network: DepthNetwork, *, batch_size: int | None = None, **facts: object) -> None:
        self.source, self.made = folder / "float.onnx", folder / "int8.onnx"
        depth_onnx(network, ModelFacts(**(FACTS | facts)), self.source, batch_size=batch_size)
        batches = [np.repeat(image[None], batch_size or 1, axis=0) for image in pictures(4)]
        self.kept = quantize(self.source, self.made, [as_bytes(batch) for batch in batches] if facts.get("preprocessing") else batches)
        self.before, self.after = onnx.load(self.source), onnx.load(self.made)

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth by the float and by the int8 file."""
        sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (self.source, self.made)]
        before, after = (1 / session.run(None, {"image": images})[0] for session in sessions)
        return before, after


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    return small_network()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, network: DepthNetwork) -> Pair:
    return Pair(tmp_path_factory.mktemp("plain"), network)


@pytest.fixture(scope="module")
def resizing(tmp_path_factory: pytest.TempPathFactory, network: DepthNetwork) -> Pair:
    return Pair(tmp_path_factory.mktemp("resizing"), network, preprocessing=True)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of each tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input, *graph.output)}
    return known | {initializer.name: initializer.data_type for initializer in graph.initializer}


def require_close(before: np.ndarray, after: np.ndarray) -> None:
    assert np.std(np.log(before)) > 0.1, "an answer that does not depend on the image shows no error"
    relative = np.abs(after / before - 1)
    assert np.mean(relative) < 0.02
    assert np.max(relative) < 0.15


def test_form_and_facts_are_kept(pair):
    assert pair.after.metadata_props == pair.before.metadata_props
    assert (pair.after.producer_name, pair.after.producer_version) == (pair.before.producer_name, pair.before.producer_version)
    assert [(v.name, v.type) for v in pair.after.graph.input] == [(v.name, v.type) for v in pair.before.graph.input]
    assert [(v.name, v.type) for v in pair.after.graph.output] == [(v.name, v.type) for v in pair.before.graph.output]
    assert [(o.domain, o.version) for o in pair.after.opset_import] == [("", OPSET)]  # nothing that only one runtime knows
    onnx.checker.check_model(pair.after, full_check=True)


@needs_bytes
def test_depth_is_nearly_that_of_the_float_file(pair):
    images = pictures(3, seed=1)
    require_close(*pair.run(images))
    alone = np.concatenate([pair.run(image[None])[1] for image in images])
    np.testing.assert_allclose(pair.run(images)[1], alone, rtol=1e-5)  # one of a batch is as good as one alone


def test_file_is_a_quarter_and_its_weights_are_int8_with_a_scale_a_channel(pair):
    assert pair.made.stat().st_size < 0.3 * pair.source.stat().st_size
    arrays = {i.name: numpy_helper.to_array(i) for i in pair.after.graph.initializer}
    weights = [name for name in arrays if name.endswith(".weight_quantized")]
    assert len(weights) == 30  # 20 of the encoder, 10 of the decoder; the head's is float
    for name in weights:
        assert arrays[name].dtype == np.int8
        assert arrays[name.replace("_quantized", "_scale")].shape == arrays[name].shape[:1]
    assert [name for name in arrays if arrays[name].dtype == np.float32 and arrays[name].ndim == 4] == [
        "network.depth.decoder.10.conv.weight"
    ]


def test_two_convolutions_stay_in_float(pair):
    assert pair.kept == KEPT
    makers = {name: node for node in pair.after.graph.node for name in node.output}
    readers = Counter(name for node in pair.after.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1])
    convolutions = [node for node in pair.after.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    in_float = [node for node in convolutions if node.output[0] not in readers]
    assert [node.input[1] for node in in_float] == [f"network.{name}.weight" for name in KEPT]
    assert all(makers[node.input[0]].op_type == "DequantizeLinear" for node in convolutions)


@needs_bytes
@pytest.mark.parametrize("form", ["pair", "resizing"])
def test_bytes_stay_bytes_between_convolutions(form, request):
    model = request.getfixturevalue(form).after
    types, counts = types_of(model), Counter(node.op_type for node in model.graph.node)
    movers = [
        node
        for node in model.graph.node
        if node.op_type in ("Pad", "Gather", "Max") and types.get(node.output[0]) == onnx.TensorProto.UINT8
    ]
    # Eleven borders, five doublings of two axes, and nine ELUs; the first decoder convolution's is in float.
    assert Counter(node.op_type for node in movers) == {"Pad": 11, "Gather": 10, "Max": 9}
    assert counts["Pad"] == 11
    assert (counts["Elu"], counts["Exp"], counts["Resize"], counts["Relu"]) == (1, 9, 0, 0)


@needs_bytes
def test_preprocessing_is_untouched(resizing):
    def before_first_convolution(model: onnx.ModelProto) -> Counter[str]:
        makers = {name: node for node in model.graph.node for name in node.output}
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        found, names = {}, [first.input[0]]
        while names:
            node = makers.get(names.pop())
            if node is not None and node.name not in found:
                found[node.name] = node.op_type
                names += node.input
        return Counter(found.values())

    quantised = before_first_convolution(resizing.after) - before_first_convolution(resizing.before)
    assert quantised == Counter(["QuantizeLinear", "DequantizeLinear"])
    assert not before_first_convolution(resizing.before) - before_first_convolution(resizing.after)
    assert resizing.kept == KEPT
    frames = np.random.default_rng(3).integers(0, 256, (1, 5, 7, 3)).repeat(20, axis=1).repeat(20, axis=2).astype(np.uint8)
    require_close(*resizing.run(frames))


@needs_bytes
def test_open_size_and_fixed_batch(tmp_path, network):
    (tmp_path / "open").mkdir()
    opened = Pair(tmp_path / "open", network, dynamic_size=True)
    assert {axis.dim_param for axis in opened.after.graph.input[0].type.tensor_type.shape.dim} == {"batch", "", "32*h", "32*w"}
    wide = np.concatenate([pictures(1, seed=4), pictures(1, seed=5)], axis=3)
    require_close(*opened.run(wide))
    fixed = Pair(tmp_path, network, batch_size=2)
    require_close(*fixed.run(pictures(2, seed=6)))


@needs_bytes
def test_bottlenecks_and_a_coarse_finest_scale(tmp_path):
    deep = Pair(tmp_path, small_network(50, scales=(1, 2)))
    assert deep.kept == KEPT
    # The head's maps are resized in float, behind what is quantised.
    assert Counter(node.op_type for node in deep.after.graph.node)["Resize"] == 1
    require_close(*deep.run(pictures(2, seed=7)))


@pytest.mark.parametrize(("lowest", "highest"), [(-0.2, 0.1), (-2.0, 3.0), (-50.0, 5.0), (-9.0, 0.0), (-100.0, 100.0), (0.5, 3e4)])
def test_levels_hold_an_elu(lowest, highest):
    scale, zero_point = Levels.for_elu(lowest, highest)
    assert 0 <= zero_point <= MAX_BYTE
    assert scale * (MAX_BYTE - zero_point) >= highest - scale / 2
    assert -scale * zero_point <= -1 + scale / 2
    # What is cut off below is nearer to -1 than half a step.
    cut = -scale * zero_point
    assert cut <= lowest or np.exp(cut) <= scale / 2 * 1.2 or scale > 2 / np.e


@pytest.mark.parametrize(("widest", "shares"), [(3.0, True), (9.0, False)])
def test_joined_bytes_lie_as_those_of_the_elu_where_that_holds_them(widest, shares):
    nodes = [
        onnx.helper.make_node("Elu", ["x"], ["elu"], "elu"),
        onnx.helper.make_node("Resize", ["elu", "", "scales"], ["doubled"], "resize"),
        onnx.helper.make_node("Concat", ["doubled", "skipped"], ["joined"], "concat", axis=1),
    ]
    levels = Levels.for_elu(-2.0, 3.0)
    ranges = {"joined": SimpleNamespace(range_value=(np.float32(-1), np.float32(widest)))}
    shared = _shared_levels(onnx.helper.make_graph(nodes, "graph", [], []), {"elu": levels}, ranges)
    assert shared == dict.fromkeys(("x", "elu", *(("joined",) if shares else ())), levels)


@pytest.mark.parametrize(("version", "runs"), [("1.23.2", False), ("1.24.1", True), ("2.0.0", True)])
def test_an_onnxruntime_that_cannot_run_bytes_is_refused(monkeypatch, version, runs):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    if runs:
        require_runtime()
    else:
        with pytest.raises(InputError, match=r"precision=int8 needs onnxruntime 1.24 or later, and 1.23.2 is installed: pip install -U"):
            require_runtime()


def test_batches_are_asked_for_one_at_a_time(tmp_path, network):
    """A hundred images of a camera would not fit into memory together."""
    asked = []

    def batches():
        for image in pictures(3):
            assert all(ask() is None for ask in asked[:-1]), "earlier batches are kept"
            batch = image[None].copy()
            asked.append(weakref.ref(batch))
            yield batch

    source = tmp_path / "float.onnx"
    depth_onnx(network, ModelFacts(**FACTS), source)
    quantize(source, tmp_path / "int8.onnx", batches())
    assert len(asked) == 3
