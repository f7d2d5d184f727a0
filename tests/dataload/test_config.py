"""The training size that commands propose for footage."""

import pytest

from dataload.config import usual_size


@pytest.mark.parametrize(
    ("height_px", "width_px", "proposed"),
    [
        (375, 1242, (192, 640)),  # KITTI
        (1080, 1920, (352, 640)),
        (720, 1280, (352, 640)),
        (480, 640, (480, 640)),
        (1920, 1080, (640, 352)),  # a phone held upright
        (160, 96, (160, 96)),
        (96, 160, (96, 160)),
        (375, 500, (352, 480)),
        (100, 1000, (64, 640)),
        (50, 70, (64, 64)),  # smaller than any network takes
    ],
)
def test_a_proposed_size_fits_the_footage(height_px: int, width_px: int, proposed: tuple[int, int]) -> None:
    assert usual_size(height_px, width_px) == f"--height {proposed[0]} --width {proposed[1]}"


def test_no_proposed_size_is_larger_than_its_footage_or_of_another_shape() -> None:
    for height_px in range(64, 1300, 37):
        for width_px in range(64, 2000, 53):
            height, width = map(int, usual_size(height_px, width_px).split()[1::2])
            assert height % 32 == width % 32 == 0
            assert height <= height_px
            assert width <= width_px
