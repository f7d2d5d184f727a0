"""What the tests of whole updates and of checkpoints share: small engines and networks, batches, updates."""

from collections.abc import Iterator
from typing import Any

import torch
from published import networks_of
from steps import make_batch, make_step
from torch import nn

from dataload.batch import Batch
from engine.networks import Networks
from engine.networks.recompute import recompute_activations
from engine.precision import grad_scaler
from engine.training.build import Engine
from engine.training.optim import build_optimizer
from engine.training.step import LossTerms
from engine.training.update import Updater, seed_step
from engine.weights import InputSize

CPU = torch.device("cpu")
SIZE = InputSize(64, 96, True)


def stereo_networks(num_layers: int = 18, scales: tuple[int, ...] = (0, 1, 2, 3)) -> Networks:
    return networks_of(num_layers=num_layers, scales=scales, frame_ids=(0,), use_stereo=True)


def make_engine(*, recompute: bool = False, device: torch.device = CPU, learning_rate: float = 1e-4, **options: Any) -> Engine:
    """An engine as training builds it, on the tests' small step."""
    step, _ = make_step(**options)
    networks = step.networks.to(device).to(memory_format=torch.channels_last)
    if recompute:
        recompute_activations(networks)
    dtype = options.get("autocast_dtype")
    return Engine(networks, step.to(device), build_optimizer(networks, learning_rate), grad_scaler(dtype, device), device, dtype)


def on(device: torch.device, batch: Batch) -> Batch:
    return Batch(*(tuple(t.to(device) for t in field) if isinstance(field, tuple) else field.to(device) for field in batch))


def batches(engine: Engine, count: int, samples: int = 4) -> Iterator[Batch]:
    """That many batches of different content, sources swapped and samples rolled."""
    objective = engine.step.objective
    batch = on(engine.device, make_batch((0, *objective.temporal_ids), objective.use_stereo, samples=samples))
    for number in range(count):
        yield batch._replace(target_input=batch.target_input.roll(number, -1), K=batch.K.roll(number, 0))


def updates(engine: Engine, updater: Updater, count: int, **size: int) -> list[float]:
    losses = []
    for number, batch in enumerate(batches(engine, count, **size)):
        seed_step(engine.step, 7, number)
        losses.append(updater(batch).loss.clone())
    return torch.stack(losses).tolist()


def assert_same_state(one: Engine, other: Engine) -> None:
    left, right = one.networks.state_dict(), other.networks.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


class OneConvolution(nn.Module):
    """A step that compiles in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ELU())

    def forward(self, batch: Batch) -> LossTerms:
        loss = self.networks(batch.target_input / 255.0).square().mean()
        return LossTerms(loss, (loss.detach(),))


def compiled_updater() -> Updater:
    """Updates in two parts by a step of one convolution, which the first update compiles."""
    torch.manual_seed(0)
    step = OneConvolution()
    step.compile(fullgraph=True)
    engine = Engine(step.networks, step, build_optimizer(step.networks, 1e-3), grad_scaler(None, CPU), CPU, None)
    return Updater(engine, parts=2)
