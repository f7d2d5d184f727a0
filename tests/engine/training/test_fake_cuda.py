"""What a GPU runs without a compiler, on one that is not there: nothing on the CPU, nothing read back, channels_last throughout."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, OnlyOnTheGpu, fake_cuda, move_to_gpu, on_gpu

from benchmarks.step_inputs import default_config
from dataload.batch import Batch
from dataload.pipeline import device_graph
from dataload.pipeline.batch_maker import batch_of
from engine.inference.depth_network import DepthNetwork
from engine.inference.pose_network import InputShape, PoseNetwork
from engine.inference.predictions import predict_disp
from engine.loss.objective import Objective
from engine.networks import Networks
from engine.networks.recompute import recompute_activations
from engine.training.build import Engine, make_networks, make_step
from engine.training.config import TrainConfig
from engine.training.optim import set_learning_rate
from engine.training.step import TrainStep
from engine.training.update import Updater, seed_step
from export.conversion.deployed import DeployedDepth, to_fp16

SIZE_PX = (64, 96)
SIZE = {"height_px": SIZE_PX[0], "width_px": SIZE_PX[1]}
FIVE = (0, -2, -1, 1, 2)
# What each case adds to mono training on three frames: one of each network and each way of the loss, and all others.
FEW: list[dict[str, Any]] = [
    {},
    {"frame_ids": FIVE, "use_stereo": True, "pose_model_input": "all"},
    {"pose_model_type": "shared", "pose_model_input": "all", "use_stereo": True},
    {"pose_model_type": "posecnn", "v1_multiscale": True, "use_stereo": True},
    {"predictive_mask": True, "automask": False, "v1_multiscale": True, "use_stereo": True},
    {"scales": (3, 1)},
    {"checkpoint_activations": True},
    {"batch_size": 1},
]
MORE: list[dict[str, Any]] = [
    {"use_stereo": True},
    {"frame_ids": (0,), "use_stereo": True},
    {"frame_ids": (0, 1)},
    {"frame_ids": FIVE},
    {"frame_ids": FIVE, "batch_pose_pairs": True},
    {"batch_pose_pairs": True},
    {"pose_model_input": "all"},
    {"pose_model_type": "shared"},
    {"pose_model_type": "shared", "batch_pose_pairs": True},
    {"pose_model_type": "posecnn"},
    {"pose_model_type": "posecnn", "pose_model_input": "all", "frame_ids": FIVE},
    {"v1_multiscale": True},
    {"v1_multiscale": True, "avg_reprojection": True, "ssim": False},
    {"predictive_mask": True, "automask": False},
    {"automask": False},
    {"ssim": False},
    {"avg_reprojection": True},
    {"scales": (0,)},
    {"num_layers": 50},
    {"checkpoint_activations": True, "pose_model_type": "shared"},
]
DTYPES = [torch.bfloat16, torch.float16, None]


def named(value: Any) -> str:
    """A case's name."""
    return " ".join(f"{key}={each}" for key, each in value.items()) or "mono" if isinstance(value, dict) else str(value)


def cases() -> Iterator[Any]:
    """All options in all dtypes, the few in one of them and all else slow."""
    for number, options in enumerate(FEW + MORE):
        for dtype in DTYPES:
            quick = options in FEW and dtype is DTYPES[number % len(DTYPES)]
            yield pytest.param(options, dtype, marks=[] if quick else [pytest.mark.slow], id=f"{named(options)} {dtype}")


def config_of(**options: Any) -> TrainConfig:
    """md-train's defaults at a small size but for the options."""
    source_levels = 4 if options.get("v1_multiscale") else 1
    return default_config(**{"batch_size": 2, "source_levels": source_levels, **SIZE, **options})


def networks_of(config: TrainConfig) -> Networks:
    """Untrained networks as ``build_engine`` lays them out, not yet on a device."""
    with torch.device("meta"):
        networks = make_networks(config).to(memory_format=torch.channels_last)
    if config.checkpoint_activations:
        recompute_activations(networks)
    return networks


def step_of(config: TrainConfig, dtype: torch.dtype | None) -> TrainStep:
    """The step, not yet on a device."""
    with torch.device("meta"):
        return make_step(config, networks_of(config), dtype)


def frames_of(config: TrainConfig) -> torch.Tensor:
    """Decoded frames on the GPU."""
    return torch.empty(config.data.batch_size, 1 + config.data.num_sources, *SIZE_PX, 3, dtype=torch.uint8, device=CUDA)


def draws_of(config: TrainConfig) -> device_graph.DeviceDraws:
    """Draws on the GPU."""
    count = config.data.batch_size
    flags = (torch.empty(count, dtype=torch.bool, device=CUDA) for _ in range(2))
    return device_graph.DeviceDraws(*flags, *(torch.empty(count, 3, 3, device=CUDA) for _ in range(2)))


