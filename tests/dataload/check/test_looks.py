"""What the check says of black frames, of those of one colour, of kinds that do not belong together, and of two images for one frame."""

from pathlib import Path

import numpy as np
import pytest
from batches import HAS_DALI
from inspected_trees import folder_tree, inspected, write_depth, write_frames
from PIL import Image

from dataload.check.looks import DIM, NEARLY_BLACK
from dataload.datasets.folder import Folder
from dataload.pipeline.decoders import DaliDecoder
from splits.errors import InputError

NAMES = [f"{index:04d}.png" for index in range(20)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return folder_tree(tmp_path, {"a": 20})


def darken(path: Path, most: int) -> None:
    """Let no value be above so many of 255."""
    values = np.asarray(Image.open(path)).astype(float)
    Image.fromarray((values * most / values.max()).astype(np.uint8)).save(path, quality=100)


def as_16_bits(folder: Path, bits: int) -> None:
    """The frames of a folder as PNGs whose values fill so many bits of sixteen."""
    for path in folder.glob("*.jpg"):
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint32)
        Image.fromarray((values * ((1 << bits) - 1) // values.max()).astype(np.uint16)).save(path.with_suffix(".png"))
        path.unlink()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 120, 60)])
def test_one_frame_of_a_single_colour_is_warned_of_and_many_are_a_problem(tree: Path, colour: tuple[int, int, int]) -> None:
    for number in range(2):
        Image.new("RGB", (320, 96), colour).save(tree / "a" / f"{number:04d}.jpg")
        report = inspected(tree)
        assert any(f"{number + 1} image" in text and "of a single colour: a/0000.jpg" in text for text in report.warnings)
        assert report.verdict == "ready"
    Image.new("RGB", (320, 96), colour).save(tree / "a" / "0002.jpg")
    (problem,) = inspected(tree).problems
    assert problem.startswith("a: 3 of 20 images nearly black or of a single colour, as 0000.jpg")


def test_a_sequence_nearly_black_is_a_problem_and_one_that_is_dim_is_warned_of(tree: Path) -> None:
    darken(tree / "a" / "0003.jpg", NEARLY_BLACK - 9)
    report = inspected(tree)
    assert report.verdict == "ready"
    assert any("1 image nearly black (values of at most 24 of 255): a/0003.jpg" in text for text in report.warnings)
    for path in (tree / "a").glob("*.jpg"):
        darken(path, NEARLY_BLACK - 9)
    (problem,) = inspected(tree).problems
    assert problem.startswith("a: 20 of 20 images nearly black or of a single colour, as 0000.jpg (values of at most 1")
    assert "scale values of fewer bits to the whole range (12 bits in 16: times 16)" in problem


@pytest.mark.parametrize(
    ("bits", "words"),
    [(10, "20 of 20 images nearly black"), (12, "20 of 20 images nearly black"), (14, "no image has values above"), (16, "")],
)
def test_fewer_bits_in_files_of_16_are_a_problem(tree: Path, bits: int, words: str) -> None:
    as_16_bits(tree / "a", bits)
    report = inspected(tree)
    assert any(heading == "Kinds" and text == "20 16-bit grey PNG" for heading, text in report.lines)
    assert [words in problem for problem in report.problems] == [True] * bool(words), report.told()


def test_the_same_dimness_of_eight_bits_is_warned_of(tree: Path) -> None:
    for path in (tree / "a").glob("*.jpg"):
        darken(path, DIM - 9)
    report = inspected(tree)
    assert report.verdict == "ready"
    assert any(text.startswith("a: no image has values above") for text in report.warnings)


def test_kinds_that_do_not_belong_together_are_a_problem(tree: Path) -> None:
    (tree / "a" / "0003.jpg").unlink()
    write_depth(tree / "a", ["0003"], 120)
    (problem,) = inspected(tree).problems
    assert problem.startswith("a: files of several kinds, 19 of 8-bit colour JPEG, but 1 of 16-bit grey PNG, as 0003.png; a sequence is")


def test_frames_turned_otherwise_are_a_problem_and_all_turned_alike_are_told(tree: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    paths = sorted((tree / "a").glob("*.jpg"))
    for path in paths[:4]:
        Image.open(path).save(path, exif=exif)
    (problem,) = inspected(tree).problems
    assert "but 4 of 8-bit colour JPEG, turned as its EXIF orientation 3 says, as 0000.jpg" in problem
    for path in paths[4:]:
        Image.open(path).save(path, exif=exif)
    report = inspected(tree)
    assert report.verdict == "ready"
    assert ("Kinds", "20 8-bit colour JPEG, turned as its EXIF orientation 3 says") in report.lines


def test_formats_of_the_same_picture_are_warned_of(tree: Path) -> None:
    path = tree / "a" / "0005.jpg"
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()
    report = inspected(tree)
    assert report.verdict == "ready"
    assert any(
        "19 of 8-bit colour JPEG, but 1 of 8-bit colour PNG, as 0005.png; are they from one recording?" in t for t in report.warnings
    )


def test_a_file_damaged_inside_is_warned_of(tree: Path) -> None:
    path = tree / "a" / "0005.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 100 :])
    report = inspected(tree)
    assert any("1 image damaged inside, though decoders read them: a/0005.jpg (" in text for text in report.warnings), report.told()


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_one_that_dali_refuses_is_a_problem(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree / "a" / "0005.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 100 :])

    def refuse(_: DaliDecoder, paths: list[Path]) -> None:
        raise InputError(f"{paths} refused")

    monkeypatch.setattr(DaliDecoder, "name_the_damaged", refuse)
    assert inspected(tree).problems == [f"{[path]} refused"]


@pytest.mark.parametrize("depth_like", [True, False])
def test_two_images_for_one_frame_are_refused(tree: Path, depth_like: bool) -> None:
    if depth_like:
        write_depth(tree / "a", NAMES, 12)
    else:
        write_frames(tree / "a", NAMES[:1])
    more = ", as 19 more pairs there" if depth_like else ""
    with pytest.raises(InputError) as refused:
        inspected(tree)
    assert f"a has two images for one frame, 0000.jpg and 0000.png{more}; leave one of each in the folder" in str(refused.value)
    with pytest.raises(InputError, match="two images for one frame"):
        Folder(tree).refs(["a 0001"], source="train")


def test_a_folder_by_the_name_of_an_image_is_no_frame(tree: Path) -> None:
    (tree / "a" / "0020.jpg").mkdir()
    assert inspected(tree).facts["frames"]["decoded"] == 20
