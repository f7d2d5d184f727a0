"""What the log shows of a batch: the pictures that Monodepth2 logs, and depth metrics where the batch has ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dataload.batch import Batch
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.pipeline.order import draw
from engine.evaluation.metrics import MAX_SCORED_M, METRICS, MIN_SCORED_M, crop_bounds, depth_errors
from engine.geometry import disp_to_depth
from engine.host_copy import HostCopy
from engine.training.step import StepPictures, TrainStep

# The samples of a batch whose pictures are shown.
SHOWN = slice(4)
# Monodepth2 resizes all ground truth to this size while training, so that a batch of mixed native sizes stacks.
GT_SIZE_PX = (375, 1242)
# TensorBoard names of the seven metrics, as published.
SCALAR_NAMES = dict(zip(METRICS, ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3"), strict=True))


class Truth(NamedTuple):
    """What the ground truth of training batches is found by.

    Attributes:
        refs: the training list. depth_range: (min_depth, max_depth) of the networks.
        drawn: the (seed, epoch) whose flips the batches have.
    """

    dataset: Dataset
    refs: Sequence[FrameRef]
    depth_range: tuple[float, float]
    drawn: tuple[int, int]


class Snapshot:
    """What the log shows of one batch, on its way to the host: the device gets its work here, and nothing waits for it.

    Its methods wait and compute, in any thread: the batch and the step may meanwhile go on.

    Args:
        step: what the batch is seen by, in eval mode meanwhile.
        source_names: as ``source_names`` makes them.
        truth: of the batch, where metrics are wanted.
    """

    def __init__(self, step: TrainStep, batch: Batch, source_names: Sequence[str], truth: Truth | None = None) -> None:
        pictures = step.pictures(batch, SHOWN)
        shown = pictures_to_show(pictures, batch.samples(SHOWN), source_names)
        judged = {} if truth is None else {"disp": pictures.disps[min(pictures.disps)], "indices": batch.indices}
        self._truth, self._names = truth, list(shown)
        self._copy = HostCopy(shown | judged)

    def images(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Pictures (h,w,3) or (h,w,1) by TensorBoard name."""
        arrays = self._copy.arrays()
        for name in self._names:
            yield from ((f"{name}/{number}", image) for number, image in enumerate(arrays[name]))

    def scalars(self) -> dict[str, float]:
        """The published in-training metrics of the samples that have ground truth, which is read here; empty where none has.

        Raises:
            InputError: ground truth is damaged.
        """
        if self._truth is None:
            return {}
        arrays = self._copy.arrays()
        return depth_metrics(torch.from_numpy(arrays["disp"]), arrays["indices"].tolist(), self._truth)


def source_names(frame_ids: Sequence[int], use_stereo: bool) -> list[str]:
    """The sources in the published names: their offsets, "s" for the other camera."""
    return [*map(str, frame_ids[1:]), *(["s"] if use_stereo else [])]


def pictures_to_show(pictures: StepPictures, batch: Batch, source_names: Sequence[str]) -> dict[str, Tensor]:
    """Pictures (N,h,w,C) by TensorBoard name: colour, warped sources, disparities (min-max normalised) and masks of the N samples shown.

    They are what TensorBoard would make of floats: uint8, rounded down.
    """
    shown: dict[str, Tensor] = {}
    for level, target in enumerate(batch.target):
        shown[f"color_0_{level}"] = target
    for level, sources in enumerate(batch.sources):
        shown |= {f"color_{name}_{level}": sources[:, s] for s, name in enumerate(source_names)}
    shown |= {f"color_pred_{name}_0": pictures.warped[:, s] for s, name in enumerate(source_names)}
    for scale, disp in pictures.disps.items():
        shown[f"disp_{scale}"] = _normalise(disp[SHOWN])
    for scale, mask in (pictures.automask or {}).items():
        shown[f"automask_{scale}"] = mask[:, None]
    for scale, mask in (pictures.predictive_mask or {}).items():
        shown |= {f"predictive_mask_{name}_{scale}": mask[:, s, None] for s, name in enumerate(source_names)}
    return {name: _quantise(images).movedim(1, -1) for name, images in shown.items()}


def _normalise(images: Tensor) -> Tensor:
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp(min=1e-7)


def _quantise(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    # A run that diverges is reported by its loss, not by warnings about its pictures.
    return (images.float().nan_to_num() * 255).clamp(0, 255).to(torch.uint8)


def depth_metrics(disp: Tensor, indices: Sequence[int], truth: Truth) -> dict[str, float]:
    """The published in-training metrics of those samples that have ground truth; empty where none has.

    Args:
        disp: (B,1,h,w) on the CPU. indices: (B) positions of the samples in the training list.
    """
    gts, rows = [], []
    for row, index in enumerate(indices):
        depth_m = truth.dataset.depth_m(truth.refs[index])
        if depth_m is None:
            continue
        gt = F.interpolate(torch.from_numpy(depth_m)[None, None], GT_SIZE_PX, mode="nearest-exact")
        gts.append(gt.flip(-1) if draw(*truth.drawn, index, training=True).flip else gt)
        rows.append(row)
    if not gts:
        return {}
    crop = "none" if truth.dataset.scores_all_depth else "garg"
    errors = training_depth_errors(disp_to_depth(disp[rows], *truth.depth_range)[1], torch.cat(gts), crop)
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
