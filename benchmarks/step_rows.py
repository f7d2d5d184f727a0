"""The ways of making a training step, and its loss alone, that ``bench_step`` times: what each row does, and how it is run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import COMPILER, IS_REHEARSAL, fp32_convolutions
from benchmarks.plain_step import PlainStep, plain_inputs
from benchmarks.step_inputs import as_leaves, default_config, tensors
from dataload.batch import Batch
from engine.loss.objective import Predictions
from engine.networks import Networks
from engine.precision import autocast_dtype, dtype_name
from engine.training.build import build_engine, make_step
from engine.training.update import WARM_UP_CALLS, Updater

# At this learning rate no weight changes though Adam does all its work: every step of every row must give the same loss.
STILL = 1e-30
# Tolerance of the loss, by the networks' precision: the same sums in another order, and half-precision networks. TF32 rounds as fp16 does.
AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 1e-3, torch.float16: 1e-3}
TF32_AGREEMENT = AGREEMENT[torch.float16]
# On a GPU the first steps of a row compile and capture, the following few settle its memory.
GPU_WARMUP_STEPS = 8
# Steps queued on a GPU before it is waited for, as in training, which does not wait after each.
GPU_STEPS_A_RUN = 10
GIB = 2**30
# How rows are called, or how their names begin.
PLAIN, PLAIN_COMPILED, OURS, LOSS_ALONE = "plain fp32", "plain half precision", "ours as md-train runs it", "loss alone, "

# One step, or one pass through the loss; returns the loss, on the device and not waited for.
Step = Callable[[], Tensor]


class Way(NamedTuple):
    """A way of making steps: what makes it ready, and how far its loss may be off."""

    build: Callable[[], Step]
    agreement: float = AGREEMENT[torch.float32]


class Row:
    """A way, built on ``device`` and warmed up; a call makes ``steps`` steps and waits for them.

    Attributes:
        loss: of the last step.
        convolutions: what fp32 convolutions compute in, as it is once the row is built.
        ready_s: what building it and its first steps took, compilation included.
        peak_gib: most memory of the GPU it had at once, beside the batch; None on a CPU.
    """

    def __init__(self, way: Way, device: torch.device) -> None:
        gpu = device.type == "cuda"
        self.steps = GPU_STEPS_A_RUN if gpu else 1
        self.peak_gib: float | None = None
        if gpu:
            torch.cuda.synchronize()
            # A capture cannot use what the allocator keeps of earlier rows.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        start_s = time.perf_counter()
        self._gpu, self._step = gpu, way.build()
        for _ in range(GPU_WARMUP_STEPS if gpu else 1):
            self.loss = self._step()
        self._wait()
        self.ready_s = time.perf_counter() - start_s
        self.convolutions = fp32_convolutions(device)
        if gpu:
            self.peak_gib = (torch.cuda.max_memory_allocated() - held) / GIB

    def __call__(self) -> None:
        """Make the steps."""
        for _ in range(self.steps):
            self.loss = self._step()
        self._wait()

    def _wait(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()


def whole_steps(networks: Networks, batch: Batch, size_px: tuple[int, int], num_layers: int, *, compiled: bool) -> dict[str, Way]:
    """By name: ways of making whole updates (forward, backward, Adam) from the same weights, each on its own copy of them."""
    device = batch.K.device
    dtype = autocast_dtype("auto", device)
    half = dtype or torch.bfloat16
    ways = {PLAIN: Way(lambda: _plain(networks, batch, size_px, None))}
    if compiled:
        ways[f"{PLAIN_COMPILED}, channels_last, compiled, {dtype_name(half)}"] = Way(
            lambda: _plain(networks, batch, size_px, half), AGREEMENT[half]
        )
    exact = AGREEMENT[torch.float32] if fp32_convolutions(device) == "fp32" else TF32_AGREEMENT
    ways["ours fp32"] = Way(lambda: _ours(networks, batch, size_px, num_layers, amp="off", compile=False), exact)
    agreement = AGREEMENT[dtype or torch.float32]
    ways[f"{OURS}, {dtype_name(dtype)}"] = Way(lambda: _ours(networks, batch, size_px, num_layers), agreement)
    return ways


def _plain(networks: Networks, batch: Batch, size_px: tuple[int, int], dtype: torch.dtype | None) -> Step:
    """The plain step: as it comes; or with what a few lines around it give: half precision, channels_last, compiled, fused Adam."""
    networks, inputs = copy.deepcopy(networks), plain_inputs(batch)
    step = PlainStep(networks, batch_size=len(batch.K), size_px=size_px, autocast_dtype=dtype).to(batch.K.device)
    if dtype is not None:
        networks.to(memory_format=torch.channels_last)
        in_order = [image.contiguous(memory_format=torch.channels_last) for image in (inputs.target_input, *inputs.source_inputs)]
        inputs = inputs._replace(target_input=in_order[0], source_inputs=in_order[1:])
        step.compile(**COMPILER)
    optimizer = torch.optim.Adam(networks.parameters(), STILL, fused=True if dtype is not None else None)

    def update() -> Tensor:
        optimizer.zero_grad()
        loss = step(inputs)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return update


def _ours(networks: Networks, batch: Batch, size_px: tuple[int, int], num_layers: int, **options: Any) -> Step:
    """Updates as training makes them, with md-train's defaults but for ``options``."""
    height_px, width_px = size_px
    config = default_config(
        height_px=height_px, width_px=width_px, batch_size=len(batch.K), num_layers=num_layers, learning_rate=STILL, **options
    )
    engine = build_engine(config, batch.K.device, metric_factor=1.0)
    engine.networks.load_state_dict(networks.state_dict())
    updater = Updater(engine, capture=batch.K.device.type == "cuda" and not options)
    promised = str(updater)

    def update() -> Tensor:
        loss = updater(batch).loss.detach()
        # Training that cannot compile or capture runs without; a row of this name must not.
        if updater.prepared and str(updater) != promised:
            raise RuntimeError(f"the step is {updater}, not {promised}")
        return loss

    return update


