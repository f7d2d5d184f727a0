"""md-data jpeg: the published kind of JPEG, whole or not at all; a PNG goes only when its JPEG has been compared with it."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kitti_tree import drive_folder
from PIL import Image

from dataload.commands.kitti import jpeg
from dataload.kitti import jpeg as module
from dataload.kitti.jpeg import Mismatch, verify

PROGRAM = "from dataload.commands.kitti import jpeg; jpeg()"


def run(tree: Path, *args: str | int, jobs: int = 1) -> Result:
    return CliRunner().invoke(jpeg, ["--data_path", str(tree), "--jobs", str(jobs), *map(str, args)])


@pytest.fixture
def tree(kitti_tree) -> Path:
    return kitti_tree(ext=".png")


def camera(tree: Path, number: int = 2) -> Path:
    return tree / drive_folder("0001") / f"image_0{number}" / "data"


def all_of(tree: Path, ext: str) -> list[Path]:
    return sorted(path for path in tree.rglob(f"[!.]*{ext}") if path.parent.name == "data")


def encoded(image: Image.Image, quality: int = 92, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **{"subsampling": "4:2:0"} | options)
    return buffer.getvalue()


def published_steps(table: list[int], quality: int) -> list[int]:
    """The standard's example table at a quality above 50, as every program of the Independent JPEG Group's lineage scales it."""
    return [min(255, max(1, (step * (200 - 2 * quality) + 50) // 100)) for step in table]


# The first steps of the standard's tables K.1 and K.2, row by row.
LUMA, CHROMA = [16, 11, 10, 16, 24, 40, 51, 61], [17, 18, 24, 47, 99, 99, 99, 99]


def test_jpegs_have_the_published_quality_and_sampling(tree: Path) -> None:
    result = run(tree)
    assert result.exit_code == 0, result.output
    assert len(all_of(tree, ".jpg")) == 12
    for path in all_of(tree, ".jpg"):
        with Image.open(path) as image:
            assert [(h, v) for _, h, v, _ in image.layer] == [(2, 2), (1, 1), (1, 1)]
            assert list(image.quantization[0])[:8] == published_steps(LUMA, 92)
            assert list(image.quantization[1])[:8] == published_steps(CHROMA, 92)
    assert len(all_of(tree, ".png")) == 12
    assert result.output.startswith("12 JPEGs made, 0 there already: ")
    assert "--delete would free" in result.output


def test_another_quality_is_obeyed(tree: Path) -> None:
    assert run(tree, "--quality", 75).exit_code == 0
    with Image.open(all_of(tree, ".jpg")[0]) as image:
        assert list(image.quantization[0])[:8] == published_steps(LUMA, 75)


def test_real_frames_are_the_published_ones_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    for png in sorted((shared / "kitti" / "raw_png").rglob("*.png")):
        relative = png.relative_to(shared / "kitti" / "raw_png")
        (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / relative).write_bytes(png.read_bytes())
    assert run(tmp_path, "--delete", jobs=2).exit_code == 0
    made = sorted(tmp_path.rglob("*.jpg"))
    assert len(made) == 12
    assert not list(tmp_path.rglob("*.png"))
    for path in made:
        published = shared / "kitti" / "raw_jpg" / path.relative_to(tmp_path)
        with Image.open(path) as ours, Image.open(published) as theirs:
            assert ours.quantization == theirs.quantization
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_originals_go_with_delete_alone_and_the_rest_stays(tree: Path) -> None:
    depth = tree / drive_folder("0001") / "proj_depth" / "groundtruth" / "image_02"
    depth.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(depth / "0000000005.png")
    before = sorted(p for p in tree.rglob("*") if p.suffix != ".png")
    freed = sum(path.stat().st_size for path in all_of(tree, ".png"))
    result = run(tree, "--delete")
    assert result.exit_code == 0, result.output
    assert f"{freed / 1e6:.1f} MB freed" in result.output
    assert all_of(tree, ".png") == []
    assert sorted(p.name for p in depth.iterdir()) == ["0000000005.png"]
    assert set(before) < set(tree.rglob("*"))
    again = run(tree, "--delete")
    assert (again.exit_code, again.output) == (0, f"no PNG images in {tree}; 12 JPEGs are there\n")


def test_grey_cameras_are_converted_too(tree: Path) -> None:
    camera(tree, 0).mkdir(parents=True)
    with Image.open(camera(tree) / "0000000000.png") as image:
        image.convert("L").save(camera(tree, 0) / "0000000000.png")
    assert run(tree, "--delete").exit_code == 0
    with Image.open(camera(tree, 0) / "0000000000.jpg") as grey:
        assert grey.mode == "L"


def test_processes_make_the_same_files_as_none(kitti_tree) -> None:
    one, two = kitti_tree(ext=".png"), kitti_tree(ext=".png")
    assert run(one).exit_code == run(two, jobs=2).exit_code == 0
    for ours, theirs in zip(all_of(one, ".jpg"), all_of(two, ".jpg"), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_whole_jpegs_are_kept_and_damaged_ones_remade(tree: Path) -> None:
    assert run(tree).exit_code == 0
    kept, cut, empty, small = all_of(tree, ".jpg")[:4]
    good = {path: path.read_bytes() for path in (kept, cut, empty, small)}
    os.utime(kept, ns=(1, 1))
    cut.write_bytes(good[cut][:-100])
    empty.write_bytes(b"")
    small.write_bytes(encoded(Image.new("RGB", (8, 8))))
    result = run(tree)
    assert result.exit_code == 0
    assert result.output.startswith("3 JPEGs made, 9 there already: ")
    assert kept.stat().st_mtime_ns == 1
    assert {path: path.read_bytes() for path in good} == good


def test_a_damaged_png_is_named_and_kept_and_the_others_are_converted(tree: Path) -> None:
    cut, empty = camera(tree) / "0000000001.png", camera(tree) / "0000000002.png"
    content = cut.read_bytes()[:-2000]
    cut.write_bytes(content)
    empty.write_bytes(b"")
    result = run(tree, "--delete")
    assert result.exit_code == 1
    assert f"{cut} is damaged (" in result.output
    assert f"{empty} is damaged (" in result.output
    assert result.output.splitlines()[-1].startswith("Error: 2 of 12 PNGs have no sound JPEG")
    assert cut.read_bytes() == content
    assert len(all_of(tree, ".jpg")) == 10
    assert all_of(tree, ".png") == [cut, empty]


def test_deep_pixels_are_named_and_kept(tree: Path) -> None:
    deep = camera(tree) / "0000000001.png"
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(deep)
    result = run(tree, "--delete")
    assert result.exit_code == 1
    # Which of its two modes for 16 bits Pillow says depends on its version.
    assert re.search(rf"{re.escape(str(deep))} has pixels of mode I(;16)?, not 8-bit colour or grey", result.output)
    assert all_of(tree, ".png") == [deep]
    assert not deep.with_suffix(".jpg").exists()


def neighbour(image: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.roll(np.asarray(image), 1, axis=1)))


def with_other_colours(image: Image.Image) -> bytes:
    luma, blue, red = image.convert("YCbCr").split()
    return encoded(Image.merge("YCbCr", (luma, blue.point(lambda level: level + 9), red)))


def damaged_inside(image: Image.Image) -> bytes:
    data = bytearray(encoded(image))
    data[-300:-250] = bytes(50)
    return bytes(data)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (neighbour, r"differs from it by .* levels in a block"),
        (with_other_colours, r"has other colours, by "),
        (damaged_inside, r"differs from it by|cannot be decoded"),
        (lambda image: encoded(image, 80), r"was made at a lower quality than 92"),
        (lambda image: encoded(image.convert("L")), r"is another image \(248x75, L\)"),
    ],
)
def test_a_png_stays_where_its_jpeg_is_not_it(tree: Path, other, said: str) -> None:
    png = camera(tree) / "0000000003.png"
    with Image.open(png) as image:
        data = other(image)
    png.with_suffix(".jpg").write_bytes(data)
    before = png.read_bytes()
    result = run(tree, "--delete")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith(f"{png} is kept: 0000000003.jpg ")]
    with Image.open(io.BytesIO(before)) as image, pytest.raises(Mismatch, match=said) as raised:
        verify(image, data, 92)
    assert str(raised.value) in line
    assert (png.read_bytes(), png.with_suffix(".jpg").read_bytes()) == (before, data)
    assert all_of(tree, ".png") == [png]


@pytest.mark.parametrize("quality", [1, 50, 92, 100])
@pytest.mark.parametrize("levels", [(0, 256), (0, 2)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_no_image_is_taken_for_another_by_its_compression(quality: int, levels: tuple[int, int], mode: str) -> None:
    pixels = np.random.default_rng(0).integers(*levels, (75, 131, 3)) * (255 // (levels[1] - 1))
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    verify(image, encoded(image, quality), quality)


def test_what_the_disk_made_of_a_jpeg_is_compared_before_it_has_its_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = encoded(Image.new("RGB", (248, 75)))
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: other if path.suffix == ".jpg" and path.name.startswith(".") else read(path))
    result = run(tree, "--delete")
    assert result.exit_code == 1
    assert len(all_of(tree, ".png")) == 12
    assert list(tree.rglob("*.jpg*")) == []
    assert result.output.count("differs from it by") == 12


def test_a_full_disk_leaves_no_jpeg_behind(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    result = run(tree, "--delete")
    assert result.exit_code == 1
    assert (
        result.output
        == f"Error: {camera(tree) / '0000000000.jpg'}: No space left on device; free some room on that disk, or name a place on another\n"
    )
    assert len(all_of(tree, ".png")) == 12
    assert list(tree.rglob("*.jpg")) == []


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="sends Ctrl-C as a terminal does")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupt_leaves_whole_files_and_the_same_command_continues(tree: Path, jobs: str) -> None:
    for number in (2, 3):
        for index in range(6, 300):
            shutil.copy(camera(tree, number) / f"{index % 6:010d}.png", camera(tree, number) / f"{index:010d}.png")
    call = [sys.executable, "-c", PROGRAM, "--data_path", str(tree), "--delete", "--jobs", jobs]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not all_of(tree, ".jpg"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Stopped; the JPEGs made so far are kept; repeat the command to resume" in errors
    assert "Traceback" not in errors
    jpegs, pngs = all_of(tree, ".jpg"), all_of(tree, ".png")
    assert 0 < len(jpegs) < 600
    assert not [path for path in tree.rglob("*") if path.name.startswith(".")]
    assert {p.with_suffix("") for p in jpegs} | {p.with_suffix("") for p in pngs} == {
        camera(tree, number) / f"{index:010d}" for number in (2, 3) for index in range(300)
    }
    for path in jpegs:
        with Image.open(path) as image:
            image.load()
    assert subprocess.run(call, check=False, capture_output=True).returncode == 0
    assert (len(all_of(tree, ".jpg")), all_of(tree, ".png")) == (600, [])


def test_wrong_paths_say_where_the_images_lie(tree: Path, tmp_path: Path) -> None:
    assert f"they lie under {tree}: give that" in run(tree / "2011_09_26").output
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kitti").symlink_to(tree)
    above = run(tmp_path / "data")
    assert above.exit_code == 1
    assert f"they lie under {tmp_path / 'data' / 'kitti'}: give that" in above.output
    (tmp_path / "empty").mkdir()
    assert "give the folder that holds the dates" in run(tmp_path / "empty").output
    assert "does not exist or is no folder" in run(tmp_path / "nowhere").output
    assert run(tree, "--quality", 101).exit_code == 2
