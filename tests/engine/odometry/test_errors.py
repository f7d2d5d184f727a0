"""The errors of ego-motion: the published number, plain twins, invariances, cases worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from golden.formulas import real_numbers
from reference import odometry as plain

from engine.odometry.errors import (
    absolute_poses,
    ate_rmse_m,
    camera_snippet_errors,
    local_motions,
    segment_errors,
    snippet_errors,
    umeyama_alignment,
)
from engine.odometry.scores import score_motions
from splits.errors import InputError


def _rotations_y(angles: np.ndarray) -> np.ndarray:
    T = np.tile(np.eye(4), (len(angles), 1, 1))
    T[:, 0, 0] = T[:, 2, 2] = np.cos(angles)
    T[:, 0, 2], T[:, 2, 0] = np.sin(angles), -np.sin(angles)
    return T


def _motions(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = _rotations_y(rng.normal(0, 0.05, count))
    T[:, :3, 3] = rng.normal([0, 0, -1], 0.1, (count, 3))
    return T


def _scaled(motions: np.ndarray, factor: float) -> np.ndarray:
    scaled = motions.copy()
    scaled[:, :3, 3] *= factor
    return scaled


def test_published_number(shared: Path) -> None:
    numbers = real_numbers(shared)
    expected = numbers["odometry_5_frame_ate"]
    rows = np.loadtxt(shared / "kitti" / "odometry" / "poses" / f"{expected['sequence']}.txt").reshape(-1, 3, 4)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows
    motions = local_motions(poses)
    i = np.arange(len(motions))
    predicted = motions @ _rotations_y(0.01 * np.sin(0.3 * i + numbers["seed"]))
    predicted[:, :3, 3] *= (0.03 * (1 + 0.2 * np.sin(0.11 * i)))[:, None]
    errors = snippet_errors(motions, predicted)
    assert len(errors) == len(poses) - 1
    assert errors.mean() == pytest.approx(expected["mean_m"], rel=1e-6)
    assert errors.std() == pytest.approx(expected["std_m"], rel=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
def test_snippet_twin(corrected: bool) -> None:
    gt, pred = _motions(9, 0), _motions(9, 1)
    expected = []
    for start in range(9):
        truth, guess = (plain.snippet_points(list(motions[start : start + 4]), camera=corrected) for motions in (gt, pred))
        expected.append(plain.snippet_error(truth, guess, rms=corrected))
    found = (camera_snippet_errors if corrected else snippet_errors)(gt, pred)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_scale_of_a_prediction_does_not_matter() -> None:
    gt = _motions(12, 2)
    for errors in (snippet_errors, camera_snippet_errors):
        np.testing.assert_allclose(errors(gt, _scaled(gt, 0.03)), 0, atol=1e-12)


def test_camera_snippets_are_the_true_positions() -> None:
    # A quarter turn on the spot, then a metre ahead: the camera ends to the side, which the published product does not see.
    turn = _rotations_y(np.array([math.pi / 2]))[0]
    ahead = np.eye(4)
    ahead[2, 3] = -1.0
    straight = np.stack([np.eye(4), ahead])
    # Truth (0, 0, 1) against prediction (-1, 0, 0): no scale helps, so the error is the metre, of the last of three points.
    found = camera_snippet_errors(straight, np.stack([turn, ahead]))
    assert found[0] == pytest.approx(math.sqrt(1 / 3))


def test_a_prediction_that_stands_still_is_scored_as_it_is() -> None:
    gt = np.tile(np.eye(4), (3, 1, 1))
    gt[:, 2, 3] = -1.0
    still = np.tile(np.eye(4), (3, 1, 1))
    # Points 0, 1, 2, 3 m away; 0, 1, 2; 0, 1.
    np.testing.assert_allclose(snippet_errors(gt, still), [math.sqrt(14) / 4, math.sqrt(5) / 3, 1 / 2])
    np.testing.assert_allclose(snippet_errors(still, still), 0)
    with pytest.raises(InputError, match="the predicted trajectory stands still, so no scale aligns it"):
        score_motions(absolute_poses(gt), still, sequence=4)
    with pytest.raises(InputError, match="the true trajectory stands still"):
        score_motions(absolute_poses(still), gt, sequence=4)


def test_local_motions_map_the_earlier_camera_into_the_later() -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 1.5  # one and a half metres ahead
    np.testing.assert_allclose(local_motions(poses)[0] @ [0, 0, 2, 1], [0, 0, 0.5, 1])


def test_absolute_poses_undo_local_motions() -> None:
    motions = _motions(20, 3)
    np.testing.assert_allclose(local_motions(absolute_poses(motions)), motions, atol=1e-12)
    np.testing.assert_allclose(absolute_poses(motions, 7.0)[:, :3, 3], 7 * absolute_poses(motions)[:, :3, 3], rtol=1e-9, atol=1e-12)


def test_segment_twin() -> None:
    gt, pred = absolute_poses(_motions(300, 4)), absolute_poses(_motions(300, 5))
    lengths = (20, 50, 130, 1000)
    found = segment_errors(gt, pred, lengths)
    expected = np.array(plain.segment_errors(gt, pred, lengths))
    assert set(found.length_m) == {20, 50, 130}
    np.testing.assert_allclose(np.stack(found, axis=1), expected, rtol=1e-9)
    assert found.t_err_percent == pytest.approx(100 * expected[:, 1].mean())
    assert found.r_err_deg_per_100m == pytest.approx(100 * np.rad2deg(expected[:, 2].mean()))
    fifty = expected[expected[:, 0] == 50]
    assert found.of_length(50).t_err_percent == pytest.approx(100 * fifty[:, 1].mean())


def test_yaw_drift_and_stretch_by_hand() -> None:
    # 400 steps of a metre straight ahead; the prediction turns 0.05 degrees in each.
    ahead = np.tile(np.eye(4), (400, 1, 1))
    ahead[:, 2, 3] = -1.0
    drift = ahead @ _rotations_y(np.full(400, np.deg2rad(0.05)))
    gt = absolute_poses(ahead)
    errors = segment_errors(gt, absolute_poses(drift), (100.5, 200.5))
    # A segment of 100.5 m ends after 101 steps, one of 200.5 m after 201.
    assert np.rad2deg(errors.of_length(100.5).r_err[0]) == pytest.approx(0.05 * 101 / 100.5, rel=1e-9)
    assert errors.of_length(200.5).r_err_deg_per_100m == pytest.approx(5 * 201 / 200.5, rel=1e-9)
    stretched = segment_errors(gt, absolute_poses(ahead, 1.1), (100.5,))
    assert stretched.t_err_percent == pytest.approx(10 * 101 / 100.5)
    # Frame 100 is 100 m away, not farther.
    assert segment_errors(gt, absolute_poses(ahead, 1.1), (100,)).t_err_percent == pytest.approx(10 * 101 / 100)
    assert stretched.r_err_deg_per_100m == pytest.approx(0, abs=1e-5)


def test_a_short_path_has_no_segments() -> None:
    motions = _motions(12, 6)
    scores = score_motions(absolute_poses(motions), motions, sequence=4)
    assert math.isnan(scores.segments.t_err_percent)
    assert math.isnan(scores.segments.r_err_deg_per_100m)
    assert scores.table().count("none: the path is 11.6 m long, the shortest segment 100 m") == 2
    found = scores.as_json()
    assert found["t_err_percent"] is None
    assert found["segments_by_length_m"]["100"] == {"t_err_percent": None, "r_err_deg_per_100m": None, "num_segments": 0}


def test_alignment_finds_a_known_similarity_and_no_mirror() -> None:
    rng = np.random.default_rng(7)
    pred = rng.normal(size=(30, 3))
    R = _rotations_y(np.array([0.7]))[0, :3, :3] @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    gt = 3.5 * pred @ R.T + [1, -2, 30]
    found = umeyama_alignment(gt, pred)
    assert found.scale == pytest.approx(3.5)
    np.testing.assert_allclose(found.R, R, atol=1e-12)
    np.testing.assert_allclose(found.t, [1, -2, 30], atol=1e-12)
    assert ate_rmse_m(gt, found.apply(pred)) == pytest.approx(0, abs=1e-12)
    mirror = gt * [1, 1, -1]
    best = umeyama_alignment(mirror, pred)
    assert np.linalg.det(best.R) == pytest.approx(1)
    centred = pred @ best.R.T - (pred @ best.R.T).mean(axis=0)
    assert best.scale == pytest.approx(((mirror - mirror.mean(axis=0)) * centred).sum() / (centred**2).sum())


def test_no_similarity_near_the_alignment_is_better() -> None:
    rng = np.random.default_rng(8)
    gt, pred = (absolute_poses(_motions(40, seed))[:, :3, 3] for seed in (9, 10))
    best = umeyama_alignment(gt, pred)
    least = plain.similarity_residual(gt, pred, *best)
    assert ate_rmse_m(gt, best.apply(pred)) == pytest.approx(math.sqrt(least / 41))
    for _ in range(20):
        turn = _rotations_y(rng.normal(0, 0.02, 1))[0, :3, :3]
        moved = (best.scale * (1 + rng.normal(0, 0.01)), best.R @ turn, best.t + rng.normal(0, 0.1, 3))
        assert plain.similarity_residual(gt, pred, *moved) > least


@pytest.mark.parametrize("factor", [1.0, 0.03])
def test_a_perfect_prediction_up_to_scale_scores_zero(factor: float) -> None:
    gt = absolute_poses(_motions(300, 11))
    # The truth may begin anywhere.
    gt = absolute_poses(_motions(3, 12))[-1] @ gt
    scores = score_motions(gt, _scaled(local_motions(gt), factor), sequence=4)
    assert scores.alignment.scale == pytest.approx(1 / factor)
    found = scores.as_json()
    assert found["segments_by_length_m"]["200"]["num_segments"] > 0
    for name in ("trajectory_error", "camera_snippet_rmse_m", "t_err_percent", "ate_rmse_m"):
        assert found[name] == pytest.approx(0, abs=1e-9), name
    assert found["r_err_deg_per_100m"] == pytest.approx(0, abs=1e-5)
