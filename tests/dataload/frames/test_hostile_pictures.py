"""Image files that ask for far more than they are: each is read, or refused by its name, in little time and memory."""

import os
from pathlib import Path

import pytest
from hostile import read_apart
from hostile_files import PICTURES, jpeg_of, png_of
from picture_kinds import JPEG, exif

from dataload.frames.depth_file import read_depth_values
from dataload.frames.picture import picture_size_px, read_picture
from dataload.frames.picture_header import exif_orientation
from splits.errors import InputError
from splits.limits import IMAGE_PIXELS

LARGE = "more than 50,331,648 pixels are not read"
SAID = {
    "bomb.jpg": LARGE, "progressive.jpg": LARGE, "limit.jpg": "read (7000, 7000, 3)", "scans.jpg": "more than 64 scans",
    "notes.jpg": "read (64, 96, 3)", "note.jpg": "read (64, 96, 3)", "segments.jpg": "more than 4,096 segments", "junk.jpg": "damaged",
    "strip.png": "a side of more than 65,535 pixels",
    "bomb.png": LARGE, "bomb16.png": LARGE, "limit.png": "read (7000, 7000, 3)", "notes.png": "damaged image",
    "exif.png": "read (64, 96, 3)", "chunks.png": "more than 262,144 chunks", "tile.tif": LARGE, "fields.tif": "its fields are more",
    "pages.tif": "it holds 1000 pictures", "comment.gif": "more comments or parts", "pictures.gif": "more comments or parts",
    "text.ppm": "values as text", "comment.ppm": "its header is longer", "runs.bmp": "runs are read up to 4,194,304 pixels",
    "limit.bmp": "runs are read up to 4,194,304 pixels", "bomb.webp": LARGE, "limit.webp": "read (7000, 7000, 3)",
    "exif.webp": "read (64, 96, 3)", "orientation.webp": "read (96, 64, 3)",
}  # fmt: skip


def test_each_picture_is_read_or_refused_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, make in PICTURES.items():
        (tmp_path / "files" / name).write_bytes(make())
    said = read_apart(read_picture, tmp_path / "files")
    assert set(said) == set(SAID) == set(PICTURES)
    wrong = {name: said[name] for name, part in SAID.items() if part not in said[name]}
    assert not wrong
    grey = read_apart(picture_size_px, tmp_path / "files")
    assert {name for name, text in grey.items() if LARGE in text} == {name for name, text in SAID.items() if text == LARGE}


def test_depth_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("bomb16.png", "tile.tif", "fields.tif", "pages.tif", "notes.png", "limit.png"):
        (tmp_path / "files" / name).write_bytes(PICTURES[name]())
    (tmp_path / "files" / "largest.png").write_bytes(png_of(7000, 7000, 16, 0))
    (tmp_path / "files" / "wide.png").write_bytes(png_of(70_000, 4, 16, 0))
    said = read_apart(read_depth_values, tmp_path / "files")
    assert said["largest.png"] == "read (7000, 7000)"
    assert "bomb16.png cannot be read as an image: " + LARGE in said["bomb16.png"]
    assert "a side of more than 65,535 pixels" in said["wide.png"]
    assert "it holds 1000 pictures" in said["pages.tif"]


def test_the_limit_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    monkeypatch.setenv(IMAGE_PIXELS.variable, str(64 * 96 - 1))
    with pytest.raises(InputError, match=r"more than 6,143 pixels are not read, and it has 96 x 64; save it smaller, or set MD_MAX_IMAGE"):
        read_picture(tmp_path / "a.jpg")
    monkeypatch.setenv(IMAGE_PIXELS.variable, str(64 * 96))
    assert read_picture(tmp_path / "a.jpg").shape == (64, 96, 3)


@pytest.mark.parametrize("form", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_read_by_itself(form: str, orientation: int) -> None:
    notes = exif(orientation)
    if form == "<":
        notes = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0\0\0\0\0\0\0"
    assert exif_orientation(notes) == orientation
    assert all(exif_orientation(notes[:length]) in (1, orientation) for length in range(len(notes)))


def test_an_image_that_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is a pipe, not an image"):
        read_picture(tmp_path / "a.jpg")


def test_pictures_of_any_cut_or_flip_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for data in (jpeg_of(60_000, 60_000)[:200], JPEG[:2], b"II*\0" + b"\xff" * 40, b"GIF89a", b"P6 1", b"BM", b"RIFF\0\0\0\0WEBPVP8X"):
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_picture(path)
        assert str(path) in str(caught.value)
