"""The device and the precision that the networks run in; geometry, losses and the optimizer stay in fp32."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dataload.system.console import console
from dataload.system.half_precision import best_dtype
from dataload.system.launch import launch
from splits.errors import InputError


def pick_device(*, no_cuda: bool) -> torch.device:
    """The GPU where it is wanted and torch can use it, else the CPU; warns once where there is a GPU that torch cannot use.

    Of several processes on a machine each has a GPU of its own.

    Raises:
        InputError: more processes than GPUs.
    """
    place = launch()
    gpu = torch.device("cuda", place.local_rank) if place.world > 1 else torch.device("cuda")
    fault = None if no_cuda else _gpu_fault(gpu, place.local_world)
    if fault is None and not no_cuda:
        if gpu.index is not None:
            torch.cuda.set_device(gpu)
        return gpu
    if fault is not None:
        _warn_of_unused_gpu(fault)
    # Gradients make torch look for a GPU on a CPU too, and it complains at length of a driver that nobody needs.
    warnings.filterwarnings("ignore", "CUDA initialization")
    return torch.device("cpu")


def _gpu_fault(gpu: torch.device, processes: int) -> str | None:
    """What torch says as it uses the GPU, "" where it finds none; None where all goes well.

    Raises:
        InputError: there are fewer GPUs than processes of this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, in many lines, on what we say in one
        if not torch.cuda.is_available():
            return ""
        count = torch.cuda.device_count()
        if processes > max(count, 1):
            raise InputError(
                f"{processes} processes on this machine, but torch finds {count} of its GPUs: start one per GPU "
                f"(--nproc_per_node {count}), or run on the CPU (--no_cuda)"
            )
        try:
            torch.ones(1, device=gpu).add_(1).item()
        except torch.OutOfMemoryError:  # of a GPU that can be used; training says what to do
            return None
        except RuntimeError as error:
            return str(error)
    return None


@cache
def _warn_of_unused_gpu(fault: str) -> None:
    # Imported here: it is needed in this case alone.
    from dataload.doctor.gpus import unused_gpu

    problem = unused_gpu(fault)
    if problem:
        console.warning(
            "The GPU cannot be used: %s; continuing on the CPU, slower (--no_cuda, if that is meant). Remedy: %s",
            *problem,
        )


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of the networks' autocast for ``--amp auto|off|bf16|fp16``, None for plain fp32.

    ``auto`` means bf16 where the device computes in it, fp16 on older GPUs and fp32 on older processors.

    Raises:
        InputError: fp16 on a CPU, whose kernels lack it; bf16 on an older one, where the gradients of convolutions fail.
    """
    if amp == "off":
        return None
    if amp == "bf16":
        if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise InputError("amp=bf16 needs a processor with AVX-512, or a GPU; use --amp auto or off")
        return torch.bfloat16
    if amp == "fp16":
        if device.type == "cpu":
            raise InputError("amp=fp16 needs a GPU; on a CPU use --amp bf16, auto or off")
        return torch.float16
    return best_dtype(device)


def dtype_name(dtype: torch.dtype | None) -> str:
    """What to call the networks' precision: ``bfloat16``, ``float16``, or ``fp32`` without autocast."""
    return "fp32" if dtype is None else str(dtype).removeprefix("torch.")


def describe_precision(dtype: torch.dtype | None, device: torch.device) -> str:
    """``dtype_name`` for the user, who learns of fp32 where its convolutions are rounded: ``fp32 (convolutions in TF32)``."""
    return dtype_name(dtype) + (" (convolutions in TF32)" if dtype is None and convolves_in_tf32(device) else "")


def convolves_in_tf32(device: torch.device) -> bool:
    """Whether convolutions of fp32 round their inputs to TF32's 10 bits of mantissa: torch's default on GPUs from Ampere on."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    # CUDA's libraries obey this variable whatever torch asks of them.
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" and convolutions.fp32_precision == "tf32"


def grad_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """A loss scaler, switched on for fp16 alone: bf16 has fp32's range."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


def cast_together(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Copies in ``dtype``, differentiable: one kernel for all of them instead of one each, and one for their gradients."""
    copies: tuple[Tensor, ...] = _CastTogether.apply(dtype, *tensors)
    return copies


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.forms = [(tensor.stride(), tensor.dtype) for tensor in tensors]
        ctx.set_materialize_grads(False)
        copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(copies, tensors)
        # Views: compiled by torch 2.11, an output that was written in place has lost its gradient, which comes out as 0.
        return tuple(copy.view_as(copy) for copy in copies)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        # A weight that no network read has no gradient, as without a copy.
        given = [each for each in upstream if each is not None]
        forms = [form for form, each in zip(ctx.forms, upstream, strict=True) if each is not None]
        # In the layout of the weights: one in any other is copied once more as it is accumulated.
        gradients = [
            torch.empty_strided(each.shape, stride, dtype=dtype, device=each.device)
            for (stride, dtype), each in zip(forms, given, strict=True)
        ]
        torch._foreach_copy_(gradients, given)
        made = iter(gradients)
        return None, *(None if each is None else next(made) for each in upstream)