def batch_for(config: TrainConfig, draws: device_graph.DeviceDraws | None = None) -> Batch:
    """A batch in the layout that the loader gives it."""
    count = config.data.batch_size
    images = device_graph.augment(frames_of(config), draws, config.data)
    geometry = {"K": torch.empty(count, 3, 3, device=CUDA), "T_stereo": torch.empty(count, 4, 4, device=CUDA)}
    return batch_of(images, geometry | {"indices": torch.empty(count, dtype=torch.int64, device=CUDA)})


@pytest.fixture(autouse=True)
def asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a device answers: whether kernels compile, and the resize's weights, of which the first batch makes a copy there."""
    made = device_graph.halving_weights

    def kept(size: int, resizer: str, device: torch.device) -> tuple[torch.Tensor, int]:
        weights, bits = made(size, resizer, torch.device("cpu"))
        return on_gpu(weights), bits

    monkeypatch.setattr(device_graph, "halving_weights", kept)
    monkeypatch.setattr(Objective, "fuses", lambda self, *_: find_spec("triton") is not None and not self.switches.predictive_mask)


def require_channels_last(guard: OnlyOnTheGpu, *, mask_channels: int | None = None) -> None:
    """Raise where a convolution was given anything else, or none ran.

    The gradient of a predictive mask, with a channel per source, comes as the planes that the losses are.
    """
    assert guard.convolutions
    assert not [(shape, strides) for shape, strides in guard.astray if shape[1] != mask_channels]


@pytest.mark.parametrize(("options", "dtype"), list(cases()))
@pytest.mark.parametrize("fused", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["kernels", "torch"])
def test_a_step_and_its_gradients(options: dict[str, Any], dtype: torch.dtype | None, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(**options)
    if not fused:
        monkeypatch.setattr(Objective, "fuses", lambda *_: False)
    step = step_of(config, dtype)
    with fake_cuda():
        move_to_gpu(step)
        batch = batch_for(config)
        with OnlyOnTheGpu() as guard:
            seed_step(step, 0, 1)
            terms = step(batch)
            terms.loss.backward()
    require_channels_last(guard, mask_channels=config.data.num_sources if config.loss.predictive_mask else None)
    assert (terms.loss.dtype, len(terms.per_scale)) == (torch.float32, len(config.model.scales))
    for name, parameter in step.named_parameters():
        gradient = parameter.grad
        assert (gradient is not None) == parameter.requires_grad, name
        assert gradient is None or (gradient.shape, gradient.dtype, gradient.device) == (parameter.shape, torch.float32, CUDA), name


@pytest.mark.parametrize(("options", "dtype"), list(cases()))
def test_losses_of_validation_and_pictures(options: dict[str, Any], dtype: torch.dtype | None) -> None:
    config = config_of(**options)
    step = step_of(config, dtype)
    with fake_cuda():
        move_to_gpu(step)
        batch = batch_for(config)
        with OnlyOnTheGpu() as guard, torch.no_grad():
            step.eval()
            step(batch)
            pictures = step.pictures(batch)
    require_channels_last(guard)
    assert pictures.warped.shape == (config.data.batch_size, config.data.num_sources, 3, *SIZE_PX)


@pytest.mark.parametrize(("parts", "dtype"), [(1, torch.float16), (2, torch.bfloat16)])
def test_an_update_with_its_scaler_and_adam(parts: int, dtype: torch.dtype) -> None:
    config = config_of()
    step = step_of(config, dtype)
    with fake_cuda():
        move_to_gpu(step)
        scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
        # As build_optimizer makes it, which reads the rate that it puts on the device.
        optimizer = torch.optim.Adam(step.networks.parameters(), lr=1e-4, fused=True, capturable=True)
        optimizer.param_groups[0]["lr"] = torch.empty((), device=CUDA)
        update = Updater(Engine(step.networks, step, optimizer, scaler, CUDA, dtype), parts=parts)
        batch = batch_for(config)
        with OnlyOnTheGpu() as guard:
            for _ in range(2):
                set_learning_rate(optimizer, 1e-5)
                terms = update(batch)
    require_channels_last(guard)
    assert terms.loss.device == CUDA
    assert scaler.is_enabled() == (dtype is torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("post_process", [False, True], ids=["once", "with its mirror image"])
@pytest.mark.parametrize("options", [{}, {"scales": (2, 1)}], ids=named)
def test_predictions_of_evaluation_and_validation(options: dict[str, Any], post_process: bool, dtype: torch.dtype | None) -> None:
    config = config_of(**options)
    network = depth_network(config)
    with fake_cuda():
        move_to_gpu(network)
        batch = batch_for(config)
        # Of a validation batch, and as md-predict gives them.
        pixels = torch.empty(3, *SIZE_PX, 3, dtype=torch.uint8, device=CUDA).permute(0, 3, 1, 2)
        with OnlyOnTheGpu() as guard:
            disps = [
                predict_disp(network, images, post_process=post_process, autocast_dtype=dtype) for images in (batch.target_input, pixels)
            ]
    require_channels_last(guard)
    assert [(tuple(disp.shape), disp.dtype) for disp in disps] == [((count, 1, *SIZE_PX), torch.float32) for count in (2, 3)]


def depth_network(config: TrainConfig) -> DepthNetwork:
    """The network of evaluation, prediction and export, not yet on a device."""
    networks = networks_of(config)
    known = {"height": SIZE_PX[0], "width": SIZE_PX[1], "use_stereo": True, "metric_factor": 5.4, "num_layers": config.model.num_layers}
    network = DepthNetwork(networks.encoder, networks.depth, known | {"min_depth": 0.1, "max_depth": 100.0})
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"pose_model_input": "all"}, {"pose_model_type": "shared"}, {"pose_model_type": "posecnn"}],
    ids=named,
)
def test_the_pose_network_of_evaluation(options: dict[str, Any], dtype: torch.dtype | None) -> None:
    config = config_of(**options)
    frame_ids = config.data.frame_ids if config.model.pose_model_input == "all" else (0, 1)
    kind, networks = config.model.pose_model_type, networks_of(config)
    encoder = {"shared": networks.encoder, "separate_resnet": getattr(networks, "pose_encoder", None)}.get(kind)
    depth = depth_network(config) if kind == "posecnn" else None
    network = PoseNetwork(kind, networks.pose, InputShape(frame_ids, *SIZE_PX), encoder=encoder, depth=depth).eval()
    with fake_cuda():
        move_to_gpu(network)
        images = torch.empty(2, len(frame_ids), *SIZE_PX, 3, device=CUDA).movedim(-1, -3)
        with OnlyOnTheGpu() as guard, torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype is not None):
            transforms = network(images[:, 0], images[:, 1:])
    require_channels_last(guard)
    assert (tuple(transforms.shape), transforms.dtype) == ((2, len(frame_ids) - 1, 4, 4), torch.float32)


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("options", [{}, {"use_stereo": True, "v1_multiscale": True}, {"frame_ids": (0,), "use_stereo": True}], ids=named)
def test_augmentation_gives_batches_as_promised(options: dict[str, Any], augmented: bool) -> None:
    config = config_of(**options)
    with fake_cuda():
        draws = draws_of(config) if augmented else None
        with OnlyOnTheGpu():
            batch = batch_for(config, draws)
    images = [*batch.target, *batch.sources, batch.target_input, batch.source_inputs]
    assert {each.dtype for each in images} == {torch.uint8}
    # NHWC in memory.
    assert all(each.stride()[-3:] == (1, 3 * each.shape[-1], 3) for each in images)
    assert [tuple(level.shape[-2:]) for level in batch.sources] == [(64 >> s, 96 >> s) for s in range(config.data.source_levels)]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("preprocessing", [False, True], ids=["prepared", "resizes"])
