"""What is exported: resizing as Pillow does it, depth conversion, folded norms, fp16; and the file with its facts."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published import networks_of

from engine.inference.depth_network import DepthNetwork
from export.conversion import to_onnx
from export.conversion.deployed import DeployedDepth, fold_norms, lanczos, to_fp16, transpose_head
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import OUTPUTS, ModelFacts
from splits.errors import InputError

SIZE_PX = (64, 96)
FACTS = ModelFacts(height_px=64, width_px=96, training="stereo", metric_factor=5.4, opset=OPSET, source="here", licence="none")


def small_network(num_layers: int = 18) -> DepthNetwork:
    """An untrained network whose norms have statistics and affine maps that are not the identity."""
    torch.manual_seed(0)
    networks = networks_of(num_layers=num_layers)
    for module in networks.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    facts = {"height": 64, "width": 96, "use_stereo": True, "num_layers": num_layers}
    facts |= {"min_depth": 0.1, "max_depth": 100.0, "metric_factor": 5.4}
    return DepthNetwork(networks.encoder, networks.depth, facts).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    return small_network()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def run(path, **feeds):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


@settings(max_examples=25, deadline=None)
@given(*[st.integers(1, 150)] * 2, *[st.integers(1, 100)] * 2)
def test_lanczos_resizes_as_pillow_does(height, width, new_height, new_width):
    image = noise(height, width, 3)
    # One axis after the other: of both at once, Pillow since 13 takes the rows first where that is quicker.
    wide = Image.fromarray(image).resize((new_width, height), Image.Resampling.LANCZOS)
    expected = np.asarray(wide.resize((new_width, new_height), Image.Resampling.LANCZOS), np.float32)
    resized = lanczos(torch.from_numpy(image)[None], new_height, new_width)[0].permute(1, 2, 0).numpy()
    # Ties that the two round apart are few; one in the first pass can be two levels after the second.
    assert np.max(np.abs(resized - expected)) <= 2
    assert np.count_nonzero(resized != expected) <= 2 + 2e-3 * expected.size


def test_lanczos_is_as_exact_at_the_end_of_a_wide_image_as_at_its_start():
    image = noise(4, 7680, 3)
    expected = np.asarray(Image.fromarray(image).resize((640, 4), Image.Resampling.LANCZOS), np.float32)
    differs = lanczos(torch.from_numpy(image)[None], 4, 640)[0].permute(1, 2, 0).numpy() != expected
    assert differs.mean() < 1e-3


def test_an_image_of_the_networks_size_passes_untouched():
    image = torch.from_numpy(noise(2, *SIZE_PX, 3))
    assert torch.equal(lanczos(image, *SIZE_PX), image.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("num_layers", [18, 50])
def test_folding_norms_into_convolutions_changes_nothing(num_layers):
    network, image = small_network(num_layers), torch.rand(1, 3, *SIZE_PX)
    plain = fold_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    torch.testing.assert_close(plain(image), network(image), rtol=1e-4, atol=1e-6)


def test_half_precision_starts_behind_the_normalisation(network):
    image = torch.rand(1, 3, *SIZE_PX)
    half = to_fp16(network)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    assert half(image).dtype == torch.float32
    torch.testing.assert_close(half(image), network(image), rtol=0, atol=2e-3)


def test_a_transposed_head_gives_the_same(network):
    image = torch.rand(1, 3, *SIZE_PX)
    transposed = transpose_head(network)
    assert sum(isinstance(module, torch.nn.ConvTranspose2d) for module in transposed.modules()) == 1
    torch.testing.assert_close(transposed(image), network(image), rtol=1e-5, atol=1e-6)


def test_every_output_is_the_same_depth(network):
    image = torch.rand(1, 3, *SIZE_PX)
    disp, inv_depth, depth, depth_m = (DeployedDepth(network, output, metric_factor=5.4)(image) for output in OUTPUTS)
    torch.testing.assert_close(inv_depth, 0.01 + 9.99 * disp)
    torch.testing.assert_close(depth * inv_depth, torch.ones_like(depth))
    torch.testing.assert_close(depth_m, 5.4 * depth)


@pytest.fixture(scope="module")
def plain_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "plain.onnx"
    depth_onnx(network, FACTS, path)
    return path


def test_the_file_says_what_it_is(plain_file):
    model = onnx.load(plain_file)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["inv_depth"]
    assert ModelFacts.from_metadata({entry.key: entry.value for entry in model.metadata_props}, plain_file) == FACTS
    # The norms are inside the convolutions, and nothing is left of the scales that are not asked for.
    operators = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Sigmoid") == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_gives_what_torch_gives(network, plain_file, batch):
    image = torch.rand(batch, 3, *SIZE_PX)
    expected = DeployedDepth(network, "inv_depth")(image)
    np.testing.assert_allclose(run(plain_file, image=image.numpy()), expected.numpy(), rtol=1e-4)


def test_a_size_that_is_not_open_is_refused(plain_file):
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(plain_file, image=np.zeros((1, 3, 96, 96), np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_open_size_takes_multiples_of_32(network, tmp_path, precision):
    path = tmp_path / "open.onnx"
    depth_onnx(network, dataclasses.replace(FACTS, dynamic_size=True, precision=precision), path)
    for size_px in (SIZE_PX, (96, 160)):
        image = torch.rand(1, 3, *size_px)
        expected = DeployedDepth(network, "inv_depth")(image).numpy()
        np.testing.assert_allclose(run(path, image=image.numpy()), expected, rtol=1e-4 if precision == "fp32" else 2e-2)


def test_preprocessing_takes_frames_of_any_size(network, tmp_path):
    path = tmp_path / "camera.onnx"
    depth_onnx(network, dataclasses.replace(FACTS, preprocessing=True, output="depth_m"), path, batch_size=1)
    for shape in ((375, 1242), (33, 50), SIZE_PX):
        frame = noise(*shape, 3)
        fitted = np.array(Image.fromarray(frame).resize(SIZE_PX[::-1], Image.Resampling.LANCZOS))
        image = torch.from_numpy(fitted).permute(2, 0, 1)[None].float() / 255
        expected = DeployedDepth(network, "depth_m", metric_factor=5.4)(image).numpy()
        np.testing.assert_allclose(run(path, image=frame[None]), expected, rtol=1e-2)


def test_facts_survive_the_metadata():
    facts = dataclasses.replace(
        FACTS, kind="pose", frame_ids=(0, -1, 1), dynamic_size=True, preprocessing=True, min_depth=0.1 + 1e-12, metric_factor=None,
        median_ratio=31.25, licence="naïve = ok",
    )  # fmt: skip
    assert ModelFacts.from_metadata(facts.to_metadata(), "m.onnx") == facts


def test_a_foreign_file_has_no_facts():
    assert ModelFacts.from_metadata({"author": "someone"}, "m.onnx") is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("md_engine.format", "2", "m.onnx was exported by another version .* update monodepth-engine"),
        ("md_engine.height_px", "high", "m.onnx has damaged metadata .* export it again"),
        ("md_engine.preprocessing", "yes", "m.onnx has damaged metadata .* export it again"),
        ("md_engine.output", "banana", "m.onnx has damaged metadata .* export it again"),
        ("md_engine.output", None, "m.onnx has damaged metadata .* export it again"),
    ],
)
def test_metadata_that_is_not_understood_is_refused(key, value, message):
    metadata = FACTS.to_metadata() | {key: value}
    with pytest.raises(InputError, match=message):
        ModelFacts.from_metadata({name: text for name, text in metadata.items() if text is not None}, "m.onnx")


def test_without_onnxscript_one_line_says_so(network, tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^exporting needs onnxscript: pip install onnxscript$"):
        depth_onnx(network, FACTS, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
