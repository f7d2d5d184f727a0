"""The seven depth errors of Eigen et al. 2014, the pixels they are taken over, and the pooled form shown while training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
# Top, bottom as shares of H; left, right as shares of W; Garg et al. 2016.
GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
# Predictions are clamped to this range before they are scored, metres.
MIN_SCORED_M, MAX_SCORED_M = 1e-3, 80.0
# Accuracy a_k is the share of pixels whose ratio to the truth is below 1.25^k.
RATIO_THRESHOLD = 1.25


class Protocol(NamedTuple):
    """Which ground-truth pixels count: strictly between the two depths (metres), inside the crop if there is one."""

    min_gt_m: float
    max_gt_m: float
    garg_crop: bool


PROTOCOLS = {
    "eigen": Protocol(MIN_SCORED_M, MAX_SCORED_M, garg_crop=True),
    "all_gt": Protocol(0.0, float("inf"), garg_crop=False),
}


def crop_bounds(height_px: int, width_px: int) -> tuple[int, int, int, int]:
    """Rows ``top:bottom`` and columns ``left:right`` of the Garg crop of an image of this size, pixels."""
    top, bottom, left, right = GARG_CROP
    return int(top * height_px), int(bottom * height_px), int(left * width_px), int(right * width_px)


def depth_errors(gt: Float[Tensor, " n"], pred: Float[Tensor, " n"]) -> Float[Tensor, "7"]:
    """The errors of n positive depths against their truth, in the order of ``METRICS`` (Eigen et al. 2014, section 4).

    abs_rel = mean |p-g|/g, sq_rel = mean (p-g)^2/g (metres), rmse (metres), rmse_log (natural logarithm), and the shares of pixels
    with max(p/g, g/p) below 1.25, 1.25^2 and 1.25^3. NaN where n is 0.
    """
    difference = pred - gt
    squared = difference.square()
    ratio = pred / gt
    means = [(difference.abs() / gt).mean(), (squared / gt).mean(), squared.mean().sqrt(), ratio.log().square().mean().sqrt()]
    worst = torch.maximum(ratio, ratio.reciprocal())
    accuracies = [(worst < RATIO_THRESHOLD**k).to(gt.dtype).mean() for k in (1, 2, 3)]
    return torch.stack([*means, *accuracies])


def training_depth_errors(depth: Float[Tensor, "B 1 h w"], gt_m: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "7"]:
    """The errors shown while training: pooled over a batch's ground-truth pixels in the Garg crop, one median ratio for all of them.

    Not the evaluation protocol: the batch shares one scale, and the truth is not capped. Zeros in ``gt_m`` are missing; ``depth`` is
    resized to the size of ``gt_m`` and may be in any unit. NaN where no pixel has a truth.
    """
    top, bottom, left, right = crop_bounds(*gt_m.shape[-2:])
    resized = F.interpolate(depth.float(), gt_m.shape[-2:], mode="bilinear", align_corners=False).clamp(MIN_SCORED_M, MAX_SCORED_M)
    cropped_gt = gt_m[..., top:bottom, left:right]
    known = cropped_gt > 0
    gt, pred = cropped_gt[known], resized[..., top:bottom, left:right][known]
    if gt.numel() == 0:
        return gt_m.new_full((len(METRICS),), float("nan"))
    pred = (pred * (gt.median() / pred.median())).clamp(MIN_SCORED_M, MAX_SCORED_M)
    return depth_errors(gt, pred)
