"""Inverse depth of many images from a network, with Monodepth2's flip post-processing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataload.batch import Batch
from engine.geometry import disp_to_depth
from engine.host_copy import one_behind
from engine.precision import autocast_dtype

# Images per forward pass on a CPU: few enough for their features to stay near the cores, which is faster and takes far less memory.
CPU_IMAGES = 2
# Share of the width at either side where post-processing trusts one of the two passes alone, and the slope of the transition.
POST_PROCESS_MARGIN, POST_PROCESS_SLOPE = 0.05, 20.0


def inference_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of a network that only predicts, None for plain fp32; raises ``InputError`` as ``autocast_dtype``.

    ``auto`` differs from training's: fp16 on a GPU, as fast as bf16 with an eighth of its rounding and no gradients to overflow; fp32 on a
    CPU, for the exact numbers.
    """
    if amp == "auto":
        return torch.float16 if device.type == "cuda" else None
    return autocast_dtype(amp, device)


def blend_flipped(disp: Tensor, disp_of_flipped: Tensor) -> Tensor:
    """Monodepth2's post-processing: the pass on the mirrored image (already mirrored back) at the left border, the plain one at the right.

    Both (...,h,w). With x from 0 to 1 over a row, l = 1 - clip(20 (x - 0.05), 0, 1) and r its mirror image:
    r disp + l disp_of_flipped + (1 - l - r) (disp + disp_of_flipped) / 2. It is affine, so it may be applied to ``disp`` or ``inv_depth``.
    """
    x = torch.linspace(0.0, 1.0, disp.shape[-1], dtype=torch.float64, device=disp.device)
    left = 1.0 - (POST_PROCESS_SLOPE * (x - POST_PROCESS_MARGIN)).clamp(0.0, 1.0)
    right = left.flip(-1)
    between = 0.5 * (1.0 - left - right)
    return (right + between).to(disp.dtype) * disp + (left + between).to(disp.dtype) * disp_of_flipped


@torch.inference_mode()
def predict_disp(
    network: Callable[[Tensor], Tensor], images: Tensor, *, post_process: bool = False, autocast_dtype: torch.dtype | None = None
) -> Tensor:
    """The network's disp (B,1,H,W), float32, of uint8 images (B,3,H,W); with ``post_process`` blended with that of the mirrored images."""
    if images.device.type == "cpu" and len(images) > CPU_IMAGES:
        parts = images.split(CPU_IMAGES)
        return torch.cat([predict_disp(network, part, post_process=post_process, autocast_dtype=autocast_dtype) for part in parts])
    inputs = images.float().div_(255.0)
    if post_process:
        inputs = torch.cat([inputs, inputs.flip(-1)])
    with torch.autocast(images.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        disp = network(inputs)
    disp = disp.float()
    if not post_process:
        return disp
    plain, flipped = disp.chunk(2)
    return blend_flipped(plain, flipped.flip(-1))


def predict_inv_depths(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    min_depth: float,
    max_depth: float,
    post_process: bool = False,
    autocast_dtype: torch.dtype | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Inverse depth (B,h,w), float32, in 1/m of the network's unit, of the targets of each of ``batches``, in their order.

    ``batches`` are on the network's device, which computes the next batch while the maps of the last are used.
    """

    def inv_depths() -> Iterator[Tensor]:
        for batch in batches:
            disp = predict_disp(network, batch.target_input, post_process=post_process, autocast_dtype=autocast_dtype)
            # Not around the loop: the loader makes its own tensors between batches.
            with torch.inference_mode():
                inv_depth = disp_to_depth(disp, min_depth, max_depth)[0][:, 0]
            yield inv_depth

    return one_behind(inv_depths())
