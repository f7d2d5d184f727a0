"""What --image may be, images of every kind, and one clear line for what cannot be read or written."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicting import names, run, save_image, save_model

from export.prediction.inputs import VIDEO_EXTENSIONS, check_outputs, find_inputs, read_image
from splits.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stereo"), use_stereo=True)


def found(*sources: Path, ext: str | None = None) -> list[str]:
    return [path.name for path in find_inputs(sources, ext).images]


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.jpeg", "a_disp.jpeg", "a_disp.png", "b_depth.png", "e.bmp"):
        save_image(tmp_path / name)
    (tmp_path / "d.jpg").mkdir()
    assert found(tmp_path) == ["a.JPG", "b.png", "c.jpeg", "e.bmp"]
    assert found(tmp_path, ext=".BMP") == ["e.bmp"]
    with pytest.raises(InputError, match=rf"folder {tmp_path} holds no tif image; name others by a quoted pattern"):
        find_inputs([tmp_path], "tif")


def test_images_of_a_pattern(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.png", "b/3.jpg", "b/c/4.jpg", "b/c/1_disp.jpeg", "b/5.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(tmp_path / name)
    assert found(tmp_path / "*/*.jpg") == ["1.jpg", "3.jpg"]
    assert found(tmp_path / "**/*") == ["1.jpg", "2.png", "3.jpg", "5.bmp", "4.jpg"]
    assert found(tmp_path / "**/*", ext="png") == ["2.png"]
    assert found(tmp_path / "*/*.bmp") == ["5.bmp"]
    assert found(tmp_path / "a/1.jpg", tmp_path / "a", tmp_path / "b/c/1_disp.jpeg") == ["1.jpg", "2.png"]
    with pytest.raises(InputError, match=rf"^{tmp_path}/\*.gif matches no gif image; check the pattern"):
        find_inputs([tmp_path / "*.gif"])
    (tmp_path / "[x].jpg").write_bytes((tmp_path / "a/1.jpg").read_bytes())
    assert found(tmp_path / "[x].jpg") == ["[x].jpg"]  # a file of that very name


def test_a_number_is_a_webcam_unless_a_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_inputs([Path("1")]).webcam == 1
    save_image(tmp_path / "a.jpg").rename("1")
    assert found(Path("1")) == ["1"]


def test_videos_and_images_apart(tmp_path: Path) -> None:
    for name in ("a.MP4", "b.webm"):
        (tmp_path / name).touch()
    assert [p.name for p in find_inputs([tmp_path / "a.MP4", tmp_path / "b.webm"]).videos] == ["a.MP4", "b.webm"]
    assert {"mp4", "avi", "mov", "mkv", "webm", "m4v"} < set(VIDEO_EXTENSIONS)
    with pytest.raises(InputError, match=r"c.jpg is an image and .*a.MP4 a video; predict images and videos apart"):
        find_inputs([tmp_path / "a.MP4", save_image(tmp_path / "c.jpg")])


def test_a_mistyped_path_is_answered_with_the_nearest(model: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "street.jpg")
    result = run("--image", tmp_path / "steet.jpg", "--model", model)
    assert result.exit_code == 1
    expected = f"Error: {tmp_path / 'steet.jpg'} does not exist; did you mean {tmp_path / 'street.jpg'}?"
    assert result.output.strip() == expected
    assert "does not exist; give an image" in run("--image", tmp_path / "no" / "x.jpg", "--model", model).output
    (tmp_path / "empty").mkdir()
    assert "holds no jpg, jpeg, png, bmp, webp, tif, tiff, ppm, pgm image" in run("--image", tmp_path / "empty", "--model", model).output
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "is neither a file nor a folder" in run("--image", pipe, "--model", model).output


def test_a_pattern_that_the_shell_has_resolved(model: Path, tmp_path: Path) -> None:
    files = [save_image(tmp_path / f"{n}.jpg", n) for n in range(3)]
    result = run("--image", *files, "--model", model)
    assert result.exit_code == 0, result.output
    assert f"3 of 3 images predicted into {tmp_path}" in result.output


def oriented(path: Path, image: Image.Image, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 60), np.uint8)
    upright[:10, :20] = 250  # top left
    upright[:10, 50:] = 120  # top right
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    path = oriented(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), orientation)
    assert np.array_equal(np.asarray(read_image(path))[..., 0], upright)


def test_kinds_of_images(tmp_path: Path) -> None:
    grey16 = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    grey = (grey16 >> 8).astype(np.uint8)
    colour = np.stack([grey, grey[::-1], grey.T], axis=-1)
    alpha = np.dstack([colour, np.full_like(grey, 9)])
    images = {
        "16.png": (Image.fromarray(grey16), grey), "32.tif": (Image.fromarray(grey16.astype(np.int32)), grey),
        "grey.png": (Image.fromarray(grey), grey), "rgba.png": (Image.fromarray(alpha), colour),
        "la.png": (Image.fromarray(alpha[..., 2:]), colour[..., 2]),
    }  # fmt: skip
    for name, (image, expected) in images.items():
        image.save(tmp_path / name)
        read = np.asarray(read_image(tmp_path / name))
        assert read.shape == (64, 64, 3), name
        assert np.array_equal(read, expected if expected.ndim == 3 else np.dstack([expected] * 3)), name
    palette = Image.fromarray(colour).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80" * 8)
    assert np.array_equal(np.asarray(read_image(tmp_path / "palette.png")), np.asarray(palette.convert("RGB")))
    Image.new("1", (64, 64), 1).save(tmp_path / "bits.png")
    assert np.asarray(read_image(tmp_path / "bits.png")).min() == 255
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "cmyk.jpg")).astype(int) - colour).mean() < 12


def test_a_folder_of_every_kind_good_and_bad(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 200), dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(rng.integers(0, 256, (90, 50, 4), dtype=np.uint8)).save(tmp_path / "rgba.png")
    Image.fromarray(rng.integers(0, 65536, (64, 96), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    oriented(tmp_path / "turned.jpg", Image.fromarray(rng.integers(0, 256, (40, 70, 3), dtype=np.uint8)), 6)
    save_image(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "cut.png").write_bytes((tmp_path / "deep.png").read_bytes()[:900])
    (tmp_path / "cut.jpg").rename(tmp_path / "half.jpg")
    (tmp_path / "empty.jpg").touch()
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    (tmp_path / "float.tif").rename(tmp_path / "float.png")
    result = run("--image", tmp_path, "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert f"6 of 10 images predicted into {tmp_path / 'out'}" in result.output
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 4
    for name, why in (("half.jpg", "is a damaged image"), ("cut.png", "is a damaged image"), ("float.png", "cannot be read as an image")):
        assert any(line.startswith(f"Error: {tmp_path / name} {why}") for line in errors), (name, errors)
    assert f"Error: {tmp_path / 'empty.jpg'} is empty (0 bytes); copy it again or leave it out" in errors
    stems = {"grey", "rgba", "deep", "pixel", "turned", "whole"}
    assert set(names(tmp_path / "out")) == {f"{stem}_disp.{kind}" for stem in stems for kind in ("npy", "jpeg")}
    assert Image.open(tmp_path / "out" / "turned_disp.jpeg").size == (40, 70)  # 70 wide as stored, 40 upright


def test_two_images_that_would_write_the_same_files_are_refused(model: Path, tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_image(tmp_path / name)
    result = run("--image", tmp_path / "b", "--model", model)
    assert result.exit_code == 1
    assert f"{tmp_path}/b/1.jpg and {tmp_path}/b/1.png would write the same files" in result.output
    assert "choose one kind with --ext" in result.output
    pattern = tmp_path / "*" / "*.jpg"
    joined = run("--image", pattern, "--model", model, "--out", tmp_path / "out")
    assert joined.exit_code == 1
    assert "leave out --out" in joined.output
    assert not (tmp_path / "out").exists()
    apart = run("--image", pattern, "--model", model)
    assert apart.exit_code == 0, apart.output
    assert "2 of 2 images predicted into 2 folders" in apart.output


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_predicted(model: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.jpg")
    for out in (image, image / "out", Path("/proc/nowhere")):
        result = run("--image", image, "--model", tmp_path / "not even looked at", "--out", out)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: cannot write into {out} (")
        assert "choose another folder with --out" in result.output
        assert result.output.count("\n") == 1
    with pytest.raises(InputError, match="cannot write into /proc"):  # exists, and even root makes no file there
        check_outputs([Path("/proc/a.jpg")], None)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder without any right; root, who has them all the same, is nobody meanwhile."""
    folder, root = tmp_path / "locked", os.geteuid() == 0
    folder.mkdir()
    folder.chmod(0)
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)


def test_without_permission(locked: Path) -> None:
    with pytest.raises(InputError, match=r"locked/a.jpg cannot be read \(Permission denied\); check its permissions"):
        find_inputs([locked / "a.jpg"])
    with pytest.raises(InputError, match=r"cannot write into .*locked/out \(Permission denied\); choose another folder with --out"):
        check_outputs([Path("a.jpg")], locked / "out")


def test_a_file_that_cannot_be_written_fails_its_own_image_only(model: Path, tmp_path: Path) -> None:
    for name in "abc":
        save_image(tmp_path / f"{name}.jpg")
    (tmp_path / "b_disp.npy").mkdir()
    result = run("--image", tmp_path, "--model", model)
    assert result.exit_code == 1
    assert "2 of 3 images predicted" in result.output
    assert f"Error: {tmp_path / 'b.jpg'}: its prediction cannot be written ({tmp_path / 'b_disp.npy'}: Is a directory)" in result.output
    assert names(tmp_path) == sorted([
        "a.jpg", "b.jpg", "c.jpg", "b_disp.npy", "a_disp.npy", "a_disp.jpeg", "c_disp.npy", "c_disp.jpeg",
    ])  # fmt: skip
