"""Pictures: the published colours, the published normalisation, sheets that can be looked at."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from dataload.frames.sparse_depth import SparseDepth
from engine.pictures import (
    COLORMAPS,
    DIMMED,
    DIMMED_GREY,
    GAP_PX,
    MAX_SHOWN_ERROR,
    TITLE_PX,
    colour,
    colour_disp,
    colour_table,
    contact_sheet,
    depth_panels,
    draw_points,
    side_by_side,
)

# Colours of magma by index, RGB.
MAGMA = {
    0: (0, 0, 3), 3: (1, 0, 7), 52: (60, 15, 113), 101: (138, 40, 129), 128: (182, 54, 121), 177: (245, 108, 91),
    203: (253, 157, 107), 233: (253, 212, 151), 251: (252, 245, 183), 255: (251, 252, 191),
}  # fmt: skip


def test_magma_is_within_a_level_of_the_published_colours() -> None:
    table = colour_table().astype(int)
    assert table.shape == (256, 3)
    for index, rgb in MAGMA.items():
        assert np.abs(table[index] - rgb).max() <= 1, index


def test_every_colormap_is_known_and_its_own() -> None:
    assert len({colour_table(name).tobytes() for name in COLORMAPS}) == len(COLORMAPS)


@pytest.mark.parametrize("name", COLORMAPS)
def test_the_colours_kept_are_matplotlibs(name: str) -> None:
    theirs = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    table = colour_table(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert np.abs(table.astype(int) - theirs).max() <= 1  # its rounding has changed once


def test_values_outside_take_the_ends_colours() -> None:
    found = colour(np.array([[-0.5, 0.0, 0.5, 1.0, 7.0]]))
    np.testing.assert_array_equal(found[0], colour_table()[[0, 0, 128, 255, 255]])


def test_disp_is_coloured_from_its_least_value_to_its_95th_percentile() -> None:
    disp = np.linspace(0.2, 0.4, 101, dtype=np.float32)[None]
    found = colour_disp(disp)[0]
    np.testing.assert_array_equal(found[0], colour_table()[0])
    assert (found[95:] == colour_table()[255]).all()
    assert (found[94] != colour_table()[255]).any()


def test_a_constant_disp_has_one_colour() -> None:
    assert (colour_disp(np.full((3, 4), 0.3, np.float32)) == colour_table()[0]).all()


def test_panels_of_a_perfect_prediction() -> None:
    depth_m = np.linspace(2, 60, 24, dtype=np.float32).reshape(4, 6)
    image = np.full((4, 6, 3), 7, np.uint8)
    inv_depth = 3 / depth_m  # right up to scale
    depth_m[0, 0] = 0
    known = depth_m > 0
    shown, prediction, truth, error = depth_panels(image, inv_depth, SparseDepth.of(depth_m))
    np.testing.assert_array_equal(shown, image)
    # The same colours mean the same distances.
    assert np.abs(prediction[known].astype(int) - truth[known]).max() <= 4
    assert len(np.unique(truth[known], axis=0)) > 15
    assert (truth[0, 0] == DIMMED_GREY + int(7 * DIMMED)).all()
    assert (error[0, 0] == truth[0, 0]).all()
    assert (error[known] == colour_table()[0]).all()
    assert len(depth_panels(image, inv_depth)) == 2


def test_without_a_truth_the_prediction_has_its_own_colours() -> None:
    inv_depth = np.random.default_rng(0).uniform(0.1, 1, (4, 6)).astype(np.float32)
    image = np.zeros((4, 6, 3), np.uint8)
    np.testing.assert_array_equal(depth_panels(image, inv_depth)[1], colour_disp(inv_depth))
    empty = SparseDepth.of(np.zeros((4, 6), np.float32))
    _, prediction, truth, error = depth_panels(image, inv_depth, empty)
    np.testing.assert_array_equal(prediction, colour_disp(inv_depth))
    assert (truth == DIMMED_GREY).all()
    assert (error == DIMMED_GREY).all()


def test_the_error_is_that_of_the_aligned_depth_and_only_where_pixels_count() -> None:
    depth_m = np.linspace(4, 40, 24, dtype=np.float32).reshape(4, 6)
    truth = SparseDepth.of(depth_m)
    aligned = truth.values_m * np.where(np.arange(24) % 2, 1.3, 1.0).astype(np.float32)
    scored = np.arange(24) >= 6
    image = np.zeros((4, 6, 3), np.uint8)
    error = depth_panels(image, 1 / depth_m, truth, aligned, scored)[3].reshape(24, 3)
    assert (error[:6] == DIMMED_GREY).all()
    assert (error[6::2] == colour_table()[0]).all()
    assert (error[7::2] == colour_table()[int(256 * 0.3 / MAX_SHOWN_ERROR)]).all()


def test_an_alignment_with_a_shift_gives_prediction_and_truth_the_same_colours() -> None:
    depth_m = np.linspace(3, 30, 48, dtype=np.float32).reshape(6, 8)
    truth = SparseDepth.of(depth_m)
    image = np.zeros((6, 8, 3), np.uint8)
    _, prediction, true, _ = depth_panels(image, 5 / depth_m - 0.1, truth, truth.values_m)
    assert np.abs(prediction.astype(int) - true).max() <= 4


def test_sparse_points_are_drawn_large_and_the_nearest_in_front() -> None:
    ground = np.zeros((20, 30, 3), np.uint8)
    # Two neighbours and one in the corner: 3 of 600 pixels, so that squares are 5x5.
    depth_m = np.zeros((20, 30), np.float32)
    depth_m[10, 10], depth_m[10, 12], depth_m[19, 29] = 5, 9, 7
    colours = np.array([[50, 0, 0], [90, 0, 0], [70, 0, 0]], np.uint8)
    drawn = draw_points(ground, SparseDepth.of(depth_m), colours)[..., 0]
    assert (drawn[8:13, 8:13] == 50).all()
    assert (drawn[8:13, 13:15] == 90).all()
    assert (drawn[17:, 27:] == 70).all()
    assert np.count_nonzero(drawn) == 25 + 10 + 9
    assert (ground == 0).all()
    # The far one in front only where it alone is shown.
    alone = draw_points(ground, SparseDepth.of(depth_m), colours, np.array([False, True, False]))[..., 0]
    assert (alone[8:13, 10:15] == 90).all()


def test_points_move_to_the_size_of_the_picture() -> None:
    depth_m = np.full((10, 20), 3, np.float32)
    depth_m[:, 10:] = 6
    truth = SparseDepth.of(depth_m)
    drawn = draw_points(np.zeros((5, 10, 3), np.uint8), truth, np.full((200, 3), 9, np.uint8), truth.values_m < 5)
    assert (drawn[:, :5] == 9).all()
    assert (drawn[:, 5:] == 0).all()


def test_points_of_wide_truths_keep_their_place() -> None:
    depth_m = np.zeros((375, 1242), np.float32)
    depth_m[100, 1100] = 5
    drawn = draw_points(np.zeros((216, 716, 3), np.uint8), SparseDepth.of(depth_m), np.full((1, 3), 9, np.uint8))
    rows, columns = np.nonzero(drawn[..., 0])
    assert (rows.mean(), columns.mean()) == (100 * 216 // 375, 1100 * 716 // 1242)


def test_contact_sheet_holds_rows_of_different_sizes(tmp_path: Path) -> None:
    panels = [np.full((5, 8, 3), 50 * n, np.uint8) for n in (1, 2)]
    assert side_by_side(panels).shape == (5, 16 + GAP_PX, 3)
    path = tmp_path / "new" / "sheet.png"
    contact_sheet([panels, [panels[0]]], path)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (TITLE_PX + 2 * (5 + GAP_PX), 16 + GAP_PX, 3)
    np.testing.assert_array_equal(sheet[TITLE_PX : TITLE_PX + 5, 8 + GAP_PX :], panels[1])
