"""Errors of ego-motion: the published snippet error, the same on true camera positions, KITTI's segment errors, whole trajectories.

Motions are frame-to-frame transforms T_next_previous; poses are T_world_camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError

SNIPPET_FRAMES = 5
SEGMENT_LENGTHS_M = (100, 200, 300, 400, 500, 600, 700, 800)
SEGMENT_STEP_FRAMES = 10
# A path shorter than this has no direction to align by.
LEAST_EXTENT_M = 1e-9
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class SegmentErrors(NamedTuple):
    """Errors of S segments of the path, one value each.

    Attributes:
        length_m: the nominal length, one of ``SEGMENT_LENGTHS_M``.
        t_err: translation error over length, no unit.
        r_err: rotation error over length, radians per metre.
    """

    length_m: Array
    t_err: Array
    r_err: Array

    @property
    def t_err_percent(self) -> float:
        """The mean translation error, % of the length; NaN without a segment."""
        return _mean(self.t_err) * 100.0

    @property
    def r_err_deg_per_100m(self) -> float:
        """The mean rotation error, degrees per 100 m; NaN without a segment."""
        return float(np.rad2deg(_mean(self.r_err))) * 100.0

    def of_length(self, length_m: float) -> SegmentErrors:
        """The segments of one nominal length."""
        chosen = self.length_m == length_m
        return SegmentErrors(*(values[chosen] for values in self))


class Alignment(NamedTuple):
    """The similarity p -> scale R p + t that moves a prediction onto the truth."""

    scale: float
    R: Array
    t: Array

    def apply(self, points: Array) -> Array:
        """Points (N,3), moved."""
        moved: Array = self.scale * points @ self.R.T + self.t
        return moved


def inverse(transforms: Array) -> Array:
    """The inverses (...,4,4) of transforms (...,4,4)."""
    inverses: Array = np.asarray(np.linalg.inv(transforms), np.float64)
    return inverses


def local_motions(poses: Array) -> Array:
    """Frame-to-frame motions (N-1,4,4), T_next_previous, of poses (N,4,4), T_world_camera."""
    motions: Array = inverse(poses[1:]) @ poses[:-1]
    return motions


def heading_error_deg(gt_poses: Array, motions: Array) -> float:
    """The median angle in degrees between the directions in which motions (N-1,4,4) and the true poses (N,4,4) move.

    180 for motions that are the inverse of T_next_previous, whatever their scale; frames at rest are ignored.
    """
    gt_t, pred_t = inverse(local_motions(gt_poses))[:, :3, 3], inverse(motions)[:, :3, 3]
    lengths = np.linalg.norm(gt_t, axis=1) * np.linalg.norm(pred_t, axis=1)
    moves = lengths > 0
    if not moves.any():
        return 0.0
    cosines = np.clip((gt_t * pred_t).sum(axis=1)[moves] / lengths[moves], -1.0, 1.0)
    return float(np.degrees(np.median(np.arccos(cosines))))


def absolute_poses(motions: Array, scale: float = 1.0) -> Array:
    """Poses (N,4,4), T_first_camera, of motions (N-1,4,4), T_next_previous, the translations times ``scale``; begins with identity."""
    steps = inverse(motions)
    steps[:, :3, 3] *= scale
    poses = np.empty((len(motions) + 1, 4, 4))
    poses[0] = np.eye(4)
    for number, step in enumerate(steps):
        poses[number + 1] = poses[number] @ step
    return poses


def snippet_positions(motions: Array, num_frames: int = SNIPPET_FRAMES) -> tuple[Array, Mask]:
    """Positions (M,num_frames,3) of the snippets that start at each of M motions (M,4,4), and which of them exist (M,num_frames).

    A snippet starts at the origin and multiplies its motions from the left to the right, C <- C T, as published; as the motions map the
    earlier camera's points into the later one, these are not the camera's true positions (give the inverse motions for those). The last
    snippets are shorter.
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


def trajectory_errors(gt: Array, pred: Array, exists: Mask) -> Array:
    """The error (M,) of M trajectories (M,n,3) in the unit of ``gt``; points that do not exist are ignored.

    The prediction is moved so that its first point is the truth's, then scaled by s = sum(gt pred) / sum(pred^2); the error is
    sqrt(sum |s pred - gt|^2) / number of points (Zhou et al. 2017; not a root mean square). A prediction that stands
    still has no scale and is left as it is (published: 0 / 0).
    """
    errors: Array = np.sqrt(_squared_residuals(gt, pred, exists)) / exists.sum(axis=1)
    return errors


def snippet_errors(gt_motions: Array, pred_motions: Array, num_frames: int = SNIPPET_FRAMES) -> Array:
    """The published errors (M,) of predicted motions (M,4,4), T_next_previous, against the true ones, one for each snippet; metres."""
    gt, exists = snippet_positions(gt_motions, num_frames)
    pred, _ = snippet_positions(pred_motions, num_frames)
    return trajectory_errors(gt, pred, exists)


