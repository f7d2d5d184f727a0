"""A trained checkpoint as a predictor, run by torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dataload.datasets import dataset_class
from engine.depth_network import load_depth_network
from engine.evaluate import inference_dtype, predict_disp
from engine.precision import pick_device
from export.predict import Predictor


def torch_predictor(model: Path, *, no_cuda: bool, amp: str) -> Predictor:
    """The predictor of a run folder or weights folder; raises ``InputError`` as ``load_depth_network`` and ``autocast_dtype`` do."""
    device = pick_device(no_cuda=no_cuda)
    dtype = inference_dtype(amp, device)
    network = load_depth_network(model, device)
    lowest, highest = 1 / network.max_depth, 1 / network.min_depth

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        # NHWC in memory seen as NCHW is what torch calls channels_last.
        batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        disp: NDArray[np.float32] = predict_disp(network, batch, autocast_dtype=dtype)[:, 0].cpu().numpy()
        return (lowest + (highest - lowest) * disp).astype(np.float32)

    unit_m = dataset_class("kitti").metric_factor if network.use_stereo else None
    return Predictor(run, (network.height_px, network.width_px), unit_m)
