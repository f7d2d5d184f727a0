"""The affine colour map against the published operations on Pillow images, and its own laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pillow_loader

from dataload.pipeline.jitter import BRIGHTNESS, CONTRAST, HUE, SATURATION, Factors, affine_colour, draw_factors, hue_rotation

FACTOR = st.floats(0.8, 1.2)
FACTORS = st.builds(Factors, FACTOR, FACTOR, FACTOR, st.floats(-0.1, 0.1), st.permutations(range(4)))


def apply(image, factors):
    color, color_mean = (matrix.astype(np.float64) for matrix in affine_colour(factors))
    return np.clip(np.rint(image @ color.T + color_mean @ image.mean((0, 1), dtype=np.float64)), 0, 255)


def mean_difference(frames, factors):
    return np.mean([np.abs(apply(frame, factors) - pillow_loader.jitter(frame, factors)).mean() for frame in frames])


@pytest.fixture(scope="module")
def frames(shared):
    paths = sorted((shared / "kitti" / "raw_jpg" / "2011_09_26").glob("*/image_02/data/*.jpg"))[::40]
    return [pillow_loader.pyramid(path, size_px=(192, 640), levels=1, flip=False)[0] for path in paths]


@pytest.mark.parametrize("value", [0.8, 1.2])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_operation_is_the_published_one_up_to_rounding(frames, name, value) -> None:
    assert mean_difference(frames, Factors(**{name: value})) < 0.5


@pytest.mark.parametrize("turns", [-0.1, 0.05, 0.1])
def test_the_hue_turns_as_published_to_a_few_levels_and_not_the_other_way(frames, turns) -> None:
    right = mean_difference(frames, Factors(hue_turns=turns))
    published = [pillow_loader.jitter(frame, Factors(hue_turns=turns)) for frame in frames]
    wrong = np.mean([np.abs(apply(f, Factors(hue_turns=-turns)) - p).mean() for f, p in zip(frames, published, strict=True)])
    assert right < 3.0
    assert wrong > 2 * right


def test_all_four_together_in_drawn_orders(frames) -> None:
    rng = np.random.default_rng(0)
    assert np.mean([mean_difference(frames, draw_factors(rng)) for _ in range(8)]) < 3.0


def test_the_order_matters_and_contrast_uses_the_mean_of_what_came_before() -> None:
    image = np.random.default_rng(0).integers(60, 120, (8, 8, 3)).astype(np.float64)
    factors = Factors(brightness=1.2, contrast=0.8, order=(BRIGHTNESS, CONTRAST, SATURATION, HUE))
    brighter = 1.2 * image
    grey_mean = brighter.mean((0, 1)) @ [0.299, 0.587, 0.114]
    expected = 0.8 * brighter + 0.2 * grey_mean
    assert np.abs(apply(image, factors) - expected).max() <= 0.5 + 1e-4
    swapped = factors._replace(order=(CONTRAST, BRIGHTNESS, SATURATION, HUE), hue_turns=0.1)
    assert not np.allclose(affine_colour(swapped)[0], affine_colour(swapped._replace(order=(HUE, SATURATION, CONTRAST, BRIGHTNESS)))[1])


@settings(max_examples=50, deadline=None)
@given(FACTORS)
def test_grey_stays_grey_and_the_mean_frame_only_changes_in_brightness(factors) -> None:
    color, color_mean = affine_colour(factors)
    grey = np.full(3, 100.0)
    seen = color @ grey + color_mean @ grey
    assert np.ptp(seen) < 1e-3
    # A uniform frame equals its mean, so contrast leaves it alone, and saturation and hue leave grey alone.
    assert seen[0] == pytest.approx(100.0 * factors.brightness, rel=1e-5)


def test_a_third_of_a_turn_moves_each_channel_on() -> None:
    assert hue_rotation(1 / 3) @ [200.0, 10.0, 90.0] == pytest.approx([90.0, 200.0, 10.0])
    assert hue_rotation(0.05) @ hue_rotation(-0.05) == pytest.approx(np.eye(3))


def test_factors_stay_in_the_published_ranges_and_orders_vary() -> None:
    rng = np.random.default_rng(1)
    draws = [draw_factors(rng) for _ in range(300)]
    multipliers = np.array([d[:3] for d in draws])
    turns = np.array([d.hue_turns for d in draws])
    assert (np.abs(multipliers - 1).max(0) <= 0.2).all()
    assert (np.abs(multipliers - 1).max(0) > 0.18).all()
    assert 0.09 < np.abs(turns).max() <= 0.1
    assert len({d.order for d in draws}) == 24
