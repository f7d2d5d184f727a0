"""The yardstick: Monodepth2's way of scoring depth, one image after another, everything at the truth's full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0


def read_plain_truths(path: Path) -> np.ndarray:
    """The pickled maps of the reference's own ground-truth file."""
    truths: np.ndarray = np.load(path, allow_pickle=True)["data"]
    return truths


def plain_scores(inv_depths: np.ndarray, gts_m: Sequence[np.ndarray]) -> np.ndarray:
    """The seven mean errors of N predictions against N dense maps, median scaled, Garg crop, 80 m."""
    errors = []
    for inv_depth, gt_m in zip(inv_depths, gts_m, strict=True):
        height, width = gt_m.shape
        depth = 1 / cv2.resize(inv_depth, (width, height))
        mask = np.logical_and(gt_m > MIN_DEPTH_M, gt_m < MAX_DEPTH_M)
        crop = np.zeros(mask.shape)
        top, bottom = int(0.40810811 * height), int(0.99189189 * height)
        left, right = int(0.03594771 * width), int(0.96405229 * width)
        crop[top:bottom, left:right] = 1
        mask = np.logical_and(mask, crop)
        pred, gt = depth[mask], gt_m[mask]
        pred = pred * (np.median(gt) / np.median(pred))
        pred[pred < MIN_DEPTH_M] = MIN_DEPTH_M
        pred[pred > MAX_DEPTH_M] = MAX_DEPTH_M
        errors.append(plain_errors(gt, pred))
    return np.array(errors).mean(axis=0)


def plain_errors(gt: np.ndarray, pred: np.ndarray) -> tuple[float, ...]:
    """abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3 of one image."""
    worst = np.maximum(gt / pred, pred / gt)
    accuracies = [(worst < 1.25**k).mean() for k in (1, 2, 3)]
    rmse = np.sqrt(((gt - pred) ** 2).mean())
    rmse_log = np.sqrt(((np.log(gt) - np.log(pred)) ** 2).mean())
    return np.mean(np.abs(gt - pred) / gt), np.mean((gt - pred) ** 2 / gt), rmse, rmse_log, *accuracies
