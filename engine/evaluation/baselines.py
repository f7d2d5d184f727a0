"""The baseline that a prediction must beat: depth guessed from the image row alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError


def row_median_prior(gts_m: Sequence[NDArray[np.float32]], height_px: int) -> NDArray[np.float32]:
    """Inverse depth (h,), float32, in 1/m, of each of ``height_px`` image rows: one over the median of all known depths there.

    Args:
        gts_m: ground-truth maps (H,W) of the training images, metres, 0 where the truth is missing; sizes may differ.

    Rows without any truth (sky, sparse scans) take the value between their nearest neighbours that have one.

    Raises:
        InputError: no truth at all.
    """
    inv_depth = np.full(height_px, np.nan)
    for row in range(height_px):
        bands = [gt_m[row * len(gt_m) // height_px : (row + 1) * len(gt_m) // height_px] for gt_m in gts_m]
        known = [band[band > 0] for band in bands]
        if sum(values.size for values in known):
            inv_depth[row] = 1.0 / np.median(np.concatenate(known))
    filled = np.flatnonzero(np.isfinite(inv_depth))
    if filled.size == 0:
        raise InputError("the training images have no ground truth; a prior needs some")
    return np.interp(np.arange(height_px), filled, inv_depth[filled]).astype(np.float32)


def predict_prior(prior: NDArray[np.float32], num_images: int) -> NDArray[np.float32]:
    """The prior (h,) as predictions (N,h,1) for ``scoring.score``, which resizes the one column to the truth's width."""
    return np.broadcast_to(prior[None, :, None], (num_images, len(prior), 1))
