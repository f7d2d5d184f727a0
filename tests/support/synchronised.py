"""What processes of the tests of BatchNorm over a group do: each runs a check here, which compares its share with the whole batch's."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from engine.networks.encoder import ResnetEncoder
from engine.networks.norm import UncountedNorm, synchronise_norms
from engine.networks.recompute import recompute_activations

# Per process.
SAMPLES = 2
CHANNELS = 5


class Passed(NamedTuple):
    """Of one training pass: what comes out, gradients of the input and of the parameters, running statistics."""

    outputs: list[Tensor]
    by_input: Tensor
    by_parameters: dict[str, Tensor]
    statistics: dict[str, Tensor]


def in_processes(world_size: int, check: Callable[[], None], folder: Path) -> None:
    """Run a check of this module in that many processes of a gloo group; raises the first one's error."""
    mp.spawn(_join, (world_size, check, f"file://{folder / 'rendezvous'}"), world_size)


def _join(rank: int, world_size: int, check: Callable[[], None], place: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world_size)
    check()
    dist.destroy_process_group()


def _norm(dtype: torch.dtype) -> UncountedNorm:
    norm = UncountedNorm(CHANNELS, momentum=0.3).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias, -1.0, 1.0)
    return norm


def _images(*shape: int) -> Tensor:
    """Of the whole batch, each sample with a mean of its own, so that processes differ in mean and in spread."""
    samples = SAMPLES * dist.get_world_size()
    images = torch.rand(samples, *shape) * (1.0 + torch.arange(samples))[:, None, None, None] + torch.arange(samples)[:, None, None, None]
    return images.contiguous(memory_format=torch.channels_last)


def _own(tensor: Tensor) -> Tensor:
    return tensor[dist.get_rank() * SAMPLES :][:SAMPLES]


def _passed(network: nn.Module, images: Tensor, weights: list[Tensor]) -> Passed:
    """The loss is a weighted sum of all outputs."""
    x = images.clone().requires_grad_()
    answer = network(x)
    outputs = answer if isinstance(answer, list) else [answer]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    assert x.grad is not None
    by_parameters = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return Passed([output.detach() for output in outputs], x.grad, by_parameters, dict(network.named_buffers()))


def _close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * expected.abs().max().item())


def _agree(whole: nn.Module, part: nn.Module, images: Tensor, tolerance: float) -> Passed:
    """Check that ``part``, given each process's samples, does as ``whole`` does with all of them; gives what this process got."""
    of_all = images.to(next(whole.parameters()).dtype)
    with torch.no_grad():
        shapes = copy.deepcopy(whole)(of_all)
    weights = [torch.randn(each.shape, dtype=torch.float64) for each in (shapes if isinstance(shapes, list) else [shapes])]
    expected, found = _passed(whole, of_all, weights), _passed(part, _own(images), [_own(weight) for weight in weights])
    for of_part, of_whole in zip(found.outputs, expected.outputs, strict=True):
        _close(of_part, _own(of_whole), tolerance)
    _close(found.by_input, _own(expected.by_input), tolerance)
    assert found.by_parameters.keys() == expected.by_parameters.keys()
    for name, gradient in found.by_parameters.items():
        together = gradient.clone()
        dist.all_reduce(together)
        _close(together, expected.by_parameters[name], tolerance)
    for name, statistic in found.statistics.items():
        _close(statistic, expected.statistics[name], tolerance)
    return found


def _synchronised(network: nn.Module) -> nn.Module:
    part = copy.deepcopy(network)
    synchronise_norms(part, dist.group.WORLD)
    return part


def check_a_norm() -> None:
    """In fp64, in fp32, compiled, and in bf16 between fp32 parameters."""
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        images, whole = _images(CHANNELS, 6, 10).to(dtype), _norm(dtype)
        for far in (0.0, 100.0):
            found = _agree(copy.deepcopy(whole), _synchronised(whole), images + far, tolerance if far == 0.0 else 100 * tolerance)
        assert found.outputs[0].is_contiguous(memory_format=torch.channels_last)
        assert found.by_input.is_contiguous(memory_format=torch.channels_last)
    compiled = _synchronised(whole)
    compiled.compile(fullgraph=True, backend="aot_eager")
    _agree(copy.deepcopy(whole), compiled, images, 2e-6)
    half = images.bfloat16()
    found = _agree(copy.deepcopy(whole), _synchronised(whole), half, 1e-2)
    assert {found.outputs[0].dtype, found.by_input.dtype} == {torch.bfloat16}
    assert {each.dtype for each in found.by_parameters.values()} == {torch.float32}


def check_an_encoder() -> None:
    """In fp64, where nothing hangs on the last bit, also with activations recomputed and compiled; in fp32 what comes out."""
    torch.manual_seed(0)
    whole = ResnetEncoder(18).double().to(memory_format=torch.channels_last)
    images = _images(3, 64, 96).double() / 10
    _agree(copy.deepcopy(whole), _synchronised(whole), images, 1e-11)
    recomputing = _synchronised(whole)
    recompute_activations(recomputing)
    _agree(copy.deepcopy(whole), recomputing, images, 1e-11)
    recomputing = _synchronised(whole)
    recompute_activations(recomputing)
    recomputing.compile(fullgraph=True, backend="aot_eager")
    _agree(copy.deepcopy(whole), recomputing, images, 1e-11)
    single, part = copy.deepcopy(whole).float(), _synchronised(whole).float()
    with torch.no_grad():
        for of_part, of_whole in zip(part(_own(images.float())), single(images.float()), strict=True):
            _close(of_part, _own(of_whole), 3e-5)
    for name, statistic in part.named_buffers():
        _close(statistic, single.get_buffer(name), 5e-5)
