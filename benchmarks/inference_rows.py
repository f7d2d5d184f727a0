"""The ways of predicting depth that ``bench_inference`` times: what each row does, on a CPU and on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.harness import COMPILER, gpu_device
from benchmarks.plain_step import PlainDepth
from benchmarks.step_inputs import default_config
from engine.geometry import disp_to_depth
from engine.inference.depth_network import DepthNetwork
from engine.precision import autocast_dtype, dtype_name
from engine.training.build import make_networks
from export.conversion.deployed import DeployedDepth, fold_norms
from export.conversion.to_onnx import OPSET, depth_onnx
from export.prediction.torch_predictor import torch_inv_depth
from export.runtime.fitting import resize_image
from export.runtime.model_facts import ModelFacts
from export.runtime.providers import check_provider
from splits.errors import InputError

FRAME_PX = (375, 1242)
NUM_LAYERS = 18
PLAIN = "torch eager, float32"
# What md-predict runs on a CPU.
CHECKPOINT = "torch, float32, as md-predict runs a checkpoint"
ONNX_FILE = "onnxruntime, fp32"
# Untrained heads answer nearly the same everywhere; so much steeper, they use their range as trained ones do.
STEEPER = 100.0
# Mean difference of inverse depth, of the spread of the plain answer's. Frames resized in the graph are off by single grey levels.
AGREEMENT = {"fp32": 1e-3, "float32": 1e-3, "fp16": 1e-2, "float16": 1e-2, "bfloat16": 0.1, "int8": 0.2, "frame": 2e-2}
# Calibrating on more changes scales, not speed.
CALIBRATION_IMAGES = 4

# One prediction of all images; returns inverse depth, on the device and finished.
Run = Callable[[], Any]


class Inputs(NamedTuple):
    """Camera frames (B,375,1242,3) uint8, and the same at the network's size as it sees them, (B,3,h,w) fp32 in 0..1."""

    frames: NDArray[np.uint8]
    images: NDArray[np.float32]


class Way(NamedTuple):
    """A way of predicting: what makes it ready, how far it may be from the plain one, and how what it returns is read."""

    build: Callable[[], Run]
    agreement: float
    read: Callable[[Any], NDArray[np.float32]]


class Models:
    """The network's ONNX files in ``folder``, each exported when it is first asked for; int8 is calibrated on ``inputs``."""

    def __init__(self, network: DepthNetwork, inputs: Inputs, folder: Path) -> None:
        self._network, self.inputs, self._folder = network, inputs, folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, precision: str, *, preprocessing: bool = False) -> Path:
        """The file of that precision, fp32, fp16 or int8; with ``preprocessing`` it takes frames."""
        path = self._folder / f"{precision}{'_frames' if preprocessing else ''}.onnx"
        if path.is_file():
            return path
        if precision == "int8":
            from export.conversion.quantize import quantize

            quantize(self.path("fp32"), path, [image[None] for image in self.inputs.images[:CALIBRATION_IMAGES]])
            return path
        size = {"height_px": self._network.height_px, "width_px": self._network.width_px}
        depth_onnx(self._network, ModelFacts(**size, precision=precision, preprocessing=preprocessing, opset=OPSET), path)
        return path

    def make_all(self, *, gpu: bool) -> None:
        """Every file that the ways read, before they start in processes of their own; ``InputError`` where none can read them."""
        if gpu:
            check_provider("cuda")
        for precision in ("fp32", "fp16") if gpu else ("fp32", "fp16", "int8"):
            self.path(precision)
        self.path("fp16" if gpu else "fp32", preprocessing=True)


def depth_network(size_px: tuple[int, int], num_layers: int = NUM_LAYERS) -> DepthNetwork:
    """An untrained network, ready to predict, whose answers spread over the range."""
    torch.manual_seed(0)
    networks = make_networks(default_config(num_layers=num_layers, frame_ids=(0,), use_stereo=True))
    with torch.no_grad():
        for head in networks.depth.heads:
            head.conv.weight *= STEEPER
    facts = {"height": size_px[0], "width": size_px[1], "use_stereo": False, "num_layers": num_layers, "min_depth": 0.1, "max_depth": 100.0}
    return DepthNetwork(networks.encoder, networks.depth, facts).eval().requires_grad_(False)