def losses(networks: Networks, batch: Batch, size_px: tuple[int, int], *, compiled: bool) -> dict[str, Way]:
    """By name: ways from the same ready predictions to the loss and its gradients with respect to disparities and motions."""
    plain = PlainStep(networks, batch_size=len(batch.K), size_px=size_px).to(batch.K.device)
    inputs = plain_inputs(batch)
    with torch.no_grad():
        predictions = as_leaves(plain.predict(inputs))
    ours = make_step(default_config(), networks).to(batch.K.device)

    def plain_loss() -> Tensor:
        return plain.loss(predictions, inputs)

    ways = {f"{LOSS_ALONE}plain": Way(lambda: _with_gradients(plain_loss, predictions))}
    if compiled:
        ways[f"{LOSS_ALONE}plain, compiled"] = Way(lambda: _with_gradients(torch.compile(plain_loss, **COMPILER), predictions))

    def loss_as_trained() -> Tensor:
        return ours.objective(predictions, batch, ours.noise_seed).loss

    def build() -> Step:
        on_gpu = batch.K.device.type == "cuda"
        if not on_gpu and not IS_REHEARSAL:
            return _with_gradients(loss_as_trained, predictions)
        step = _with_gradients(torch.compile(loss_as_trained, fullgraph=True, **COMPILER), predictions)
        return _capture(step) if on_gpu else step

    ways[LOSS_ALONE + OURS] = Way(build)
    return ways


def _with_gradients(loss: Step, predictions: Predictions) -> Step:
    """``loss`` followed by its gradients with respect to the predictions."""

    def step() -> Tensor:
        value = loss()
        torch.autograd.grad(value, tensors(predictions))
        return value.detach()

    return step


def _capture(step: Step) -> Step:
    """``step`` as a CUDA graph, as in training, where launching its few kernels costs nothing."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_CALLS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay
