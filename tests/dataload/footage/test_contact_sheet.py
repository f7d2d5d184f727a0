"""The sheet of pictures: every tile where it belongs, depth that can be seen however sparse, one legend."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataload.footage import contact_sheet
from dataload.footage.contact_sheet import (
    GAP_PX,
    LABEL_PX,
    LEGEND_PX,
    TILE_WIDTH_PX,
    Tile,
    colour_depth,
    depth_ends,
    shorten,
    write_contact_sheet,
)
from splits.errors import InputError

NEAR_COLOUR, FAR_COLOUR = np.array(contact_sheet.COLOURS[0]), np.array(contact_sheet.COLOURS[-1])


def plain(level: int, size_px: tuple[int, int] = (60, 160)) -> np.ndarray:
    return np.full((*size_px, 3), level, np.uint8)


def sheet_of(tiles: list[Tile], folder: Path) -> np.ndarray:
    return np.asarray(Image.open(write_contact_sheet(folder / "sheet.png", tiles))).astype(int)


def left_of(column: int) -> int:
    return GAP_PX + column * (TILE_WIDTH_PX + GAP_PX)


def test_tiles_stand_in_rows_at_one_width(tmp_path: Path) -> None:
    sheet = sheet_of([Tile(str(level), plain(level)) for level in (40, 80, 120, 160, 200)], tmp_path)
    height = 60 * TILE_WIDTH_PX // 160
    assert sheet.shape == (2 * (LABEL_PX + height + GAP_PX) + GAP_PX, 3 * (TILE_WIDTH_PX + GAP_PX) + GAP_PX, 3)
    for number, level in enumerate((40, 80, 120, 160, 200)):
        row, column = divmod(number, 3)
        top = GAP_PX + row * (LABEL_PX + height + GAP_PX) + LABEL_PX
        assert (sheet[top : top + height, left_of(column) : left_of(column) + TILE_WIDTH_PX] == level).all(), number


def test_sizes_may_differ_and_tall_pictures_are_kept_within_bounds(tmp_path: Path) -> None:
    sheet = sheet_of([Tile("wide", plain(200, (10, 320))), Tile("tall", plain(100, (3200, 32)))], tmp_path)
    assert sheet.shape[0] == LABEL_PX + contact_sheet.MAX_HEIGHT_PX + 2 * GAP_PX
    assert (sheet[GAP_PX + LABEL_PX : GAP_PX + LABEL_PX + 10, left_of(0) : left_of(1) - GAP_PX] == 200).all()
    width = contact_sheet.MAX_HEIGHT_PX // 100
    assert (sheet[-GAP_PX - 5, left_of(1) : left_of(1) + width] == 100).all()


def test_labels_are_drawn_and_shortened_in_the_middle(tmp_path: Path) -> None:
    sheet = sheet_of([Tile("2011_09_26 frame 5", plain(90))], tmp_path)
    label = sheet[GAP_PX : GAP_PX + LABEL_PX, left_of(0) : left_of(0) + TILE_WIDTH_PX]
    assert label.max() > 180
    assert 60 < np.flatnonzero(label.max((0, 2)) > 150).max() < TILE_WIDTH_PX
    long = "2011_09_26_drive_0001_sync/" * 4 + "0000000005"
    short = shorten(long, TILE_WIDTH_PX)
    begin, _, end = short.partition("...")
    assert long.startswith(begin)
    assert long.endswith(end)
    assert abs(len(begin) - len(end)) <= 1
    assert len(short) > 25
    assert contact_sheet._font().getlength(short) <= TILE_WIDTH_PX
    assert shorten("Straße Süd", TILE_WIDTH_PX) == "Strae Sud"


def test_of_many_tiles_those_shown_are_spread_evenly() -> None:
    tiles = [Tile(str(number), plain(0)) for number in range(100)]
    shown = [int(tile.label) for tile in contact_sheet.spread(tiles, 24)]
    assert len(shown) == 24
    assert (shown[0], shown[-1]) == (0, 99)
    assert set(np.diff(shown)) <= {4, 5}


def test_sparse_points_become_visible_squares(tmp_path: Path) -> None:
    depth_m = np.zeros((375, 1242), np.float32)
    depth_m[100, 300], depth_m[300, 900] = 5.0, 50.0
    sheet = sheet_of([Tile("laser", plain(0, (375, 1242)), depth_m)], tmp_path)
    height = round(375 * TILE_WIDTH_PX / 1242)
    panel = sheet[GAP_PX + LABEL_PX + height : -LEGEND_PX - GAP_PX, left_of(0) : left_of(0) + TILE_WIDTH_PX]
    rows = np.nonzero(panel.max(-1) > 0)[0]
    # Two squares of 5x5, about where the points are.
    assert rows.size == 50
    assert sorted({int(row) for row in rows}) == [*range(23, 28), *range(75, 80)]
    near, far = panel[25, 77], panel[77, 231]
    assert np.abs(near - NEAR_COLOUR).sum() < np.abs(near - FAR_COLOUR).sum()
    assert np.abs(far - FAR_COLOUR).sum() < np.abs(far - NEAR_COLOUR).sum()


def test_near_points_stand_before_far_ones() -> None:
    depth_m = np.full((9, 9), np.inf, np.float32)
    depth_m[4, 4], depth_m[4, 6] = 30.0, 3.0
    around = contact_sheet._nearest_around(depth_m, 2)
    assert around[4, 5] == 3
    assert around[4, 3] == 30
    assert np.isinf(around[0, 0])


def test_dense_depth_is_shown_as_it_is_and_unmeasured_parts_are_not_coloured(tmp_path: Path) -> None:
    depth_m = np.repeat(np.geomspace(4, 40, 640, dtype=np.float32)[None], 192, axis=0)
    depth_m[:96] = np.nan
    sheet = sheet_of([Tile("dense", plain(100, (192, 640)), depth_m)], tmp_path)
    panel = sheet[GAP_PX + LABEL_PX + 96 : -LEGEND_PX - GAP_PX, left_of(0) : left_of(0) + TILE_WIDTH_PX]
    assert np.ptp(panel[:40], axis=-1).max() == 0  # grey
    expected = colour_depth(depth_m[-1, ::2], (4.1, 39.1)).astype(int)
    assert np.abs(panel[70] - expected).max() < 12


@pytest.mark.parametrize("size_px", [(24, 80), (48, 40)])
def test_depth_smaller_than_its_picture_has_no_holes(size_px: tuple[int, int], tmp_path: Path) -> None:
    sheet = sheet_of([Tile("small", plain(100, (192, 640)), np.full(size_px, 7, np.float32))], tmp_path)
    panel = sheet[GAP_PX + LABEL_PX + 96 : -LEGEND_PX - GAP_PX, left_of(0) : left_of(0) + TILE_WIDTH_PX]
    assert (np.ptp(panel, axis=-1) > 0).all()


def test_without_any_measurement_there_is_no_legend(tmp_path: Path) -> None:
    tiles = [Tile("none", plain(50), np.zeros((60, 160), np.float32)), Tile("no depth", plain(50))]
    assert depth_ends(tiles) is None
    assert sheet_of(tiles, tmp_path).shape[0] == LABEL_PX + 2 * 120 + 2 * GAP_PX


def test_the_ends_of_the_colours_pass_over_strays() -> None:
    depth_m = np.full((100, 100), 10, np.float32)
    depth_m[:50] = 20
    depth_m[0, :5] = 0.01, 5000, np.nan, np.inf, -3
    assert depth_ends([Tile("", plain(0), depth_m)]) == (10, 20)


def test_a_real_scan_is_seen(shared: Path, tmp_path: Path) -> None:
    from dataload.datasets import make_dataset
    from dataload.frames.frame_ref import FrameRef

    dataset = make_dataset("kitti", shared / "kitti" / "raw_jpg")
    ref = FrameRef("2011_09_26/2011_09_26_drive_0001_sync", 5, "l")
    depth_m = dataset.depth_m(ref)
    assert depth_m is not None
    sheet = sheet_of([Tile(ref.line, np.asarray(Image.open(dataset.image_path(ref))), depth_m)], tmp_path)
    panel = sheet[GAP_PX + LABEL_PX + 97 : -LEGEND_PX - GAP_PX, left_of(0) : left_of(0) + TILE_WIDTH_PX]
    coloured = np.ptp(panel[panel.shape[0] // 2 :], axis=-1) > 60
    assert coloured.mean() > 0.6
    assert (depth_m[depth_m.shape[0] // 2 :] > 0).mean() < 0.15  # of which there is little


def test_the_suffix_chooses_the_format_and_nothing_half_made_stays(tmp_path: Path) -> None:
    tile = Tile("a", plain(120))
    assert Image.open(write_contact_sheet(tmp_path / "new" / "a.jpg", [tile])).format == "JPEG"
    with pytest.raises(InputError, match=r"a\.mp3: '\.mp3' is no format of pictures; name a \.jpg or \.png file"):
        write_contact_sheet(tmp_path / "a.mp3", [tile])
    with pytest.raises(InputError, match="there is no frame to show"):
        write_contact_sheet(tmp_path / "a.png", [])
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.jpg"]
