"""Errors of ego-motion, one frame, segment or point at a time: slow and plain."""

import math
from itertools import pairwise

import numpy as np


def snippet_points(motions: list[np.ndarray], *, camera: bool) -> np.ndarray:
    """Positions along one snippet of T_next_previous: as published, or (``camera``) where the camera stands."""
    C, points = np.eye(4), [np.zeros(3)]
    for T in motions:
        C = C @ (np.linalg.inv(T) if camera else T)
        points.append(C[:3, 3])
    return np.array(points)


def snippet_error(gt: np.ndarray, pred: np.ndarray, *, rms: bool) -> float:
    """The error of one snippet after the best scale: sqrt(sum) / n as published, or the root mean square."""
    scale = (gt * pred).sum() / (pred**2).sum()
    square = sum(sum((scale * p - g) ** 2) for g, p in zip(gt, pred, strict=True))
    return math.sqrt(square / len(gt)) if rms else math.sqrt(square) / len(gt)


def segment_errors(gt: np.ndarray, pred: np.ndarray, lengths: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """(length, translation error over length, rotation error over length) of each segment, in the benchmark's order."""
    distance = [0.0]
    for before, after in pairwise(gt):
        distance.append(distance[-1] + math.dist(before[:3, 3], after[:3, 3]))
    errors = []
    for first in range(0, len(gt), 10):
        for length in lengths:
            last = next((i for i in range(first, len(gt)) if distance[i] > distance[first] + length), None)
            if last is None:
                continue
            true_step = np.linalg.inv(gt[first]) @ gt[last]
            pred_step = np.linalg.inv(pred[first]) @ pred[last]
            error = np.linalg.inv(pred_step) @ true_step
            cosine = (error[0, 0] + error[1, 1] + error[2, 2] - 1) / 2
            errors.append((length, math.hypot(*error[:3, 3]) / length, math.acos(min(1, max(-1, cosine))) / length))
    return errors


def similarity_residual(gt: np.ndarray, pred: np.ndarray, scale: float, R: np.ndarray, t: np.ndarray) -> float:
    """Sum of squared distances after a similarity."""
    return float(sum(sum((g - (scale * R @ p + t)) ** 2) for g, p in zip(gt, pred, strict=True)))
