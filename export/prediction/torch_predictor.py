"""A trained checkpoint as a predictor, run by torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.geometry import disp_to_depth
from engine.inference.depth_network import DepthNetwork, load_depth_network, require_size
from engine.inference.predictions import inference_dtype, predict_disp
from engine.precision import pick_device
from export.prediction.predict import Predictor


def torch_predictor(model: Path, *, no_cuda: bool, amp: str, size_px: tuple[int, int] | None = None) -> Predictor:
    """The predictor of a run folder or weights folder; ``size_px`` (height, width) is of weights that record none.

    Raises:
        InputError: as ``load_depth_network``, ``require_size`` and ``inference_dtype``.
    """
    device = pick_device(no_cuda=no_cuda)
    dtype = inference_dtype(amp, device)
    network = load_depth_network(model, device, size_px=size_px)
    require_size(network, size_px, model)
    return Predictor(partial(torch_inv_depth, network, dtype=dtype), network.size_px, network.metric_factor)


def torch_inv_depth(network: DepthNetwork, images: NDArray[np.uint8], *, dtype: torch.dtype | None = None) -> NDArray[np.float32]:
    """Inverse depth (B,h,w), 1 over the network's unit, of images (B,h,w,3); ``dtype`` of autocast, None for plain fp32."""
    # NHWC in memory seen as NCHW is what torch calls channels_last.
    batch = torch.from_numpy(images).to(next(network.parameters()).device).permute(0, 3, 1, 2)
    disp = predict_disp(network, batch, autocast_dtype=dtype)
    inv_depth: NDArray[np.float32] = disp_to_depth(disp, network.min_depth, network.max_depth)[0][:, 0].cpu().numpy()
    return inv_depth
