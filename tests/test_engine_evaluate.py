"""Evaluation: the published numbers on real scans, plain twins, and clear refusals."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.formulas import image, read_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import metrics as plain
from torch import nn
from torch.nn import functional as F

from dataload.batch import Batch
from dataload.datasets.kitti import KittiRaw
from dataload.split import parse_split
from engine.baselines import predict_prior, row_median_prior
from engine.evaluate import Scores, blend_flipped, predict_inv_depths, score
from engine.metrics import METRICS, PROTOCOLS
from engine.resample import resize, resize_at
from splits.errors import InputError

EVALUATION = "evaluation_on_formula_disparity_25_frames_of_0052"


@cache
def _ground_truth(shared: Path) -> list[np.ndarray]:
    lines = sorted((shared / "kitti" / "splits" / "kitti_mini" / "test_files.txt").read_text().splitlines())
    dataset = KittiRaw(shared / "kitti" / "raw_jpg", ".jpg")
    return [dataset.eval_depth_m(ref) for ref in parse_split(lines, source="test")]


def _formula_inv_depths(seed: int, shift: int = 0) -> np.ndarray:
    i, y, x = np.ogrid[shift : 25 + shift, 0:192, 0:640]
    return (0.02 + 0.25 * (y / 192) ** 2 + 0.02 * (1 + np.sin(0.05 * x + 0.7 * i + seed))).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eigen_mono_median_scaled", {}),
        ("eigen_stereo_factor_5.4", {"median_scaling": False, "scale_factor": 5.4}),
        ("gt_gt_0_no_crop_mono", {"protocol": PROTOCOLS["all_gt"]}),
        ("eigen_mono_post_process(flip=disparity(i+3))", {"post_process": True}),
    ],
)
def test_published_numbers(shared: Path, name: str, options: dict[str, Any]) -> None:
    numbers = read_numbers(shared, "upstream")
    expected = dict(numbers[EVALUATION][name])
    options = dict(options)
    inv_depths = _formula_inv_depths(numbers["seed"])
    if options.pop("post_process", False):
        flipped = _formula_inv_depths(numbers["seed"], shift=3)
        inv_depths = blend_flipped(torch.from_numpy(inv_depths), torch.from_numpy(flipped)).numpy()
    found = score(inv_depths, _ground_truth(shared), **options).as_json()
    assert found["num_images"] == 25
    if "median_ratio" in expected:
        assert found["median_ratio_std"] == pytest.approx(expected.pop("median_ratio_std_rel"), rel=1e-5)
    else:
        assert found["median_ratio"] is None
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_published_post_processing(shared: Path) -> None:
    disp, flipped = image(1, 1, 4, 40, 0.0)[:, 0], image(1, 1, 4, 40, 0.7)[:, 0]
    blended = blend_flipped(disp, flipped)
    found = [blended.double().mean().item(), *blended[0, 1, :6].tolist()]
    assert found == pytest.approx(read_numbers(shared, "functions")["postproc mean, [0,1,:6]"], rel=1e-6)


def test_post_processing_twin() -> None:
    rng = np.random.default_rng(0)
    disp, flipped = rng.random((2, 5, 64))
    found = blend_flipped(torch.from_numpy(disp), torch.from_numpy(flipped)).numpy()
    np.testing.assert_allclose(found, plain.blend_flipped(disp, flipped), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 2), st.tuples(*[st.integers(1, 30)] * 2), st.integers(0, 99))
def test_resize_twin(source_px: tuple[int, int], size_px: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    field = rng.random(source_px, dtype=np.float32)
    resized = resize(field, size_px)
    np.testing.assert_allclose(resized, plain.resize(field, size_px), atol=1e-6)
    by_torch = F.interpolate(torch.from_numpy(field)[None, None], size_px, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized, by_torch[0, 0].numpy(), atol=1e-5)
    rows, columns = rng.integers(0, size_px[0], 9), rng.integers(0, size_px[1], 9)
    np.testing.assert_allclose(resize_at(field, size_px, rows, columns), resized[rows, columns], atol=1e-6)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("median", [True, False])
def test_score_twin(protocol: str, median: bool) -> None:
    rng = np.random.default_rng(1)
    inv_depths = rng.uniform(0.02, 1, (2, 8, 20)).astype(np.float32)
    gts_m = [(rng.uniform(0, 120, size) * (rng.random(size) > 0.5)).astype(np.float32) for size in ((30, 50), (28, 61))]
    scores = score(inv_depths, gts_m, protocol=PROTOCOLS[protocol], median_scaling=median, scale_factor=2.0)
    for number, (inv_depth, gt_m) in enumerate(zip(inv_depths, gts_m, strict=True)):
        errors, ratio = plain.image_errors(inv_depth, gt_m, crop=protocol == "eigen", median=median, factor=2.0)
        assert scores.per_image[number].tolist() == pytest.approx(errors, rel=1e-5)
        if median:
            assert scores.median_ratios is not None
            assert scores.median_ratios[number] == pytest.approx(ratio, rel=1e-5)


def test_zero_inverse_depth_is_scored_as_the_farthest_depth() -> None:
    gt_m = np.full((40, 40), 40.0, np.float32)
    scores = score(np.zeros((1, 4, 4), np.float32), [gt_m], median_scaling=False)
    assert scores.means["abs_rel"] == pytest.approx(1.0)


def test_score_refuses_what_does_not_fit() -> None:
    inv_depths, gt_m = np.ones((2, 4, 4), np.float32), np.ones((40, 40), np.float32)
    with pytest.raises(InputError, match="2 predictions but 1 ground-truth maps"):
        score(inv_depths, [gt_m])
    with pytest.raises(InputError, match="2 predictions but more ground-truth maps"):
        score(inv_depths, [gt_m] * 3)
    with pytest.raises(InputError, match=r"image 1 \(counted from 0\) has no ground truth"):
        score(inv_depths, [gt_m, 0 * gt_m])


def test_table_is_the_published_one() -> None:
    scores = Scores(np.array([[0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981]]), np.array([31.5]))
    assert scores.table() == (
        " Scaling ratios | med: 31.500 | std: 0.000\n"
        "\n   abs_rel |   sq_rel |     rmse | rmse_log |       a1 |       a2 |       a3 | \n"
        "&   0.115  &   0.903  &   4.863  &   0.193  &   0.877  &   0.959  &   0.981  \\\\"
    )
    assert list(scores.as_json()) == [*METRICS, "median_ratio", "median_ratio_std", "num_images"]
    assert "Scaling" not in Scores(scores.per_image, None).table()


def _batches(images: torch.Tensor, batch_size: int) -> list[Batch]:
    K, T, none = torch.eye(3), torch.eye(4), torch.empty(0)
    return [Batch((part,), (), part, none, K, T, none) for part in images.split(batch_size)]


@pytest.mark.parametrize("post_process", [False, True])
def test_predictions_keep_their_order_whatever_the_batch_size(post_process: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Sigmoid())
    images = torch.randint(0, 256, (5, 3, 6, 44), dtype=torch.uint8)
    found = predict_inv_depths(network, _batches(images, 2), 5, min_depth=0.1, max_depth=100.0, post_process=post_process)
    with torch.no_grad():
        disp = network(images / 255.0)[:, 0].numpy()
        flipped = network(images.flip(-1) / 255.0)[:, 0].flip(-1).numpy()
    if post_process:
        disp = np.stack([plain.blend_flipped(*pair) for pair in zip(disp, flipped, strict=True)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.01 + 9.99 * disp, rtol=1e-5)


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
    scores = score(predict_prior(row_median_prior([gt_m], 40), 3), [gt_m] * 3)
    assert scores.means["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert scores.median_ratio == pytest.approx(1)
