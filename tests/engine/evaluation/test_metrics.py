"""The seven errors: the published numbers, a plain twin, and what must hold of any error."""

import numpy as np
import pytest
import torch
from golden.formulas import formula_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import metrics as plain

from engine.evaluation.metrics import METRICS, crop_bounds, depth_errors, depth_terms, mean_errors
from engine.training.showing import training_depth_errors


def test_published_numbers() -> None:
    gt = np.linspace(1, 79, 50)
    pred = gt * (1 + 0.3 * np.sin(np.arange(50)))
    found = depth_errors(gt, pred).tolist()
    assert found == pytest.approx(formula_numbers()["compute_errors"], rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 80), st.floats(1e-3, 80)), min_size=1, max_size=40))
def test_twin(pairs: list[tuple[float, float]]) -> None:
    gt, pred = (list(values) for values in zip(*pairs, strict=True))
    found = depth_errors(np.array(gt), np.array(pred)).tolist()
    assert found == pytest.approx(plain.depth_errors(gt, pred), rel=1e-9, abs=1e-12)


def test_a_perfect_prediction_has_no_error() -> None:
    gt = np.linspace(0.5, 80, 101, dtype=np.float32)
    assert dict(zip(METRICS, depth_errors(gt, gt).tolist(), strict=True)) == {
        "abs_rel": 0, "sq_rel": 0, "rmse": 0, "rmse_log": 0, "a1": 1, "a2": 1, "a3": 1,
    }  # fmt: skip


def test_crop_of_kitti() -> None:
    assert crop_bounds("garg", 375, 1242) == (153, 371, 44, 1197)
    assert crop_bounds("eigen", 375, 1242) == (124, 342, 44, 1197)
    assert crop_bounds("none", 375, 1242) == (0, 375, 0, 1242)


def test_sums_of_parts_give_the_errors_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    gt, pred = rng.uniform(1, 80, (2, 90))
    parts = [depth_terms(gt[i::3], pred[i::3]).sum(axis=1) for i in range(3)]
    np.testing.assert_allclose(mean_errors(np.sum(parts, axis=0), 90.0), depth_errors(gt, pred), rtol=1e-12)
    stacked = mean_errors(np.stack([parts[0], np.zeros(7)]), np.array([30.0, 0.0]))
    np.testing.assert_allclose(stacked[0], depth_errors(gt[::3], pred[::3]), rtol=1e-12)
    assert np.isnan(stacked[1]).all()


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = 0.5 + torch.rand(2, 1, 12, 40, generator=generator)
    gt_m = 60 * torch.rand(2, 1, 30, 100, generator=generator)
    return depth, gt_m * (torch.rand(gt_m.shape, generator=generator) > 0.6)


def test_training_errors_pool_the_batch_under_one_ratio() -> None:
    depth, gt_m = _batch()
    top, bottom, left, right = crop_bounds("garg", 30, 100)
    gt, pred = [], []
    for b in range(2):
        resized = plain.resize(depth[b, 0].double().numpy(), (30, 100))
        pixels = [(r, c) for r in range(top, bottom) for c in range(left, right) if gt_m[b, 0, r, c] > 0]
        gt += [float(gt_m[b, 0, r, c]) for r, c in pixels]
        pred += [float(resized[r, c]) for r, c in pixels]
    # Of an even number of values, torch's median is the lower middle one; so was the published one.
    ratio = sorted(gt)[(len(gt) - 1) // 2] / sorted(pred)[(len(pred) - 1) // 2]
    expected = plain.depth_errors(gt, [min(max(p * ratio, 1e-3), 80.0) for p in pred])
    assert training_depth_errors(depth, gt_m) == pytest.approx(expected, rel=1e-4)


def test_training_errors_know_no_scale() -> None:
    depth, gt_m = _batch()
    np.testing.assert_allclose(training_depth_errors(7.3 * depth, gt_m), training_depth_errors(depth, gt_m), rtol=1e-4)


def test_training_errors_without_truth_are_nan() -> None:
    depth, gt_m = _batch()
    assert np.isnan(training_depth_errors(depth, torch.zeros_like(gt_m))).all()
