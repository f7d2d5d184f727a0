"""The outcome of an evaluation of ego-motion: the published numbers, the corrected ones, and their output as text."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from engine.odometry.errors import (
    SEGMENT_LENGTHS_M,
    Alignment,
    Array,
    SegmentErrors,
    absolute_poses,
    ate_rmse_m,
    camera_snippet_errors,
    local_motions,
    path_lengths_m,
    segment_errors,
    snippet_errors,
    umeyama_alignment,
)


class PoseScores(NamedTuple):
    """The scores of one sequence of N frames; lengths in metres.

    Attributes:
        snippet_errors: (N-1,), of five-frame snippets as Monodepth2 publishes them.
        camera_snippet_errors: (N-1,), the root mean square errors of the camera's positions in those snippets.
        segments: KITTI's segment errors of the trajectory times ``alignment.scale``.
        ate_rmse_m: of the whole trajectory after ``alignment``.
        alignment: the similarity from the prediction, which begins at the origin, to the truth.
        path_length_m: of the true path.
    """

    sequence: int
    num_frames: int
    snippet_errors: Array
    camera_snippet_errors: Array
    segments: SegmentErrors
    ate_rmse_m: float
    alignment: Alignment
    path_length_m: float

    def table(self) -> str:
        """The published line as Monodepth2 prints it, then the errors that it leaves out."""
        segments, camera = self.segments, self.camera_snippet_errors
        if len(segments.length_m):
            t_err, r_err = f"{segments.t_err_percent:10.3f} %", f"{segments.r_err_deg_per_100m:10.3f} deg/100 m"
        else:
            t_err = r_err = f"{'none':>10}: the path is {self.path_length_m:.1f} m long, the shortest segment {SEGMENT_LENGTHS_M[0]} m"
        rows = {
            "5-frame error of camera positions": f"{camera.mean():10.3f} m, std: {camera.std():0.3f}",
            "translation error t_err": t_err,
            "rotation error r_err": r_err,
            "whole-trajectory error (ATE)": f"{self.ate_rmse_m:10.3f} m",
            "alignment scale": f"{self.alignment.scale:10.3f}",
            "frames": f"{self.num_frames:10d}",
            "true path": f"{self.path_length_m:10.3f} m",
        }
        published = f"\n   Trajectory error: {self.snippet_errors.mean():0.3f}, std: {self.snippet_errors.std():0.3f}\n"
        return published + "".join(f"\n   {name:<34}|{value}" for name, value in rows.items()) + "\n"

    def as_json(self) -> dict[str, Any]:
        """All figures with their units in their names, null where there is none, and the segment errors by length."""
        by_length = {}
        for length_m in SEGMENT_LENGTHS_M:
            by_length[str(length_m)] = _segments_json(self.segments.of_length(length_m))
        return {
            "sequence": self.sequence,
            "num_frames": self.num_frames,
            "path_length_m": self.path_length_m,
            "trajectory_error": float(self.snippet_errors.mean()),
            "trajectory_error_std": float(self.snippet_errors.std()),
            "camera_snippet_rmse_m": float(self.camera_snippet_errors.mean()),
            "camera_snippet_rmse_std_m": float(self.camera_snippet_errors.std()),
            **_segments_json(self.segments),
            "segments_by_length_m": by_length,
            "ate_rmse_m": self.ate_rmse_m,
            "alignment_scale": self.alignment.scale,
        }


def score_motions(gt_poses: Array, motions: Array, *, sequence: int) -> PoseScores:
    """Score predicted motions (N-1,4,4), T_next_previous up to one scale, against the true poses (N,4,4), T_world_camera, in metres.

    Raises:
        InputError: a prediction or a truth that stands still.
    """
    gt_motions = local_motions(gt_poses)
    gt_xyz, pred_xyz = gt_poses[:, :3, 3], absolute_poses(motions)[:, :3, 3]
    alignment = umeyama_alignment(gt_xyz, pred_xyz)
    return PoseScores(
        sequence=sequence,
        num_frames=len(gt_poses),
        snippet_errors=snippet_errors(gt_motions, motions),
        camera_snippet_errors=camera_snippet_errors(gt_motions, motions),
        segments=segment_errors(gt_poses, absolute_poses(motions, alignment.scale)),
        ate_rmse_m=ate_rmse_m(gt_xyz, alignment.apply(pred_xyz)),
        alignment=alignment,
        path_length_m=float(path_lengths_m(gt_poses)[-1]),
    )


def _segments_json(segments: SegmentErrors) -> dict[str, float | int | None]:
    values = {"t_err_percent": segments.t_err_percent, "r_err_deg_per_100m": segments.r_err_deg_per_100m}
    known = {name: None if math.isnan(value) else value for name, value in values.items()}
    return {**known, "num_segments": len(segments.length_m)}
