"""The snippet error of odometry: the published number, a plain twin, and its invariances."""

from pathlib import Path

import numpy as np
import pytest
from golden.formulas import read_numbers

from engine.odometry import local_motions, snippet_errors


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


def test_published_number(shared: Path) -> None:
    numbers = read_numbers(shared, "upstream")
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


def test_twin() -> None:
    gt, pred = _motions(9, 0), _motions(9, 1)
    expected = []
    for start in range(9):
        points = []
        for motions in (gt, pred):
            C, positions = np.eye(4), [np.zeros(3)]
            for T in motions[start : start + 4]:
                C = C @ T
                positions.append(C[:3, 3])
            points.append(np.array(positions))
        truth, guess = points
        scale = (truth * guess).sum() / (guess**2).sum()
        expected.append(np.sqrt(((guess * scale - truth) ** 2).sum()) / len(truth))
    np.testing.assert_allclose(snippet_errors(gt, pred), expected, rtol=1e-12)


def test_the_scale_of_a_prediction_does_not_matter() -> None:
    gt = _motions(12, 2)
    scaled = gt.copy()
    scaled[:, :3, 3] *= 0.03
    np.testing.assert_allclose(snippet_errors(gt, scaled), 0, atol=1e-12)


def test_local_motions_map_the_earlier_camera_into_the_later() -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 1.5  # one and a half metres ahead
    np.testing.assert_allclose(local_motions(poses)[0] @ [0, 0, 2, 1], [0, 0, 0.5, 1])