def random_inputs(batch_size: int, size_px: tuple[int, int]) -> Inputs:
    """Smooth random frames."""
    random = np.random.default_rng(0)
    coarse = [Image.fromarray(random.integers(0, 256, (12, 40, 3), np.uint8)) for _ in range(batch_size)]
    frames = [image.resize(FRAME_PX[::-1], Image.Resampling.BICUBIC) for image in coarse]
    resized = np.stack([resize_image(frame, size_px) for frame in frames])
    images = np.ascontiguousarray(resized.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    return Inputs(np.stack([np.asarray(frame) for frame in frames]), images)


def cpu_ways(network: DepthNetwork, models: Models, inputs: Inputs) -> dict[str, Way]:
    """By name: the plain network, torch's best, and onnxruntime, all on the same images and threads."""
    device = torch.device("cpu")
    dtype = autocast_dtype("auto", device) or torch.float32
    ways = {PLAIN: _torch_way(partial(plain_network, network, device), inputs.images, device)}
    ways[CHECKPOINT] = Way(partial(_checkpoint_run, network, inputs.images), AGREEMENT["float32"], lambda answer: answer[:, None])
    for compiled in (False, True):
        build = partial(best_network, network, device, dtype, compiled=compiled)
        ways[_torch_name(dtype, compiled)] = _torch_way(build, inputs.images, device, dtype)
    for precision in ("fp32", "fp16", "int8"):
        build_session = partial(_cpu_run, models, precision, inputs.images)
        ways[f"onnxruntime, {precision}"] = Way(build_session, AGREEMENT[precision], lambda answer: answer)
    return ways | {"onnxruntime, fp32, from camera frames (DepthSession)": _frames_way(models, "fp32", inputs.frames, "cpu")}


def gpu_ways(network: DepthNetwork, models: Models, inputs: Inputs) -> dict[str, Way]:
    """By name: the same on a GPU, where images and answers stay; frames, of DepthSession alone, come from the CPU and depth goes back."""
    device = gpu_device()
    ways = {PLAIN: _torch_way(partial(plain_network, network, device), inputs.images, device)}
    for compiled, mode, name in ((False, None, ""), (True, "reduce-overhead", ", CUDA graph")):
        build = partial(best_network, network, device, torch.float16, compiled=compiled, mode=mode)
        ways[_torch_name(torch.float16, compiled) + name] = _torch_way(build, inputs.images, device, torch.float16)
    sessions = (("cuda", "fp32", False), ("cuda", "fp16", False), ("cuda", "fp16", True), ("tensorrt", "fp16", False))
    for provider, precision, graph in sessions:
        build_session = partial(_gpu_run, models, provider, precision, inputs.images, graph=graph)
        name = f"onnxruntime, {provider}, {precision}{', CUDA graph' if graph else ''}"
        ways[name] = Way(build_session, AGREEMENT["fp16"], lambda answer: answer.numpy())  # fp32 is in TF32 there
    return ways | {"onnxruntime, cuda, fp16, from camera frames (DepthSession)": _frames_way(models, "fp16", inputs.frames, "cuda")}


def missing_ways(names: Sequence[str]) -> dict[str, str]:
    """Those of ``gpu_ways`` whose provider is not available here, and why."""
    missing = {}
    for name in names:
        runtime, provider, *_ = name.split(", ")
        if runtime == "onnxruntime":
            try:
                check_provider(provider)
            except InputError as error:
                missing[name] = str(error)
    return missing


def _torch_name(dtype: torch.dtype, compiled: bool) -> str:
    return f"torch, {dtype_name(dtype)}, channels_last, norms folded{', compiled' if compiled else ''}"


def plain_network(network: DepthNetwork, device: torch.device) -> nn.Module:
    """The network as it is commonly written and run: fp32, planar, one operator after the other."""
    return _PlainInverseDepth(copy.deepcopy(network).to(device, memory_format=torch.contiguous_format))


class _PlainInverseDepth(nn.Module):
    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network, self.plain = network, PlainDepth(network)

    def forward(self, images: Tensor) -> Tensor:
        return disp_to_depth(self.plain(images)[0], self.network.min_depth, self.network.max_depth)[0]


def best_network(
    network: DepthNetwork, device: torch.device, dtype: torch.dtype, *, compiled: bool, mode: str | None = None
) -> Callable[[Tensor], Tensor]:
    """What a few lines around the network give: norms folded, ``dtype`` between image and logits, channels last, and compiled."""
    best = fold_norms(network).to(device, dtype).to(memory_format=torch.channels_last)
    best.encoder.encoder.conv1.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    deployed = DeployedDepth(best, "inv_depth").eval()

    def predict(images: Tensor) -> Tensor:
        answer: Tensor = deployed(images.contiguous(memory_format=torch.channels_last))
        return answer

    return torch.compile(predict, dynamic=False, **(COMPILER or {"mode": mode})) if compiled else predict


def _torch_way(
    build: Callable[[], Callable[[Tensor], Tensor]], images: NDArray[np.float32], device: torch.device, dtype: torch.dtype = torch.float32
) -> Way:
    def build_run() -> Run:
        predict, given = build(), torch.from_numpy(images).to(device)

        def run() -> Tensor:
            with torch.inference_mode():
                answer = predict(given)
            if given.is_cuda:
                torch.cuda.synchronize()
            return answer

        return run

    return Way(build_run, AGREEMENT[dtype_name(dtype)], lambda answer: answer.cpu().numpy())


def _checkpoint_run(network: DepthNetwork, images: NDArray[np.float32]) -> Run:
    loaded = copy.deepcopy(network).to(memory_format=torch.channels_last)
    levels = np.ascontiguousarray((255 * images).round().astype(np.uint8).transpose(0, 2, 3, 1))
    return lambda: torch_inv_depth(loaded, levels)


def _cpu_run(models: Models, precision: str, images: NDArray[np.float32]) -> Run:
    from export.runtime.providers import cpu_session

    session = cpu_session(models.path(precision))
    return lambda: session.run(None, {"image": images})[0]


def _gpu_run(models: Models, provider: str, precision: str, images: NDArray[np.float32], *, graph: bool) -> Run:
    import onnxruntime

    from export.runtime.providers import gpu_session

    check_provider(provider)  # before the export
    session = gpu_session(models.path(precision), provider, precision, graphs=graph)
    # A session that cannot record runs without a graph; a row of this name must not.
    if graph and session.get_provider_options()["CUDAExecutionProvider"]["enable_cuda_graph"] != "1":
        raise RuntimeError("the run is not recorded as a CUDA graph")
    given = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type([len(images), 1, *images.shape[2:]], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", given)
    binding.bind_ortvalue_output("inv_depth", made)

    def run() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return made

    return run


def _frames_way(models: Models, precision: str, frames: NDArray[np.uint8], provider: str) -> Way:
    def build_run() -> Run:
        from export.session import DepthSession

        check_provider(provider)
        session = DepthSession(models.path(precision, preprocessing=True), provider)
        return lambda: session.predict(frames)

    return Way(build_run, AGREEMENT["frame"], lambda depth: 1 / depth[:, None])


def distance(answer: NDArray[np.float32], plain: NDArray[np.float32]) -> float:
    """The mean difference of an answer from the plain one, as a share of that one's standard deviation."""
    assert answer.shape == plain.shape, f"{answer.shape} instead of {plain.shape}"
    return float(np.mean(np.abs(answer - plain)) / np.std(plain))
