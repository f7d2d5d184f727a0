"""Depth metrics, resizing and post-processing, one number at a time: slow and plain."""

import math

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


def image_errors(inv_depth: np.ndarray, gt_m: np.ndarray, *, crop: bool, median: bool, factor: float) -> tuple[list[float], float]:
    """Errors of one image and its median ratio, by the published evaluation's steps."""
    height, width = gt_m.shape
    depth = factor / resize(inv_depth, gt_m.shape)
    if crop:
        rows = range(int(0.40810811 * height), int(0.99189189 * height))
        columns = range(int(0.03594771 * width), int(0.96405229 * width))
        pixels = [(r, c) for r in rows for c in columns if 1e-3 < gt_m[r, c] < 80]
    else:
        pixels = [(r, c) for r in range(height) for c in range(width) if gt_m[r, c] > 0]
    gt = [float(gt_m[p]) for p in pixels]
    pred = [float(depth[p]) for p in pixels]
    ratio = float(np.median(gt) / np.median(pred)) if median else 1.0
    return depth_errors(gt, [min(max(p * ratio, 1e-3), 80.0) for p in pred]), ratio