def test_deployed_networks(preprocessing: bool, precision: str) -> None:
    network = depth_network(config_of())
    deployed = DeployedDepth(
        to_fp16(network) if precision == "fp16" else network, "depth_m", preprocessing=preprocessing, metric_factor=5.4
    )
    with fake_cuda():
        move_to_gpu(deployed)
        size = (2, 75, 248, 3) if preprocessing else (2, *SIZE_PX, 3)
        image = torch.empty(size, dtype=torch.uint8 if preprocessing else torch.float32, device=CUDA)
        with OnlyOnTheGpu() as guard, torch.inference_mode():
            made = deployed(image if preprocessing else image.permute(0, 3, 1, 2))
    # The products that resize give planes; a file for other runtimes has no layouts.
    assert len(guard.astray) <= preprocessing
    assert (tuple(made.shape), made.dtype) == ((2, 1, *SIZE_PX), torch.float32)


@pytest.mark.parametrize(
    ("strays", "what"),
    [
        (lambda x, beside: x * beside[0, 0], "tensor on cpu"),
        (lambda x, beside: x + beside, "two (different )?devices"),
        (lambda x, _: x * torch.tensor(2.0), "tensor on cpu"),
        (lambda x, _: torch.tensor([2.0, 3.0], device=CUDA), "tensor on cpu"),
        (lambda x, _: x.cpu(), "tensor on cpu"),
        (lambda x, _: x.sum().item(), "_local_scalar_dense"),
        (lambda x, _: x[x > 0], "nonzero"),
    ],
    ids=["a number sent", "two devices", "a number made", "numbers made", "a copy back", "a value read", "a size read"],
)
def test_what_leaves_the_gpu_is_found(strays: Any, what: str) -> None:
    with fake_cuda():
        x, beside = torch.empty(2, 3, device=CUDA), torch.empty(2, 3)
        with OnlyOnTheGpu(), pytest.raises(Exception, match=what):
            strays(x, beside)
