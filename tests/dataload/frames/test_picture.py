"""One meaning of an image file: every kind of it through the torch loader, DALI, stores, prediction, the check and its sheet."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import HAS_DALI
from inspected_trees import folder_tree, inspected
from picture_kinds import HEIGHT, READ, REFUSED, RGB, STORED, WIDTH, exif, save, stored
from PIL import Image

from dataload.check import inspection
from dataload.config import DataConfig
from dataload.datasets.folder import Folder
from dataload.footage.motion import thumbnail
from dataload.frames import picture
from dataload.frames.picture import is_plain, picture_size_px, read_picture
from dataload.loader import Loader
from dataload.pipeline.dali_pipeline import file_input
from dataload.pipeline.decode import load_frame
from dataload.pipeline.decoders import DaliDecoder
from export.prediction.inputs import read_image
from splits.errors import InputError

CONFIG = DataConfig(data_path=Path("unused"), height_px=HEIGHT, width_px=WIDTH)
DALI = DaliDecoder(CONFIG, torch.device("cpu"))
LEVELS = 1  # of 255, by which ways may differ


def by_check(path: Path) -> np.ndarray:
    """What the sheet of md-data check shows of a file, at its own size."""
    shown = []
    root = folder_tree(path.parent / "tree", {"a": 3}, size_px=(HEIGHT, WIDTH))
    frame = root / "a" / f"0001{path.suffix}"
    (root / "a" / "0001.jpg").unlink()
    path.rename(frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "write_contact_sheet", lambda _, tiles: shown.extend(tiles))
        report = inspected(root, sheet=path.parent / "sheet.jpg")
    faults = [text for text in report.problems if str(frame) in text]
    if faults:
        raise InputError(faults[0].partition("; ")[2])
    tiles = [tile.image for tile in shown if " 0001 " in tile.label]
    assert len(tiles) == 1, report.told()
    return tiles[0]


WAYS: dict[str, Callable[[Path], np.ndarray]] = {
    "torch": lambda path: load_frame(path, CONFIG.size_px).numpy(),
    "dali": DALI.frame,
    "prediction": lambda path: np.asarray(read_image(path)),
    "check": by_check,
}
ways = pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.skipif(way == "dali" and not HAS_DALI, reason="DALI is not installed")]) for way in WAYS]
)


def write(folder: Path, data: bytes, name: str) -> Path:
    """The file by the ending of its format, or for every other kind, by another one: content counts."""
    ending = {"jpeg": ".jpg", "git": ".png", "heic": ".jpg", "gif": ".png"}.get(name.split()[0], f".{name.split()[0]}")
    path = folder / f"file{ending if ending in picture.IMAGE_SUFFIXES else '.jpg'}"
    path.write_bytes(data)
    return path


@ways
@pytest.mark.parametrize("name", READ)
def test_every_way_reads_the_same_pixels(name: str, way: str, tmp_path: Path) -> None:
    data, expected = READ[name]
    found = WAYS[way](write(tmp_path, data, name)).astype(int)
    assert found.shape == expected.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(found - expected).max() <= LEVELS


@ways
@pytest.mark.parametrize("name", REFUSED)
def test_every_way_refuses_the_same_files_in_the_same_words(name: str, way: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    path = write(tmp_path, data, name)
    with pytest.raises(InputError) as refused:
        WAYS[way](path)
    assert f"{path.suffix} {words}" in str(refused.value)
    assert "BytesIO" not in str(refused.value)


@ways
@pytest.mark.parametrize(("data", "suffix"), [(READ["png"][0], ".jpg"), (READ["jpeg"][0], ".png"), (READ["webp"][0], ".tif")])
def test_content_counts_not_the_ending(data: bytes, suffix: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    assert np.abs(WAYS[way](path).astype(int) - RGB).mean() < 5


@pytest.mark.parametrize("name", READ)
def test_where_pillow_is_alone_the_pixels_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, READ[name][0], name)
    expected = read_picture(path)
    monkeypatch.setattr(picture, "simplejpeg", None)
    np.testing.assert_array_equal(read_picture(path), expected)
    assert thumbnail(path).ndim == 2


@pytest.mark.parametrize("name", READ)
def test_the_size_is_that_of_the_upright_picture(name: str, tmp_path: Path) -> None:
    assert picture_size_px(write(tmp_path, READ[name][0], name)) == (HEIGHT, WIDTH)


def test_intrinsics_in_a_splits_lines_are_of_the_upright_picture(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(save(stored(6), "JPEG", exif=exif(6)))
    dataset = Folder(tmp_path, intrinsics=(60.0, 60.0, WIDTH / 2, HEIGHT / 2))
    (ref, *_) = dataset.all_refs()
    assert dataset.native_size_px(ref) == (HEIGHT, WIDTH)


def test_common_files_reach_dali_by_their_paths_and_others_by_their_pixels(tmp_path: Path) -> None:
    plain = {name for name, (data, _) in READ.items() if is_plain(write(tmp_path, data, name))}
    assert {"jpeg", "jpeg grey", "jpeg progressive", "jpeg with a long note", "png", "png grey", "png alpha", "png palette"} <= plain
    odd = {f"jpeg orientation {turned}" for turned in STORED} | {name for name in READ if "16 bits" in name or "cmyk" in name}
    assert not plain & odd
    path = write(tmp_path, READ["jpeg"][0], "jpeg")
    assert file_input(path).tobytes() == str(path).encode()


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_a_file_that_dali_alone_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(READ["jpeg"][0])
    bad.write_bytes(REFUSED["jpeg cut off"][0])
    monkeypatch.setattr("dataload.pipeline.decoders.read_picture", lambda path: RGB)
    with pytest.raises(InputError, match=r"bad\.jpg is a damaged image \(DALI's decoder refuses it.*; .*or give --loader torch"):
        DALI.name_the_damaged([good, bad])


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    for read in (read_picture, picture_size_px, is_plain, thumbnail):
        with pytest.raises(InputError, match=r"cannot read .*none\.png \(No such file or directory\); restore the file"):
            read(tmp_path / "none.png")
        with pytest.raises(InputError, match=r"cannot read .*x\.jpg \(Is a directory\)"):
            read(tmp_path / "x.jpg")


@pytest.mark.parametrize("ending", ["bmp", "webp", "tif", "ppm"])
def test_folders_of_other_formats_are_read(ending: str, tmp_path: Path) -> None:
    root = folder_tree(tmp_path, {"a": 4})
    for path in (root / "a").glob("*.jpg"):
        Image.open(path).save(path.with_suffix(f".{ending}"))
        path.unlink()
    report = inspected(root)
    assert report.verdict == "ready", report.told()
    assert report.facts["frames"]["decoded"] == 4


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_common_and_odd_files_are_alike_by_both_loaders(workers: int, tmp_path: Path) -> None:
    kinds = ("jpeg", "png 16 bits", "jpeg orientation 6", "webp", "png", "jpeg cmyk", "tif orientation 3", "bmp palette")
    (tmp_path / "a").mkdir()
    for number, name in enumerate(kinds):
        write(tmp_path / "a", READ[name][0], name).rename(tmp_path / "a" / f"{number}.png")
    options = {"data_path": tmp_path, "dataset": "folder", "batch_size": 3, "num_workers": workers, "num_levels": 1, "source_levels": 1}
    batches = {}
    for backend in ("torch", "dali"):
        config = DataConfig(**options, height_px=HEIGHT, width_px=WIDTH, loader=backend)
        dataset = Folder(tmp_path, intrinsics=(60.0, 60.0, WIDTH / 2, HEIGHT / 2))
        refs = dataset.with_sources(dataset.all_refs(), source="all", frame_ids=(0, -1, 1), use_stereo=False)
        with Loader(config, dataset, refs, training=False, device="cpu") as loader:
            batches[backend] = list(loader.epoch(0))
    for twin, dali in zip(*batches.values(), strict=True):
        assert (twin.target[0].int() - dali.target[0].int()).abs().max() <= LEVELS
        assert (twin.sources[0].int() - dali.sources[0].int()).abs().max() <= LEVELS
    first = batches["dali"][0].target[0].movedim(1, -1).numpy().astype(int)
    for row, name in enumerate(kinds[1:4]):
        assert np.abs(first[row] - READ[name][1]).max() <= LEVELS


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of TIFFs
def test_whatever_is_wrong_with_a_file_ends_in_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [data for data, _ in (*READ.values(), *REFUSED.values()) if data]
    path = tmp_path / "file.jpg"
    for number in range(600):
        data = bytearray(files[number % len(files)])
        for place in rng.integers(0, min(len(data), 300 if number % 2 else len(data)), 3).tolist():
            data[place : place + 2] = rng.bytes(2)
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)] if number % 3 == 0 else data))
        for read in (read_picture, picture_size_px, is_plain, thumbnail):
            with suppress(InputError):
                read(path)
