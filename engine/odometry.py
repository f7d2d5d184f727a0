"""The published odometry error: absolute trajectory error over short snippets, each aligned in position and scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SNIPPET_FRAMES = 5
Array = NDArray[np.float64]


def local_motions(poses: Array) -> Array:
    """Frame-to-frame motions (N-1,4,4), T_next_previous, of poses (N,4,4), T_world_camera."""
    motions: Array = np.linalg.inv(poses[1:]) @ poses[:-1]
    return motions


def snippet_positions(motions: Array, num_frames: int = SNIPPET_FRAMES) -> tuple[Array, NDArray[np.bool_]]:
    """Positions (M,num_frames,3) of the snippets that start at each of M motions (M,4,4), and which of them exist (M,num_frames).

    A snippet starts at the origin and multiplies its motions from the left to the right, C <- C T, as published; as the motions map the
    earlier camera's points into the later one, these are not the camera's true positions. The last snippets are shorter.
    """
    count = len(motions)
    padded = np.concatenate([motions, np.broadcast_to(np.eye(4), (num_frames, 4, 4))])
    current = np.broadcast_to(np.eye(4), (count, 4, 4))
    positions = [current[:, :3, 3]]
    for step in range(num_frames - 1):
        current = current @ padded[step : step + count]
        positions.append(current[:, :3, 3])
    exists = np.arange(count)[:, None] + np.arange(num_frames) <= count
    return np.stack(positions, axis=1), exists


def trajectory_errors(gt: Array, pred: Array, exists: NDArray[np.bool_]) -> Array:
    """The error (M,) of M trajectories (M,n,3) in the unit of ``gt``; points that do not exist count for nothing.

    The prediction is moved so that its first point is the truth's, then scaled by s = sum(gt pred) / sum(pred^2); the error is
    sqrt(sum |s pred - gt|^2) / number of points (Zhou et al. 2017; not a root mean square).
    """
    weight = exists[..., None].astype(np.float64)
    moved = (pred + (gt[:, :1] - pred[:, :1])) * weight
    scale = (gt * moved).sum(axis=(1, 2)) / np.square(moved).sum(axis=(1, 2))
    residual = (moved * scale[:, None, None] - gt) * weight
    errors: Array = np.sqrt(np.square(residual).sum(axis=(1, 2))) / exists.sum(axis=1)
    return errors


def snippet_errors(gt_motions: Array, pred_motions: Array, num_frames: int = SNIPPET_FRAMES) -> Array:
    """The published errors (M,) of predicted motions (M,4,4), T_next_previous, against the true ones, one for each snippet; metres."""
    gt, exists = snippet_positions(gt_motions, num_frames)
    pred, _ = snippet_positions(pred_motions, num_frames)
    return trajectory_errors(gt, pred, exists)
