"""Logical bytes that the operators' kernels read and write, each strip's halo left out."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from engine.loss.photometric_triton.operators import launches_of


def _bytes(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def _photometric_traffic(inputs: Sequence[Any], outputs: Sequence[Tensor]) -> int:
    disps, motions, target, sources, identity, shifts, _low, _span, _ssim, average, with_gradient = inputs
    num_sources = sources.shape[1]
    launches = launches_of(num_sources, with_gradient=with_gradient)
    taken = sum(launch.num_sources for launch in launches)
    by_scale = len(launches) * _bytes(target) + taken * _bytes(sources) // num_sources + _bytes(identity)
    if len(launches) > 1:
        groups = len({launch.first for launch in launches})
        # A group but the first reads what the one before it wrote: losses in 4 bytes and, with gradients, those and choices in 1.
        pixel_bytes = 8 * (groups - 1)
        if with_gradient:
            pixel_bytes += 8 * (groups - 1) + groups + (0 if average else groups - 1) + groups
        by_scale += target.numel() * pixel_bytes
    return len(shifts) * by_scale + _bytes(disps, motions, *outputs)


def _all_traffic(inputs: Sequence[Any], outputs: Tensor | Sequence[Tensor]) -> int:
    made = [outputs] if isinstance(outputs, Tensor) else outputs
    return _bytes(*made, *(each for each in inputs if isinstance(each, Tensor)))


# By an operator's name, a function of its inputs and outputs.
TRAFFIC: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "md_engine::photometric_identity": _all_traffic,
    "md_engine::photometric": _photometric_traffic,
    "md_engine::photometric_gather": _all_traffic,
    "md_engine::smoothness": _all_traffic,
    "md_engine::smoothness_gradient": _all_traffic,
}
