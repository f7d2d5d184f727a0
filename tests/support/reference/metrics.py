"""Depth metrics, resizing and post-processing, one number at a time: slow and plain."""

import math
from typing import Any

import numpy as np


def depth_errors(gt: list[float], pred: list[float]) -> list[float]:
    """abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3."""
    n = len(gt)
    sums = [0.0] * 7
    for g, p in zip(gt, pred, strict=True):
        sums[0] += abs(p - g) / g
        sums[1] += (p - g) ** 2 / g
        sums[2] += (p - g) ** 2
        sums[3] += (math.log(p) - math.log(g)) ** 2
        for k in (1, 2, 3):
            sums[3 + k] += max(g / p, p / g) < 1.25**k
    means = [value / n for value in sums]
    return [means[0], means[1], math.sqrt(means[2]), math.sqrt(means[3]), *means[4:]]


def resize(field: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel centres, borders repeated."""
    (h, w), (height, width) = field.shape, size_px
    resized = np.empty(size_px)
    for row in range(height):
        y = min(max((row + 0.5) * h / height - 0.5, 0), h - 1)
        for column in range(width):
            x = min(max((column + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = field[y0, x0] * (1 - (x - x0)) + field[y0, x1] * (x - x0)
            bottom = field[y1, x0] * (1 - (x - x0)) + field[y1, x1] * (x - x0)
            resized[row, column] = top * (1 - (y - y0)) + bottom * (y - y0)
    return resized


def blend_flipped(disp: np.ndarray, disp_of_flipped: np.ndarray) -> np.ndarray:
    """Monodepth2's post-processing of one map (h,w)."""
    width = disp.shape[1]
    blended = np.empty_like(disp)
    for column in range(width):
        left = 1 - min(max(20 * (column / (width - 1) - 0.05), 0), 1)
        right = 1 - min(max(20 * ((width - 1 - column) / (width - 1) - 0.05), 0), 1)
        mean = 0.5 * (disp[:, column] + disp_of_flipped[:, column])
        blended[:, column] = right * disp[:, column] + left * disp_of_flipped[:, column] + (1 - left - right) * mean
    return blended


CROPS = {"garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229), "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229)}


def image_errors(inv_depth: np.ndarray, gt_m: np.ndarray, *, protocol: Any, alignment: str, factor: float) -> tuple[list[float], float]:
    """Errors of one image and its median ratio, by the published evaluation's steps."""
    height, width = gt_m.shape
    resized = resize(inv_depth, gt_m.shape)
    rows, columns = range(height), range(width)
    if protocol.crop != "none":
        top, bottom, left, right = CROPS[protocol.crop]
        rows, columns = range(int(top * height), int(bottom * height)), range(int(left * width), int(right * width))
    pixels = [(r, c) for r in rows for c in columns if protocol.min_gt_m < gt_m[r, c] < protocol.max_gt_m]
    gt = [float(gt_m[p]) for p in pixels]
    depth = [factor / float(resized[p]) for p in pixels]
    ratio = float(np.median(gt) / np.median(depth)) if alignment == "median" else 1.0
    if alignment == "lstsq":
        design = np.array([[float(resized[p]), 1.0] for p in pixels])
        scale, shift = np.linalg.lstsq(design, 1 / np.array(gt), rcond=None)[0]
        aligned = [scale * float(resized[p]) + shift for p in pixels]
        depth = [1 / a if a > 0 else float("inf") for a in aligned]
    return depth_errors(gt, [min(max(p * ratio, 1e-3), protocol.max_pred_m) for p in depth]), ratio
