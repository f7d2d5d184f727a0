"""The narrow floating-point numbers that a device computes networks in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_dtype(device: torch.device) -> torch.dtype | None:
    """bf16 where the device computes in it, fp16 on older GPUs, None (fp32) on older processors."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Without hardware bf16 the conversions cost more than the narrower convolutions save.
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
