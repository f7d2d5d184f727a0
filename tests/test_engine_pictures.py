"""Pictures: the published colours, the published normalisation, sheets that can be looked at."""

from pathlib import Path

import numpy as np
from PIL import Image

from engine.pictures import (
    COLORMAPS,
    GAP_PX,
    TITLE_PX,
    UNKNOWN_GREY,
    colour,
    colour_disp,
    colour_table,
    contact_sheet,
    depth_panels,
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
    shown, prediction, truth, error = depth_panels(image, inv_depth, depth_m)
    np.testing.assert_array_equal(shown, image)
    np.testing.assert_array_equal(prediction, colour_disp(inv_depth))
    assert (truth[0, 0] == UNKNOWN_GREY).all()
    assert (error[0, 0] == UNKNOWN_GREY).all()
    assert (error[depth_m > 0] == colour_table()[0]).all()
    assert len(depth_panels(image, inv_depth)) == 2


def test_contact_sheet_holds_rows_of_different_sizes(tmp_path: Path) -> None:
    panels = [np.full((5, 8, 3), 50 * n, np.uint8) for n in (1, 2)]
    assert side_by_side(panels).shape == (5, 16 + GAP_PX, 3)
    path = tmp_path / "new" / "sheet.png"
    contact_sheet([panels, [panels[0]]], path)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (TITLE_PX + 2 * (5 + GAP_PX), 16 + GAP_PX, 3)
    np.testing.assert_array_equal(sheet[TITLE_PX : TITLE_PX + 5, 8 + GAP_PX :], panels[1])
