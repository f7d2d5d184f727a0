"""The optimizer and the published learning-rate schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEARNING_RATE_DROP = 0.1


def learning_rate_at(epoch: int, *, base: float, step_size: int) -> float:
    """Learning rate of an epoch: a tenfold drop every ``step_size`` epochs.

    Monodepth2 was published on a PyTorch whose schedule dropped after ``step_size`` whole epochs: with the defaults epochs 0-14 train
    at 1e-4 and 15-19 at 1e-5. Being a function of the epoch, it needs no state to resume.
    """
    return base * LEARNING_RATE_DROP ** (epoch // step_size)


def build_optimizer(networks: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam over all parameters in one group, in the order encoder, depth, pose_encoder, pose, predictive_mask (``adam.pth``'s order).

    On a GPU it can be captured in a CUDA graph: the learning rate lies on the device, where ``set_learning_rate`` changes it.
    """
    device = next(networks.parameters()).device
    if device.type != "cuda":
        return torch.optim.Adam(networks.parameters(), lr=learning_rate, fused=True)
    on_device = torch.tensor(learning_rate, dtype=torch.float32, device=device)
    return torch.optim.Adam(networks.parameters(), lr=on_device, fused=True, capturable=True)


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The present learning rate; waits for the device where it lies there."""
    return float(optimizer.param_groups[0]["lr"])


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Put ``learning_rate`` into every parameter group, in place where it lies on the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
