"""The seven depth errors of Eigen et al. 2014, and the pixels they are taken over. Numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Shaped

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
# Errors are better when low, accuracies when high.
HIGHER_IS_BETTER = ("a1", "a2", "a3")
# Top, bottom as shares of H; left, right as shares of W.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al. 2016
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al. 2014
    "none": (0.0, 1.0, 0.0, 1.0),
}
# Predictions are clamped to this range before they are scored, metres.
MIN_SCORED_M, MAX_SCORED_M = 1e-3, 80.0
# Accuracy a_k is the share of pixels whose ratio to the truth is below 1.25^k.
RATIO_THRESHOLD = 1.25
ROOTED = (METRICS.index("rmse"), METRICS.index("rmse_log"))


class Protocol(NamedTuple):
    """Which pixels count and the range that predictions are clamped to.

    Attributes:
        crop: a name in ``CROPS``.
        min_gt_m, max_gt_m: truth counts strictly between these, metres.
        max_pred_m: predictions are clamped to ``MIN_SCORED_M`` and this, metres.
    """

    crop: str = "garg"
    min_gt_m: float = MIN_SCORED_M
    max_gt_m: float = MAX_SCORED_M
    max_pred_m: float = MAX_SCORED_M


# Published: the Eigen protocol on laser scans, every ground-truth pixel on the annotated depth.
EIGEN = Protocol()
ALL_GT = Protocol(crop="none", min_gt_m=0.0, max_gt_m=float("inf"))


def crop_bounds(crop: str, height_px: int, width_px: int) -> tuple[int, int, int, int]:
    """Rows ``top:bottom`` and columns ``left:right`` of a crop of an image of this size, pixels."""
    top, bottom, left, right = CROPS[crop]
    return int(top * height_px), int(bottom * height_px), int(left * width_px), int(right * width_px)


def depth_terms(gt: Float[np.ndarray, " n"], pred: Float[np.ndarray, " n"]) -> Float[np.ndarray, "7 n"]:
    """What each pixel adds to each error, in the order of ``METRICS``; the two roots are taken of the means, by ``mean_errors``.

    abs_rel: |p-g|/g; sq_rel: (p-g)^2/g, metres; rmse: (p-g)^2; rmse_log: (ln p/g)^2; a1 to a3: 1 where max(p/g, g/p) is below 1.25,
    1.25^2, 1.25^3 (Eigen et al. 2014, section 4).
    """
    terms = np.empty((len(METRICS), gt.size), np.result_type(gt, pred))
    difference, ratio = pred - gt, pred / gt
    np.divide(np.abs(difference), gt, out=terms[0])
    np.square(difference, out=terms[2])
    np.divide(terms[2], gt, out=terms[1])
    np.square(np.log(ratio), out=terms[3])
    worst = np.maximum(ratio, 1 / ratio)
    for k in (1, 2, 3):
        np.less(worst, RATIO_THRESHOLD**k, out=terms[3 + k], casting="unsafe")
    return terms


def mean_errors(sums: Float[np.ndarray, "*rest 7"], count: Shaped[np.ndarray, "*rest"] | float) -> Float64[np.ndarray, "*rest 7"]:
    """The errors from the terms' sums over ``count`` pixels; NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.asarray(sums, np.float64) / np.asarray(count, np.float64)[..., None]
    errors[..., ROOTED] = np.sqrt(errors[..., ROOTED])
    return errors


def depth_errors(gt: Float[np.ndarray, " n"], pred: Float[np.ndarray, " n"]) -> Float64[np.ndarray, "7"]:
    """The errors of n positive depths against their truth, in the order of ``METRICS``; NaN where n is 0."""
    return mean_errors(depth_terms(gt, pred).sum(axis=1), float(gt.size))
