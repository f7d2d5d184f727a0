"""Pictures and metrics of a batch for the log: the pictures that Monodepth2 logs, and depth metrics where the batch has ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dataload.batch import Batch
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.pipeline.order import draw
from engine.evaluation.metrics import MAX_SCORED_M, METRICS, MIN_SCORED_M, crop_bounds, depth_errors
from engine.geometry import disp_to_depth
from engine.training.step import StepPictures

MAX_SAMPLES = 4
# Monodepth2 resizes all ground truth to this size while training, so that a batch of mixed native sizes stacks.
GT_SIZE_PX = (375, 1242)
# TensorBoard names of the seven metrics, as published.
SCALAR_NAMES = dict(zip(METRICS, ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3"), strict=True))


def source_names(frame_ids: Sequence[int], use_stereo: bool) -> list[str]:
    """The sources in the published names: their offsets, "s" for the other camera."""
    return [*map(str, frame_ids[1:]), *(["s"] if use_stereo else [])]


def images_to_show(pictures: StepPictures, batch: Batch, frame_ids: Sequence[int], use_stereo: bool) -> dict[str, Tensor]:
    """Pictures by TensorBoard name: colour, warped sources, disparities (min-max normalised) and masks of up to four samples."""
    names = source_names(frame_ids, use_stereo)
    shown: dict[str, Tensor] = {}
    for j in range(min(MAX_SAMPLES, batch.K.shape[0])):
        for level, target in enumerate(batch.target):
            shown[f"color_0_{level}/{j}"] = target[j]
        for level, sources in enumerate(batch.sources):
            shown |= {f"color_{name}_{level}/{j}": sources[j, s] for s, name in enumerate(names)}
        shown |= {f"color_pred_{name}_0/{j}": pictures.warped[j, s].clamp(0, 1) for s, name in enumerate(names)}
        for scale, disp in pictures.disps.items():
            shown[f"disp_{scale}/{j}"] = _normalise(disp[j])
        for scale, mask in (pictures.automask or {}).items():
            shown[f"automask_{scale}/{j}"] = mask[j][None]
        for scale, mask in (pictures.predictive_mask or {}).items():
            shown |= {f"predictive_mask_{name}_{scale}/{j}": mask[j, s][None] for s, name in enumerate(names)}
    return shown


def _normalise(x: Tensor) -> Tensor:
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp(min=1e-7)


def depth_metrics(
    pictures: StepPictures,
    batch: Batch,
    dataset: Dataset,
    refs: Sequence[FrameRef],
    *,
    depth_range: tuple[float, float],
    drawn: tuple[int, int],
) -> dict[str, float]:
    """The published in-training metrics of the batch's samples that have ground truth; empty where none has.

    Ground truth is read here, for the logged batch alone. ``depth_range`` is (min_depth, max_depth) of the networks; ``drawn`` is the
    (seed, epoch) whose flips the batch has.
    """
    gts, rows = [], []
    for row, index in enumerate(batch.indices.tolist()):
        depth_m = dataset.depth_m(refs[index])
        if depth_m is None:
            continue
        gt = F.interpolate(torch.from_numpy(depth_m)[None, None], GT_SIZE_PX, mode="nearest-exact")
        gts.append(gt.flip(-1) if draw(*drawn, index, training=True).flip else gt)
        rows.append(row)
    if not gts:
        return {}
    disp = pictures.disps[min(pictures.disps)][rows].cpu()
    crop = "none" if dataset.scores_all_depth else "garg"
    errors = training_depth_errors(disp_to_depth(disp, *depth_range)[1], torch.cat(gts), crop)
    return {SCALAR_NAMES[name]: value for name, value in zip(METRICS, errors, strict=True)}


def training_depth_errors(depth: Tensor, gt_m: Tensor, crop: str = "garg") -> list[float]:
    """The seven errors shown while training: pooled over a batch's ground-truth pixels in a crop, one median ratio for all of them.

    Not the evaluation protocol: the batch shares one scale, and the truth is not capped.

    Args:
        depth: (B,1,h,w), any unit; resized to the size of the truth.
        gt_m: (B,1,H,W), metres, 0 where the truth is missing. NaN comes back where no pixel has one.
    """
    top, bottom, left, right = crop_bounds(crop, *gt_m.shape[-2:])
    resized = F.interpolate(depth.float(), gt_m.shape[-2:], mode="bilinear", align_corners=False).clamp(MIN_SCORED_M, MAX_SCORED_M)
    cropped_gt = gt_m[..., top:bottom, left:right]
    known = cropped_gt > 0
    gt, pred = cropped_gt[known], resized[..., top:bottom, left:right][known]
    if gt.numel():
        pred = (pred * (gt.median() / pred.median())).clamp(MIN_SCORED_M, MAX_SCORED_M)
    errors: list[float] = depth_errors(gt.numpy(), pred.numpy()).tolist()
    return errors
