"""The photometric loss of all scales by plain torch formulas in the precision of its inputs: float64 for comparing gradients with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def box(x: Tensor) -> Tensor:
    """Means over 3x3 windows, the border mirrored."""
    planes = x.reshape(-1, 1, *x.shape[-2:])
    return F.avg_pool2d(F.pad(planes, (1, 1, 1, 1), mode="reflect"), 3, 1).reshape(x.shape)


def compare(pred: Tensor, target: Tensor, *, ssim: bool) -> Tensor:
    """Photometric loss (B, S, H, W) of images (B, S, 3, H, W)."""
    difference = (pred - target).abs().mean(dim=-3)
    if not ssim:
        return difference
    mean_x, mean_y = box(pred), box(target)
    variance_x, variance_y = box(pred * pred) - mean_x * mean_x, box(target * target) - mean_y * mean_y
    covariance = box(pred * target) - mean_x * mean_y
    upper = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    lower = (mean_x * mean_x + mean_y * mean_y + 0.01**2) * (variance_x + variance_y + 0.03**2)
    return 0.85 * ((1 - upper / lower) / 2).clamp(0, 1).mean(dim=-3) + 0.15 * difference


def reduce(losses: Tensor, *, average: bool) -> Tensor:
    """(B, S, H, W) to (B, H, W)."""
    return losses.mean(dim=1) if average else losses.gather(1, losses.argmin(dim=1, keepdim=True))[:, 0]


def warped(disp: Tensor, K: Tensor, T: Tensor, sources: Tensor) -> Tensor:
    """Sources (B, S, 3, H, W) sampled where they see the target's pixels."""
    num_sources, _, height_px, width_px = sources.shape[1:]
    disp = F.interpolate(disp, (height_px, width_px), mode="bilinear", align_corners=False)
    depth = 1 / (0.01 + (10.0 - 0.01) * disp)
    y, x = torch.meshgrid(torch.arange(height_px), torch.arange(width_px), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1).to(disp)
    points = depth.flatten(2) * (torch.linalg.inv(K) @ pixels)
    images = []
    for k in range(num_sources):
        q = K @ (T[:, k, :3, :3] @ points + T[:, k, :3, 3:])
        positions = (q[:, :2] / (q[:, 2:] + 1e-7)).nan_to_num(nan=0.0).unflatten(2, (height_px, width_px)).permute(0, 2, 3, 1)
        span = torch.tensor([width_px - 1, height_px - 1]).to(disp)
        images.append(F.grid_sample(sources[:, k], positions / span * 2 - 1, padding_mode="border", align_corners=True))
    return torch.stack(images, dim=1)


def losses_by_scale(
    disps: Sequence[Tensor],
    K: Tensor,
    T: Tensor,
    target: Tensor,
    sources: Tensor,
    *,
    ssim: bool,
    average: bool,
    automask: bool,
) -> Tensor:
    """The mean loss of each scale; ``target`` (B, 3, H, W) and ``sources`` (B, S, 3, H, W) are uint8."""
    images, target = sources.to(T) / 255, target.to(T)[:, None] / 255
    unmoved = reduce(compare(images, target, ssim=ssim), average=average)
    found = []
    for disp in disps:
        loss = reduce(compare(warped(disp, K, T, images), target, ssim=ssim), average=average)
        found.append((torch.where(loss < unmoved, loss, unmoved) if automask else loss).mean())
    return torch.stack(found)
