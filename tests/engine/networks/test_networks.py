"""Networks: the published files' keys and shapes, which options fit together, the first weights."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from fake_cuda import CUDA, OnlyOnTheGpu, fake_cuda
from functorch.compile import make_boxed_func
from published import networks_of
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

from engine.networks import ENCODERS, MODULES
from engine.networks.border import _pad_pixels, double_with_border, reflect_border
from engine.networks.depth_decoder import DepthDecoder, set_initial_disp
from engine.networks.encoder import ResnetEncoder, inflate, normalise
from engine.networks.pose import PoseCNN, PoseDecoder
from engine.networks.pretrained import cached_file, load_imagenet
from splits.errors import InputError

# Parameters and state-dict keys of each encoder with one image, as published.
ENCODER_SIZES = {18: (11_689_512, 122), 34: (21_797_672, 218), 50: (25_557_032, 320), 101: (44_549_160, 626), 152: (60_192_808, 932)}


def count(module: torch.nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("num_layers", ENCODERS)
def test_encoders_have_the_published_keys_and_features(num_layers: int) -> None:
    with torch.device("meta"):
        encoder = ResnetEncoder(num_layers)
        assert (count(encoder), len(encoder.state_dict())) == ENCODER_SIZES[num_layers]
        features = encoder(torch.empty(1, 3, 64, 96))
    assert all(key.startswith("encoder.") for key in encoder.state_dict())
    shapes = [tuple(f.shape[1:]) for f in features]
    assert shapes == [(c, 64 >> s, 96 >> s) for s, c in zip(range(1, 6), encoder.num_ch_enc, strict=True)]


def test_levels_in_bytes_are_the_same_image() -> None:
    levels = torch.randint(0, 256, (1, 6, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(normalise(levels), normalise(levels / 255.0), rtol=0, atol=2e-6)
    for network in (ResnetEncoder(18, num_input_images=2).eval(), PoseCNN(2)):
        with torch.no_grad():
            torch.testing.assert_close(network(levels), network(levels / 255.0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "images", [torch.rand(2, 3, 64, 64), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)], ids=["unit", "bytes"]
)
def test_statistics_are_those_of_torch(images: torch.Tensor) -> None:
    encoder, plain = ResnetEncoder(18), torchvision.models.resnet18()
    plain.load_state_dict(encoder.encoder.state_dict())
    for _ in range(2):
        encoder(images)
        plain(normalise(images))
    encoder.eval()
    encoder(images)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(encoder.encoder.state_dict()[name], value)
    assert encoder.encoder.bn1.num_batches_tracked == 2


@pytest.mark.parametrize("num_layers", ENCODERS)
def test_every_encoder_takes_several_images(num_layers: int) -> None:
    with torch.device("meta"):
        encoder = ResnetEncoder(num_layers, num_input_images=3)
        assert encoder.state_dict()["encoder.conv1.weight"].shape == (64, 9, 7, 7)
        assert len(encoder(torch.empty(2, 9, 32, 32))) == 5


@pytest.mark.parametrize(("num_layers", "parameters"), [(18, 3_152_724), (50, 9_014_100)])
def test_the_depth_decoder_has_the_published_keys_and_shapes(num_layers: int, parameters: int) -> None:
    wide = num_layers == 50
    state = DepthDecoder(ResnetEncoder(18).num_ch_enc if not wide else (64, 256, 512, 1024, 2048)).state_dict()
    assert (sum(t.numel() for t in state.values()), len(state)) == (parameters, 28)
    shapes = {0: (256, 512), 1: (256, 512), 2: (128, 256), 3: (128, 256), 4: (64, 128), 5: (64, 128), 6: (32, 64), 7: (32, 96), 8: (16, 32)}
    shapes |= {9: (16, 16)}
    shapes |= {0: (256, 2048), 1: (256, 1280), 3: (128, 640), 5: (64, 320)} if wide else {}
    for index, shape in shapes.items():
        assert state[f"decoder.{index}.conv.conv.weight"].shape == (*shape, 3, 3)
    for index, channels in zip(range(10, 14), (16, 32, 64, 128), strict=True):
        assert state[f"decoder.{index}.conv.weight"].shape == (1, channels, 3, 3)


def test_the_heads_follow_the_order_of_the_scales() -> None:
    decoder = DepthDecoder((64, 64, 128, 256, 512), scales=(2, 0))
    state = decoder.state_dict()
    assert state["decoder.10.conv.weight"].shape[1] == 64
    assert state["decoder.11.conv.weight"].shape[1] == 16
    assert "decoder.12.conv.weight" not in state
    features = ResnetEncoder(18)(torch.rand(1, 3, 64, 96))
    assert {scale: tuple(disp.shape[-2:]) for scale, disp in decoder(features).items()} == {2: (16, 24), 0: (64, 96)}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_reflected_border_and_its_gradient_are_those_of_padding(memory_format: torch.memory_format) -> None:
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    weights = torch.rand(2, 3, 6, 4, dtype=torch.float64)
    expected = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    found = reflect_border(x)
    assert found.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((padded * weights).sum(), x)[0] for padded in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size_px", [(2, 3), (4, 2), (5, 7)])
def test_pixels_padded_in_order_are_those_of_padding_and_so_are_two_gradients(size_px: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size_px, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.rand(2, 3, size_px[0] + 2, size_px[1] + 2, dtype=torch.float64)
    expected = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    found = _pad_pixels(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, expected)
    for _ in range(2):
        sums = [(each**2 * weights[..., : each.shape[-2], : each.shape[-1]]).sum() for each in (found, expected)]
        found, expected = (torch.autograd.grad(each, x, create_graph=True)[0] for each in sums)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size_px", [(2, 3), (3, 4), (6, 20)])
@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode, partial(torch.autocast, "cuda", torch.float16)])
def test_borders_on_a_gpu_keep_layout_and_dtype(size_px: tuple[int, int], dtype: torch.dtype, memory_format: Any, mode: Any) -> None:
    height, width = size_px
    with fake_cuda(), mode(), OnlyOnTheGpu():
        x = torch.empty(2, 8, height, width, dtype=dtype, device=CUDA).contiguous(memory_format=memory_format)
        skipped = torch.empty(2, 4, 2 * height, 2 * width, dtype=dtype, device=CUDA).contiguous(memory_format=memory_format)
        bordered = [reflect_border(x), double_with_border(x, None), double_with_border(x, skipped)]
    sizes = [(8, height + 2, width + 2), (8, 2 * height + 2, 2 * width + 2), (12, 2 * height + 2, 2 * width + 2)]
    assert [tuple(each.shape[1:]) for each in bordered] == sizes
    assert all(each.is_contiguous(memory_format=memory_format) and each.dtype == dtype for each in bordered)


@pytest.mark.parametrize("skipped_channels", [0, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_doubling_with_a_border_and_its_gradient_are_those_of_its_parts(memory_format: torch.memory_format, skipped_channels: int) -> None:
    x = torch.rand(2, 3, 2, 3, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    skipped = torch.rand(2, skipped_channels, 4, 6, dtype=torch.float64).requires_grad_() if skipped_channels else None
    weights = torch.rand(2, 3 + skipped_channels, 6, 8, dtype=torch.float64)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    joined = doubled if skipped is None else torch.cat([doubled, skipped], dim=1)
    expected = torch.nn.functional.pad(joined, (1, 1, 1, 1), mode="reflect")
    found = double_with_border(x, skipped)
    assert found.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    inputs = [x] if skipped is None else [x, skipped]
    gradients = [torch.autograd.grad((bordered * weights).sum(), inputs) for bordered in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_decoder_keeps_half_precision_and_layout_between_its_convolutions() -> None:
    x, skipped = (torch.rand(1, 4, size, size).bfloat16().contiguous(memory_format=torch.channels_last) for size in (4, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for bordered in (reflect_border(x), double_with_border(x, skipped)):
            assert bordered.dtype == torch.bfloat16
            assert bordered.is_contiguous(memory_format=torch.channels_last)


def test_stages_that_nothing_reads_are_frozen_not_missing() -> None:
    decoder = DepthDecoder((64, 64, 128, 256, 512), scales=(2, 3))
    frozen = {int(name.split(".")[1]) for name, p in decoder.named_parameters() if not p.requires_grad}
    assert frozen == {6, 7, 8, 9}


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 1_314_572),
        ({"pose_model_input": "all"}, 1_314_572),
        ({"pose_model_type": "shared"}, 1_902_854),
        ({"pose_model_type": "shared", "pose_model_input": "all"}, 2_494_220),
        ({"pose_model_type": "posecnn"}, 1_586_774),
    ],
    ids=str,
)
def test_pose_networks_have_the_published_sizes(options: dict[str, str], parameters: int) -> None:
    networks = networks_of(**options)  # type: ignore[arg-type]
    assert count(networks.pose) == parameters
    assert networks.has("pose_encoder") == ("pose_model_type" not in options)
    keys = set(networks.pose.state_dict())
    assert (
        "pose_conv.weight" in keys
        if isinstance(networks.pose, PoseCNN)
        else keys == {f"net.{i}.{p}" for i in range(4) for p in ("weight", "bias")}
    )


def test_the_pose_encoder_and_whole_models_have_the_published_sizes() -> None:
    mono, stereo = networks_of(), networks_of(frame_ids=(0,), use_stereo=True)
    assert count(mono.pose_encoder) == 11_698_920
    assert (count(mono), count(stereo)) == (27_855_728, 14_842_236)
    assert [name for name, _ in mono.named_children()] == list(MODULES[:4])
    assert [name for name, _ in stereo.named_children()] == ["encoder", "depth"]


def test_more_frames_widen_the_pose_head_and_the_mask() -> None:
    networks = networks_of(frame_ids=(0, -2, -1, 1, 2), use_stereo=True, pose_model_input="all", predictive_mask=True)
    assert isinstance(networks.pose, PoseDecoder)
    assert networks.pose.state_dict()["net.3.weight"].shape[0] == 6 * 4
    assert networks.pose_encoder.state_dict()["encoder.conv1.weight"].shape[1] == 3 * 5
    assert networks.predictive_mask.state_dict()["decoder.10.conv.weight"].shape[0] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_ids": (0,)}, "leaves no source"),
        ({"frame_ids": (-1, 0, 1)}, "start with 0"),
        ({"frame_ids": (0, 1, 1)}, "distinct"),
        ({"num_layers": 20}, "18, 34, 50, 101, 152"),
        ({"scales": (0, 4)}, "one or more of 0 1 2 3"),
        ({"scales": ()}, "one or more of"),
        ({"pose_model_type": "resnet"}, "separate_resnet"),
        ({"pose_model_input": "triple"}, "pairs"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_its_reason(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        networks_of(**options)  # type: ignore[arg-type]


def test_the_initial_disp_is_what_an_untrained_decoder_answers() -> None:
    torch.manual_seed(0)
    networks = networks_of()
    set_initial_disp(networks.depth, 0.05)
    with torch.no_grad():
        disps = networks.depth([torch.zeros(1, channels, 64 >> s, 96 >> s) for s, channels in enumerate(networks.encoder.num_ch_enc, 1)])
    for disp in disps.values():
        assert disp.median().item() == pytest.approx(0.05, rel=0.2)
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="strictly between 0 and 1"):
            set_initial_disp(networks.depth, wrong)


def test_an_inflated_layer_answers_equal_images_as_the_layer_does_one() -> None:
    weight, picture = torch.rand(4, 3, 7, 7), torch.rand(1, 3, 16, 16)
    found = torch.nn.functional.conv2d(picture.repeat(1, 3, 1, 1), inflate(weight, 3))
    torch.testing.assert_close(found, torch.nn.functional.conv2d(picture, weight), rtol=1e-4, atol=0)


def test_half_precision_leaves_the_outputs_in_fp32_and_close() -> None:
    torch.manual_seed(0)
    networks = networks_of().eval()
    picture = torch.rand(2, 6, 64, 96)
    with torch.no_grad():
        plain = networks.depth(networks.encoder(picture[:, :3])), networks.pose([networks.pose_encoder(picture)[-1]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = networks.depth(networks.encoder(picture[:, :3])), networks.pose([networks.pose_encoder(picture)[-1]])
    assert {t.dtype for t in (*half[0].values(), *half[1])} == {torch.float32}
    for scale in plain[0]:
        torch.testing.assert_close(half[0][scale], plain[0][scale], atol=2e-2, rtol=0)
    torch.testing.assert_close(half[1], plain[1], atol=1e-3, rtol=0)


def test_imagenet_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    donor = ResnetEncoder(18)
    file = cached_file(18)
    assert tmp_path in file.parents
    file.parent.mkdir(parents=True)
    torch.save(donor.encoder.state_dict(), file)
    networks = networks_of()
    load_imagenet(networks, 18)
    for key, tensor in donor.state_dict().items():
        torch.testing.assert_close(networks.encoder.state_dict()[key], tensor)
    inflated = networks.pose_encoder.state_dict()["encoder.conv1.weight"]
    torch.testing.assert_close(inflated[:, 3:], donor.state_dict()["encoder.conv1.weight"] / 2)

    file.write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"damaged.*remove it.*--weights_init scratch"):
        load_imagenet(networks, 18)


def test_imagenet_weights_that_cannot_be_had_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InputError, match=r"could not be fetched.*--weights_init scratch, or put resnet18-\w+\.pth into"):
        load_imagenet(networks_of(), 18)


@pytest.mark.skipif(torch.__version__ < "2.12", reason="torch 2.11 adds it up pixel by pixel: right, and slower")
def test_compiled_no_gradient_of_a_doubled_map_is_added_up_pixel_by_pixel() -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, decompositions=select_decomp_table())
    compiled = torch.compile(double_with_border, backend=backend, fullgraph=True)
    inputs = [torch.rand(2, 4, 6, 10, requires_grad=True), torch.rand(2, 3, 12, 20, requires_grad=True)]
    upstream = torch.rand(2, 7, 14, 22)
    assert torch.equal(compiled(*inputs), double_with_border(*inputs))
    for ours, theirs in zip(*(torch.autograd.grad(run(*inputs), inputs, upstream) for run in (compiled, double_with_border)), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(graphs) == 2
    assert not [node.target for graph in graphs for node in graph.graph.nodes if "index_put" in str(node.target)]