def camera_snippet_errors(gt_motions: Array, pred_motions: Array, num_frames: int = SNIPPET_FRAMES) -> Array:
    """The errors (M,) as ``snippet_errors``, of the camera's true positions, each the root mean square over its snippet's points; metres.

    Camera k stands at the translation of inv(T_1_0) inv(T_2_1) ... inv(T_k_k-1), in the coordinates of the snippet's first camera.
    """
    gt, exists = snippet_positions(inverse(gt_motions), num_frames)
    pred, _ = snippet_positions(inverse(pred_motions), num_frames)
    errors: Array = np.sqrt(_squared_residuals(gt, pred, exists) / exists.sum(axis=1))
    return errors


def _squared_residuals(gt: Array, pred: Array, exists: Mask) -> Array:
    """Sum (M,) of squared distances after the shift to the first point and the best scale."""
    weight = exists[..., None].astype(np.float64)
    moved = (pred + (gt[:, :1] - pred[:, :1])) * weight
    square = np.square(moved).sum(axis=(1, 2))
    scale = np.divide((gt * moved).sum(axis=(1, 2)), square, out=np.zeros(len(gt)), where=square > 0)
    residual = (moved * scale[:, None, None] - gt) * weight
    total: Array = np.square(residual).sum(axis=(1, 2))
    return total


def path_lengths_m(poses: Array) -> Array:
    """Distance (N,) travelled up to each of N poses (N,4,4), metres; begins with 0."""
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def segment_errors(
    gt_poses: Array, pred_poses: Array, lengths: Sequence[float] = SEGMENT_LENGTHS_M, step: int = SEGMENT_STEP_FRAMES
) -> SegmentErrors:
    """KITTI's errors over segments of the true path (Geiger et al. 2012), of poses (N,4,4), T_world_camera, both in metres.

    A segment begins at every ``step``-th frame i and ends at the first frame j farther along the true path than its length. With
    E = inv(inv(P_i) P_j) inv(G_i) G_j for predicted P and true G, its errors are |translation of E| and arccos((trace R_E - 1) / 2),
    each over the nominal length. None where the path is too short.
    """
    assert gt_poses.shape == pred_poses.shape, (gt_poses.shape, pred_poses.shape)
    distance = path_lengths_m(gt_poses)
    starts = np.arange(0, len(gt_poses), step)
    first = np.repeat(starts, len(lengths))
    length_m = np.tile(np.asarray(lengths, np.float64), len(starts))
    last = np.searchsorted(distance, distance[first] + length_m, side="right")
    reached = last < len(distance)
    first, last, length_m = first[reached], last[reached], length_m[reached]
    gt_inv, pred_inv = inverse(gt_poses), inverse(pred_poses)
    error = inverse(pred_inv[first] @ pred_poses[last]) @ (gt_inv[first] @ gt_poses[last])
    angle = np.arccos(np.clip((np.trace(error[:, :3, :3], axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0))
    return SegmentErrors(length_m, np.linalg.norm(error[:, :3, 3], axis=1) / length_m, angle / length_m)


def umeyama_alignment(gt_xyz: Array, pred_xyz: Array) -> Alignment:
    """The similarity (7 degrees of freedom) that brings ``pred_xyz`` (N,3) closest to ``gt_xyz`` (N,3), metres (Umeyama 1991).

    It minimises sum |gt - (s R pred + t)|^2: with covariance U D VT of truth and prediction, R = U S VT, s = trace(D S) / variance of
    the prediction, S = diag(1, 1, +-1) so that R is no mirror.

    Raises:
        InputError: a trajectory that stands still, which no scale aligns.
    """
    gt_mean, pred_mean = gt_xyz.mean(axis=0), pred_xyz.mean(axis=0)
    gt, pred = gt_xyz - gt_mean, pred_xyz - pred_mean
    variance = float(np.square(pred).sum()) / len(pred)
    for name, extent in (("predicted", variance), ("true", float(np.square(gt).sum()) / len(gt))):
        if not extent > LEAST_EXTENT_M**2:
            raise InputError(f"the {name} trajectory stands still, so no scale aligns it; check its motions: their translations are all 0")
    U, D, Vt = np.linalg.svd(gt.T @ pred / len(gt))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = (U * signs) @ Vt
    scale = float((D * signs).sum()) / variance
    return Alignment(scale, R, gt_mean - scale * R @ pred_mean)


def ate_rmse_m(gt_xyz: Array, aligned_xyz: Array) -> float:
    """Absolute trajectory error: the root mean square distance of N points (N,3), metres."""
    return float(np.sqrt(np.square(gt_xyz - aligned_xyz).sum(axis=1).mean()))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
