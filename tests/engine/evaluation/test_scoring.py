"""Scoring: the published numbers on real scans, plain twins, and clear refusals."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.formulas import real_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import metrics as plain
from torch.nn import functional as F

from dataload.datasets.kitti import KittiRaw
from dataload.frames.frame_ref import parse_split
from dataload.frames.sparse_depth import SparseDepth
from engine.evaluation.baselines import predict_prior, row_median_prior
from engine.evaluation.metrics import ALL_GT, EIGEN, Protocol
from engine.evaluation.output import published_table
from engine.evaluation.scores import BAND_EDGES_M, BOOTSTRAPS, ERROR_EDGES, Scores
from engine.evaluation.scoring import Rules, aligned_depth_m, fit, score
from engine.inference.predictions import blend_flipped
from engine.resample import resize, resize_at
from splits.errors import InputError

EVALUATION = "evaluation_on_formula_disparity_25_frames_of_0052"


def sparse(gts_m: Sequence[np.ndarray]) -> list[SparseDepth]:
    return [SparseDepth.of(gt_m) for gt_m in gts_m]


@cache
def _ground_truth(shared: Path) -> list[SparseDepth]:
    lines = sorted((shared / "kitti" / "splits" / "kitti_mini" / "test_files.txt").read_text().splitlines())
    dataset = KittiRaw(shared / "kitti" / "raw_jpg", ".jpg")
    return sparse([dataset.eval_depth_m(ref) for ref in parse_split(lines, source="test")])


def _formula_inv_depths(seed: int, shift: int = 0) -> np.ndarray:
    i, y, x = np.ogrid[shift : 25 + shift, 0:192, 0:640]
    return (0.02 + 0.25 * (y / 192) ** 2 + 0.02 * (1 + np.sin(0.05 * x + 0.7 * i + seed))).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("eigen_mono_median_scaled", Rules()),
        ("eigen_stereo_factor_5.4", Rules(alignment="none", scale_factor=5.4)),
        ("gt_gt_0_no_crop_mono", Rules(ALL_GT)),
        ("eigen_mono_post_process(flip=disparity(i+3))", Rules()),
    ],
)
def test_published_numbers(shared: Path, name: str, rules: Rules) -> None:
    numbers = real_numbers(shared)
    expected = dict(numbers[EVALUATION][name])
    inv_depths = _formula_inv_depths(numbers["seed"])
    if "post_process" in name:
        flipped = _formula_inv_depths(numbers["seed"], shift=3)
        inv_depths = blend_flipped(torch.from_numpy(inv_depths), torch.from_numpy(flipped)).numpy()
    scores = score([inv_depths], _ground_truth(shared), rules)
    assert scores.num_images == 25
    if "median_ratio" in expected:
        assert scores.median_ratio == pytest.approx(expected.pop("median_ratio"), rel=1e-5)
        assert scores.median_ratio_std == pytest.approx(expected.pop("median_ratio_std_rel"), rel=1e-5)
    else:
        assert scores.median_ratio is None
    assert scores.means == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 2), st.tuples(*[st.integers(1, 30)] * 2), st.integers(0, 99))
def test_resize_twin(source_px: tuple[int, int], size_px: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    field = rng.random(source_px, dtype=np.float32)
    resized = resize(field, size_px)
    np.testing.assert_allclose(resized, plain.resize(field, size_px), atol=1e-6)
    by_torch = F.interpolate(torch.from_numpy(field)[None, None], size_px, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized, by_torch[0, 0].numpy(), atol=1e-5)
    fields = rng.random((3, *source_px), dtype=np.float32)
    top = int(rng.integers(0, size_px[0]))
    row_counts = rng.integers(0, 3, (3, size_px[0] - top))
    row_counts[1] = 0  # a field that nothing is read of
    columns = rng.integers(0, size_px[1], row_counts.sum())
    numbers, rows = (np.repeat(index.ravel(), row_counts.ravel()) for index in np.indices(row_counts.shape))
    expected = [resize(fields[b], size_px)[top + row, column] for b, row, column in zip(numbers, rows, columns, strict=True)]
    np.testing.assert_allclose(resize_at(fields, size_px, top, row_counts, columns), expected, atol=1e-6)


LSTSQ = Rules(alignment="lstsq")
CROP_50_M = Protocol(crop="eigen", max_gt_m=50.0, max_pred_m=50.0)


def _noise() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    inv_depths = rng.uniform(0.02, 1, (2, 8, 20)).astype(np.float32)
    return inv_depths, [(rng.uniform(0, 120, size) * (rng.random(size) > 0.5)).astype(np.float32) for size in ((30, 50), (28, 61))]


@pytest.mark.parametrize("protocol", [EIGEN, ALL_GT, CROP_50_M], ids=["eigen", "all_gt", "eigen crop to 50 m"])
@pytest.mark.parametrize("alignment", ["none", "median", "lstsq"])
def test_score_twin(protocol: Protocol, alignment: str) -> None:
    inv_depths, gts_m = _noise()
    scores = score([inv_depths], sparse(gts_m), Rules(protocol, alignment, 2.0))
    for number, (inv_depth, gt_m) in enumerate(zip(inv_depths, gts_m, strict=True)):
        errors, ratio = plain.image_errors(inv_depth, gt_m, protocol=protocol, alignment=alignment, factor=2.0)
        assert scores.per_image[number].tolist() == pytest.approx(errors, rel=1e-5)
        if alignment == "median":
            assert scores.median_ratios is not None
            assert scores.median_ratios[number] == pytest.approx(ratio, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.floats(-0.005, 0.05), st.integers(0, 99))
def test_least_squares_undoes_any_scale_and_shift_of_inverse_depth(scale: float, shift: float, seed: int) -> None:
    gt_m = np.random.default_rng(seed).uniform(1, 70, (20, 30)).astype(np.float32)
    scores = score([((1 / gt_m - shift) / scale + 1)[None]], sparse([gt_m]), Rules(ALL_GT, "lstsq"))
    assert scores.means["abs_rel"] == pytest.approx(0, abs=1e-3)
    assert scores.median_ratio is None


def test_least_squares_of_a_constant_prediction_is_the_mean() -> None:
    gt = np.array([2.0, 4.0, 8.0], np.float32)
    found = fit(np.full(3, 0.7, np.float32), gt, LSTSQ)
    depth_m = aligned_depth_m(np.full(3, 0.7, np.float32), [found], np.array([3]), EIGEN)
    np.testing.assert_allclose(depth_m, 3 / (1 / 2 + 1 / 4 + 1 / 8), rtol=1e-6)


def test_what_is_aligned_behind_the_camera_counts_as_farthest() -> None:
    found = fit(np.array([1.0, 2.0], np.float32), np.array([50.0, 1.0], np.float32), LSTSQ)
    assert aligned_depth_m(np.array([0.5], np.float32), [found], np.array([1]), EIGEN).tolist() == [80.0]


def test_distances_and_signed_errors_count_every_scored_pixel_once() -> None:
    inv_depths, gts_m = _noise()
    scores = score([inv_depths], sparse(gts_m), Rules(ALL_GT), details=True)
    gt = np.concatenate([gt_m[gt_m > 0] for gt_m in gts_m])
    expected, _ = np.histogram(np.minimum(gt, 79), BAND_EDGES_M)
    np.testing.assert_array_equal(scores.bands[:, 0], expected)
    assert scores.histogram.sum() == gt.size
    assert len(scores.histogram) == len(ERROR_EDGES) - 1
    # Both images have about as many pixels, so that the pooled errors lie near the mean of the images'.
    pooled = scores.bands[:, 1] @ np.ones(8) / gt.size
    assert pooled == pytest.approx(scores.means["abs_rel"], rel=0.1)
    assert not score([inv_depths], sparse(gts_m)).bands.any()
    assert scores.band_errors()[2, 0] == pytest.approx(scores.bands[2, 1] / scores.bands[2, 0])


def test_signed_errors_fall_into_their_bins() -> None:
    gt_m = np.full((40, 40), 20.0, np.float32)
    gt_m[:, 20:] = 10.0
    scores = score([np.full((1, 4, 4), 1 / 11.6, np.float32)], sparse([gt_m]), Rules(ALL_GT, "none"), details=True)
    bins = {round(ERROR_EDGES[b], 2): int(scores.histogram[b]) for b in np.flatnonzero(scores.histogram)}
    assert bins == {-0.45: 800, 0.15: 800}  # 11.6 m for 20 m is 42 % short, for 10 m 16 % long
    assert np.isnan(scores.band_errors()[5]).all()


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    nothing = np.zeros((8, 8))
    covered = 0
    for _ in range(100):
        per_image = rng.normal(0.1, 0.02, (60, 7))
        low, high = Scores(per_image, None, nothing, np.zeros(40, np.int64)).interval()[:, 0]
        covered += low < 0.1 < high
    assert 86 <= covered <= 100
    assert BOOTSTRAPS >= 1000


def test_the_interval_of_one_image_is_its_error() -> None:
    per_image = np.arange(7.0)[None]
    np.testing.assert_allclose(
        Scores(per_image, None, np.zeros((8, 8)), np.zeros(40, np.int64)).interval(), np.repeat(per_image, 2, axis=0)
    )


def test_score_refuses_what_does_not_fit() -> None:
    inv_depths, gt_m = np.ones((2, 4, 4), np.float32), np.ones((40, 40), np.float32)
    with pytest.raises(InputError, match="2 predictions but 3 ground-truth maps"):
        score([inv_depths], sparse([gt_m] * 3))
    with pytest.raises(InputError, match="more predictions than the 1 ground-truth maps"):
        score([inv_depths], sparse([gt_m]))
    with pytest.raises(InputError, match=r"image 1 \(counted from 0\) has no ground truth"):
        score([inv_depths], sparse([gt_m, 0 * gt_m]))
    for wrong in (0.0, -1.0, np.nan, np.inf):
        inv_depths[1, 0, 0] = wrong
        with pytest.raises(InputError, match="image b has NaN, infinite, zero or negative inverse depth"):
            score([inv_depths], sparse([gt_m, gt_m]), names=["a", "b"])


def test_table_is_the_published_one() -> None:
    per_image = np.array([[0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981]])
    scores = Scores(per_image, np.array([31.5]), np.zeros((8, 8)), np.zeros(40, np.int64))
    assert published_table(scores).startswith(
        " Scaling ratios | med: 31.500 | std: 0.000\n"
        "\n   abs_rel |   sq_rel |     rmse | rmse_log |       a1 |       a2 |       a3 | \n"
        "&   0.115  &   0.903  &   4.863  &   0.193  &   0.877  &   0.959  &   0.981  \\\\\n"
    )
    assert "Scaling" not in published_table(scores._replace(median_ratios=None))


def test_the_row_prior_is_the_median_of_each_row() -> None:
    gt_m = np.zeros((4, 6), np.float32)
    gt_m[2] = [10, 10, 20, 20, 20, 0]
    gt_m[3, :3] = 5
    prior = row_median_prior([gt_m, 3 * gt_m[:, :2]], 2)
    # The upper half has no truth and takes the lower half's value: values 10 10 20 20 20 5 5 5 30 30 15 15.
    np.testing.assert_allclose(prior, 1 / 15, rtol=1e-6)
    np.testing.assert_allclose(row_median_prior([gt_m], 4), [0.05, 0.05, 0.05, 0.2])
    with pytest.raises(InputError, match="no ground truth"):
        row_median_prior([0 * gt_m], 2)


def test_the_row_prior_is_perfect_where_depth_depends_on_the_row_alone() -> None:
    gt_m = np.repeat(np.linspace(70, 3, 40, dtype=np.float32)[:, None], 30, axis=1)
    scores = score([predict_prior(row_median_prior([gt_m], 40), 3)], sparse([gt_m] * 3))
    assert scores.means["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert scores.median_ratio == pytest.approx(1)


def test_blocks_of_any_length_and_truths_of_mixed_sizes_give_the_same_scores() -> None:
    rng = np.random.default_rng(5)
    inv_depths = rng.uniform(0.02, 1, (11, 8, 20)).astype(np.float32)
    gts_m = sparse([rng.uniform(1, 70, (30, 50 if number in (3, 4, 8) else 44)).astype(np.float32) for number in range(11)])
    whole = score([inv_depths], gts_m, details=True)
    parts = score([inv_depths[:1], inv_depths[1:10], inv_depths[10:]], gts_m, details=True)
    for name in ("per_image", "median_ratios", "bands", "histogram"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-6)
    alone = [score([inv_depths[n : n + 1]], gts_m[n : n + 1]).per_image[0] for n in range(11)]
    np.testing.assert_allclose(whole.per_image, alone, rtol=1e-6)
