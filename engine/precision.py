"""The device and the precision that the networks run in; geometry, losses and the optimizer stay in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dataload.system.half_precision import best_dtype
from splits.errors import InputError


def pick_device(*, no_cuda: bool) -> torch.device:
    """The GPU where there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not no_cuda else "cpu")


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of the networks' autocast for ``--amp auto|off|bf16|fp16``, None for plain fp32.

    ``auto`` means bf16 where the device computes in it, fp16 on older GPUs and fp32 on older processors.

    Raises:
        InputError: fp16 on a CPU, whose kernels lack it.
    """
    if amp == "off":
        return None
    if amp == "bf16":
        return torch.bfloat16
    if amp == "fp16":
        if device.type == "cpu":
            raise InputError("amp=fp16 needs a GPU; on a CPU use --amp bf16, auto or off")
        return torch.float16
    return best_dtype(device)


def dtype_name(dtype: torch.dtype | None) -> str:
    """What to call the networks' precision: ``bfloat16``, ``float16``, or ``fp32`` without autocast."""
    return "fp32" if dtype is None else str(dtype).removeprefix("torch.")


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
