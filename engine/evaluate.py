"""Scoring predicted inverse depth against ground truth as Monodepth2 publishes it: flip post-processing, median scaling, the table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dataload.batch import Batch
from engine.geometry import disp_to_depth
from engine.metrics import MAX_SCORED_M, METRICS, MIN_SCORED_M, PROTOCOLS, Protocol, crop_bounds, depth_errors
from engine.precision import autocast_dtype
from engine.resample import resize_at
from splits.errors import InputError

# Share of the width at either side where post-processing trusts one of the two passes alone, and the steepness of the way there.
POST_PROCESS_MARGIN, POST_PROCESS_SLOPE = 0.05, 20.0


class Scores(NamedTuple):
    """The outcome of an evaluation.

    Attributes:
        per_image: (N,7) float64, the errors of each image in the order of ``METRICS``.
        median_ratios: (N,) float64, median of truth over median of prediction per image; None without median scaling.
    """

    per_image: np.ndarray
    median_ratios: np.ndarray | None

    @property
    def num_images(self) -> int:
        """How many images were scored."""
        return len(self.per_image)

    @property
    def means(self) -> dict[str, float]:
        """Each error's mean over the images, by its published name."""
        return dict(zip(METRICS, self.per_image.mean(axis=0).tolist(), strict=True))

    @property
    def median_ratio(self) -> float | None:
        """The median of the images' ratios."""
        return None if self.median_ratios is None else float(np.median(self.median_ratios))

    @property
    def median_ratio_std(self) -> float | None:
        """The standard deviation of the ratios divided by their median: how much the scale wanders between images."""
        return None if self.median_ratios is None else float(np.std(self.median_ratios / np.median(self.median_ratios)))

    def as_json(self) -> dict[str, float | int | str | None]:
        """The means under their published names, ``median_ratio``, ``median_ratio_std`` (both null without scaling), ``num_images``."""
        return {**self.means, "median_ratio": self.median_ratio, "median_ratio_std": self.median_ratio_std, "num_images": self.num_images}

    def table(self) -> str:
        """The published print-out: the ratios' line where there is one, the header, and the row for LaTeX."""
        ratios = ""
        if self.median_ratios is not None:
            ratios = f" Scaling ratios | med: {self.median_ratio:0.3f} | std: {self.median_ratio_std:0.3f}\n"
        header = "".join(f"{name:>8} | " for name in METRICS)
        row = "".join(f"&{value: 8.3f}  " for value in self.means.values())
        return f"{ratios}\n  {header}\n{row}\\\\"


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
def predict_disp(network: nn.Module, images: Tensor, *, post_process: bool = False, autocast_dtype: torch.dtype | None = None) -> Tensor:
    """The network's disp (B,1,H,W), float32, of uint8 images (B,3,H,W); with ``post_process`` blended with that of the mirrored images."""
    inputs = images.float().div_(255.0)
    if post_process:
        inputs = torch.cat([inputs, inputs.flip(-1)])
    with torch.autocast(images.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        disp: Tensor = network(inputs)
    disp = disp.float()
    if not post_process:
        return disp
    plain, flipped = disp.chunk(2)
    return blend_flipped(plain, flipped.flip(-1))


def predict_inv_depths(
    network: nn.Module,
    batches: Iterable[Batch],
    num_images: int,
    *,
    min_depth: float,
    max_depth: float,
    post_process: bool = False,
    autocast_dtype: torch.dtype | None = None,
) -> np.ndarray:
    """Inverse depth (N,h,w), float32, in 1/m of the network's unit, of the targets of ``batches``, in their order.

    ``batches`` hold ``num_images`` targets on the network's device. Results are copied back without waiting for the device in between.
    """
    inv_depths: Tensor | None = None
    done = 0
    for batch in batches:
        disp = predict_disp(network, batch.target_input, post_process=post_process, autocast_dtype=autocast_dtype)
        # Not around the loop: the loader makes its own tensors between batches.
        with torch.inference_mode():
            inv_depth = disp_to_depth(disp, min_depth, max_depth)[0][:, 0]
        if inv_depths is None:
            inv_depths = torch.empty((num_images, *inv_depth.shape[1:]), pin_memory=inv_depth.is_cuda)
        inv_depths[done : done + len(inv_depth)].copy_(inv_depth, non_blocking=True)
        done += len(inv_depth)
    assert inv_depths is not None, "no batch"
    assert done == num_images, (done, num_images)
    if inv_depths.is_pinned():
        torch.cuda.synchronize()
    return inv_depths.numpy()


def score(
    inv_depths: np.ndarray,
    gts_m: Iterable[np.ndarray],
    *,
    protocol: Protocol = PROTOCOLS["eigen"],
    median_scaling: bool = True,
    scale_factor: float = 1.0,
) -> Scores:
    """Score N predictions against their ground truths, image by image, on the truth's own pixels (facts of the Eigen protocol).

    depth = scale_factor / inv_depth at the truth's resolution; times median(truth) / median(depth) if ``median_scaling``; clamped to
    1e-3..80 m. The error of the set is the mean of the images' errors.

    Args:
        inv_depths: (N,h,w) inverse depth; 0 means infinitely far.
        gts_m: N maps (H,W), metres, 0 where the truth is missing; sizes may differ. May be lazy: one map is held at a time.

    Raises:
        InputError: another number of truths than of predictions, or an image without a pixel to score.
    """
    errors, ratios = [], []
    maps = iter(gts_m)
    for number, inv_depth in enumerate(inv_depths):
        gt_m = next(maps, None)
        if gt_m is None:
            raise InputError(f"{len(inv_depths)} predictions but {number} ground-truth maps; both must belong to the same split list")
        gt, pred = _scored_pixels(inv_depth, gt_m, protocol)
        if gt.size == 0:
            raise InputError(f"image {number} (counted from 0) has no ground truth to score; remove its line from the split list")
        depth = torch.from_numpy(pred).double().reciprocal_().mul_(scale_factor)
        truth = torch.from_numpy(gt).double()
        if median_scaling:
            ratio = float(np.median(gt)) / float(np.median(depth.numpy()))
            ratios.append(ratio)
            depth *= ratio
        errors.append(depth_errors(truth, depth.clamp_(MIN_SCORED_M, MAX_SCORED_M)).numpy())
    if next(maps, None) is not None:
        raise InputError(f"{len(inv_depths)} predictions but more ground-truth maps; both must belong to the same split list")
    return Scores(np.stack(errors), np.array(ratios) if median_scaling else None)


def _scored_pixels(inv_depth: np.ndarray, gt_m: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Truth and predicted inverse depth, both (n,), at the pixels that the protocol scores."""
    top, bottom, left, right = crop_bounds(*gt_m.shape) if protocol.garg_crop else (0, gt_m.shape[0], 0, gt_m.shape[1])
    cropped = gt_m[top:bottom, left:right]
    scored = np.flatnonzero((cropped > protocol.min_gt_m) & (cropped < protocol.max_gt_m))
    rows, columns = np.divmod(scored, right - left)
    return cropped[rows, columns], resize_at(inv_depth, (gt_m.shape[0], gt_m.shape[1]), rows + top, columns + left)
