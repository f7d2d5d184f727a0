"""Inverse depths made elsewhere: what md-predict writes of a list's images is read back by their names."""

from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.disp_files import PREDICTION_ENDING, open_inv_depths, read_blocks
from export.choices import ENDINGS
from splits.errors import InputError


def test_a_folder_of_predictions_is_read_by_the_images_names(tmp_path: Path) -> None:
    assert ENDINGS["npy"] == PREDICTION_ENDING
    stems = ["000010", "000002", "b"]
    for number, stem in enumerate(stems):
        np.save(tmp_path / f"{stem}_disp.npy", np.full((1, 1, 4, 6 + number), number, np.float32))
    np.save(tmp_path / "other_disp.npy", np.zeros((1, 1, 4, 6), np.float32))
    maps = open_inv_depths(tmp_path, 3, stems)
    assert [(block.shape, float(block.max())) for block in read_blocks(maps, range(3))] == [((1, 4, 6 + n), float(n)) for n in range(3)]


def test_a_folder_that_lacks_an_image_or_names_two_alike_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a_disp.npy", np.zeros((1, 1, 4, 6), np.float32))
    with pytest.raises(InputError, match=r"lacks 1 of 2 maps, the first b_disp\.npy; md-predict --format npy writes them"):
        open_inv_depths(tmp_path, 2, ["a", "b"])
    with pytest.raises(InputError, match=r"two images of the list are called a; save a list of maps.*numpy\.savez"):
        open_inv_depths(tmp_path, 2, ["a", "a"])
