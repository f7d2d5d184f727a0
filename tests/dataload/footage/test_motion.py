"""Whether the camera has moved: real frames, rendered ones, and what changes in pictures of a standing camera."""

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataload.datasets.folder import Folder
from dataload.demo.world import WorldConfig, ensure
from dataload.footage.motion import DAMAGED, STANDING, THRESHOLD_PX, WIDTH_PX, has_moved, movement_px, static_targets, thumbnail
from dataload.frames import picture
from splits.errors import InputError

RAW = Path("kitti") / "raw_jpg"


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """The frames of each drive of a demo world."""
    config = WorldConfig(height_px=96, width_px=320, drives=4, frames=5)
    folder = ensure(tmp_path_factory.mktemp("motion") / "world", config=config, progress=False)
    return [sorted(drive.glob("image_02/data/*.jpg")) for drive in sorted(folder.glob("*/*_sync"))]


def texture(size_px: tuple[int, int] = (192, 640), seed: int = 0) -> np.ndarray:
    """A picture (h, w, 3) with structures of several sizes."""
    rng = np.random.default_rng(seed)
    layers = []
    for cell_px in (64, 24, 8):
        coarse = rng.integers(0, 256, (size_px[0] // cell_px + 1, size_px[1] // cell_px + 1, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(coarse).resize((size_px[1], size_px[0]), Image.Resampling.BICUBIC)).astype(np.float32))
    return np.clip(np.mean(layers, axis=0), 0, 255).astype(np.uint8)


def seen(pixels: np.ndarray, folder: Path, quality: int = 85) -> np.ndarray:
    """The thumbnail of a picture that went through a JPEG file."""
    buffer = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    path = folder / "frame.jpg"
    path.write_bytes(buffer.getvalue())
    return thumbnail(path)


def movements(paths: list[Path]) -> list[float]:
    pictures = [thumbnail(path) for path in paths]
    return [movement_px(before, after) for before, after in pairwise(pictures)]


def frames(shared: Path, drive: str, camera: str = "image_02") -> list[Path]:
    return sorted((shared / RAW).glob(f"*/*_drive_{drive}_sync/{camera}/data/*.jpg"))


def test_thumbnails_are_grey_and_of_one_width_whatever_the_image(tmp_path: Path) -> None:
    pixels = texture((240, 800))
    for name, image in (
        ("a.jpg", Image.fromarray(pixels)),
        ("b.png", Image.fromarray(pixels)),
        ("c.jpg", Image.fromarray(pixels).convert("CMYK")),
    ):
        image.save(tmp_path / name)
    reference = thumbnail(tmp_path / "b.png")
    for name in "a.jpg", "b.png", "c.jpg":
        picture = thumbnail(tmp_path / name)
        assert (picture.shape, picture.dtype) == ((96, WIDTH_PX), np.uint8)
        assert np.abs(picture.astype(int) - reference).mean() < 4, name


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(InputError, match=r"cut\.jpg is a damaged image \(.*\); restore the file, or leave it out"):
        thumbnail(tmp_path / "cut.jpg")
    with pytest.raises(InputError, match=r"cannot read .*none\.jpg"):
        thumbnail(tmp_path / "none.jpg")


@pytest.mark.parametrize("drive", ["9001", "9002"])
def test_a_car_that_drives_moves_in_every_frame(shared: Path, drive: str) -> None:
    assert min(movements(frames(shared, drive)[:40])) > 4 * THRESHOLD_PX


def test_a_car_that_waits_stands_still(shared: Path) -> None:
    for camera in "image_02", "image_03":
        assert max(movements(frames(shared, "9003", camera))) < THRESHOLD_PX / 4


def test_a_car_that_brakes_in_a_jam_moves_until_it_stops(shared: Path) -> None:
    measured = movements(frames(shared, "0052"))
    assert min(measured[:46]) > 1.5 * THRESHOLD_PX
    assert min(measured[46:50]) > THRESHOLD_PX
    assert max(measured[62:]) < THRESHOLD_PX


def test_the_demo_street_is_driven_through(street: list[list[Path]]) -> None:
    assert min(min(movements(drive)) for drive in street) > 4 * THRESHOLD_PX


def test_a_frame_seen_twice_stands_still(street: list[list[Path]]) -> None:
    for drive in street:
        assert movement_px(thumbnail(drive[0]), thumbnail(drive[0])) == 0


def test_noise_of_sensor_and_jpeg_is_no_movement(tmp_path: Path) -> None:
    rng, pixels = np.random.default_rng(0), texture().astype(np.float32)
    for noise, quality in ((3, 92), (10, 60), (10, 30)):
        before, after = (seen(pixels + rng.normal(0, noise, pixels.shape), tmp_path, quality) for _ in "ab")
        assert not has_moved(before, after), (noise, quality)


def test_exposure_is_no_movement(tmp_path: Path) -> None:
    pixels = texture().astype(np.float32)
    for gain, offset in ((0.5, 0), (0.8, 0), (1.15, 4), (1, 20)):
        assert not has_moved(seen(pixels, tmp_path), seen(pixels * gain + offset, tmp_path)), (gain, offset)


@pytest.mark.parametrize("shift_px", [1, 2, 8, 40])
def test_a_picture_that_shifts_has_moved(shift_px: int, tmp_path: Path) -> None:
    pixels = texture((192, 720))
    before, after = seen(pixels[:, :640], tmp_path), seen(pixels[:, shift_px : shift_px + 640], tmp_path)
    assert has_moved(before, after)
    if shift_px == 1:  # half a pixel of the thumbnail
        assert movement_px(before, after) == pytest.approx(0.5, rel=0.25)


def test_a_car_that_passes_is_no_movement_of_the_camera(tmp_path: Path) -> None:
    pixels, car = texture(), texture(seed=1)
    after = pixels.copy()
    after[40:192, :320] = car[40:192, :320]  # four tenths of the picture
    assert not has_moved(seen(pixels, tmp_path), seen(after, tmp_path))


def test_pictures_without_structure_and_of_other_sizes_have_an_answer() -> None:
    grey = np.full((96, 320), 128, np.uint8)
    assert not has_moved(grey, grey + 3)
    assert has_moved(grey, grey[:80])


def test_each_targets_fault_is_found_and_each_image_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = texture((96, 480))
    # Moves until frame 5, stands until 9, moves again; 13 is damaged.
    places = [0, 6, 12, 18, 24, 30, 30, 30, 30, 30, 36, 42, 48, 54, 60, 66]
    (tmp_path / "a").mkdir()
    for number, place in enumerate(places):
        Image.fromarray(pixels[:, place : place + 320]).save(tmp_path / "a" / f"{number:03d}.jpg", quality=92)
    (tmp_path / "a" / "013.jpg").write_bytes(b"\xff\xd8")
    dataset = Folder(tmp_path)
    refs = [ref for ref in dataset.all_refs() if not dataset.target_fault(ref, frame_ids=(0, -1, 1), use_stereo=False)]
    read: list[str] = []
    real = picture.read_bytes
    monkeypatch.setattr(picture, "read_bytes", lambda path: (read.append(path.name), real(path))[1])
    faults = static_targets(dataset, refs, progress=False)
    by_name = {ref.name: fault for ref, fault in zip(refs, faults, strict=True)}
    assert {name for name, fault in by_name.items() if fault == STANDING} == {f"{number:03d}" for number in range(5, 10)}
    assert {name for name, fault in by_name.items() if fault == DAMAGED} == {"012", "013", "014"}
    assert sorted(read) == [f"{number:03d}.jpg" for number in range(16)]


def test_the_order_of_targets_and_wider_neighbours_make_no_difference(tmp_path: Path) -> None:
    pixels = texture((96, 480))
    (tmp_path / "a").mkdir()
    for number, place in enumerate([0, 6, 12, 12, 12, 18, 24, 30]):
        Image.fromarray(pixels[:, place : place + 320]).save(tmp_path / "a" / f"{number}.png")
    dataset = Folder(tmp_path)
    refs = dataset.all_refs()[2:6]
    wide = {ref.name: fault for ref, fault in zip(refs, static_targets(dataset, refs, frame_ids=(0, -2, 2), progress=False), strict=True)}
    assert wide == {"2": STANDING, "3": "", "4": STANDING, "5": ""}
    backwards = static_targets(dataset, refs[::-1], frame_ids=(0, -1, 1), progress=False)[::-1]
    assert backwards == static_targets(dataset, refs, frame_ids=(0, -1, 1), progress=False) == [STANDING, STANDING, STANDING, ""]
