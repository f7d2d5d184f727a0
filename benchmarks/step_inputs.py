"""Inputs for timing and counting training steps: md-train's config, a batch of random frames, predictions taken out of their networks."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataload.batch import Batch
from dataload.config import DataConfig
from engine.loss.objective import Objective, Predictions
from engine.options import LossConfig, ModelConfig
from engine.training.config import TrainConfig


def default_config(**changes: Any) -> TrainConfig:
    """md-train's defaults but for untrained weights and ``changes``: fields of the config or of any of its parts."""
    parts = {"data": DataConfig, "model": ModelConfig, "loss": LossConfig}
    values = {"data_path": Path(), "weights_init": "scratch"} | changes
    of_part = {name: {field.name for field in fields(cls)} & values.keys() for name, cls in parts.items()}
    made = {name: cls(**{key: values.pop(key) for key in of_part[name]}) for name, cls in parts.items()}
    return TrainConfig(**made, **values)


def random_batch(batch_size: int, size_px: tuple[int, int], *, neighbours: int = 2, stereo: bool = False) -> Batch:
    """Smooth random frames of a scene that slides sideways, channels last in memory as the loader ships them; two neighbours at most."""
    height_px, width_px = size_px
    noise = torch.rand(batch_size, 3, height_px // 8, width_px // 8 + 2)
    scene = nn.functional.interpolate(noise, scale_factor=8, mode="bilinear")

    def frame(offset_px: int, level: int = 0) -> Tensor:
        view = scene[..., 8 + offset_px : 8 + offset_px + width_px]
        scaled = nn.functional.interpolate(view, (height_px >> level, width_px >> level), mode="area")
        return (255 * scaled).to(torch.uint8).contiguous(memory_format=torch.channels_last)

    K = torch.tensor([[0.58 * width_px, 0, 0.5 * width_px], [0, 1.92 * height_px, 0.5 * height_px], [0, 0, 1]])
    offsets_px = (-3, 3)[:neighbours] + ((6,) if stereo else ())
    sources = torch.stack([frame(offset_px) for offset_px in offsets_px], dim=1)
    return Batch(
        target=tuple(frame(0, level) for level in range(4)),
        sources=(sources,),
        target_input=frame(0),
        source_inputs=sources[:, :neighbours].clone(),
        K=K.repeat(batch_size, 1, 1),
        T_stereo=torch.eye(4).repeat(batch_size, 1, 1),
        indices=torch.arange(batch_size),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    return batch.with_tensors([tensor.to(device) for tensor in batch.tensors()])


def torch_loss(objective: Objective, predictions: Predictions, batch: Batch) -> Tensor:
    """The loss by torch's own operators, on every device."""
    return torch.stack([result.loss for result in objective.results(predictions, batch).values()]).mean()


def as_leaves(predictions: Predictions) -> Predictions:
    """The same disps and motions as leaves that gradients are taken of."""
    disps = {scale: disp.detach().requires_grad_() for scale, disp in predictions.disps.items()}
    motions = [
        (axisangle.detach().requires_grad_(), translation.detach().requires_grad_()) for axisangle, translation in predictions.motions
    ]
    return Predictions(disps, {}, motions)


def tensors(predictions: Predictions) -> list[Tensor]:
    """All disps, then the parts of all motions."""
    return [*predictions.disps.values(), *(part for motion in predictions.motions for part in motion)]
