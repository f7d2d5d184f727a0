"""Every format that md-predict writes, at the command line and value by value."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from predicting import ORIGINAL_PX, names, run, save_image, save_model

from engine import pictures
from engine.resample import resize
from export.choices import COLORMAPS, ENDINGS, FORMATS, OutputConfig
from export.prediction.depth import Depth
from export.prediction.writers import WRITERS, write_prediction

INTRINSICS = (100.0, 110.0, 60.0, 30.0)


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stereo"), use_stereo=True)


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("mono"), use_stereo=False)


def read_ply(path: Path) -> tuple[list[str], np.ndarray]:
    """Header lines and points of a binary point cloud, read by its header as any program would."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    types = {"float": "<f4", "uchar": "u1"}
    fields = [(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property ")]
    return lines, np.frombuffer(body, fields)


def test_the_light_names_are_the_real_ones() -> None:
    assert COLORMAPS == pictures.COLORMAPS
    assert set(COLORMAPS) <= set(matplotlib.colormaps)
    assert tuple(WRITERS) == FORMATS == tuple(ENDINGS)


def test_all_formats_of_one_image(stereo: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    out = tmp_path / "out"
    result = run("--image", image, "--model", stereo, "--out", out, "--format", *FORMATS, "--intrinsics", *INTRINSICS)
    assert result.exit_code == 0, result.output
    assert names(out) == ["a.ply", "a_depth.png", "a_disp.jpeg", "a_disp.npy", "a_disp.png"]
    depth_m = 5.4 / resize(np.load(out / "a_disp.npy")[0, 0], ORIGINAL_PX)

    opened = Image.open(out / "a_depth.png")
    assert (out / "a_depth.png").read_bytes()[24] == 16  # bits per pixel, which Pillow's name of the mode does not always say
    depth16 = np.asarray(opened)
    np.testing.assert_allclose(depth16 / 256, depth_m, atol=0.5 / 256 + 1e-5)

    header, cloud = read_ply(out / "a.ply")
    assert header[:4] == [
        "ply", "format binary_little_endian 1.0", "comment camera axes: x right, y down, z ahead", "comment unit: metres",
    ]  # fmt: skip
    assert f"element vertex {depth_m.size}" in header
    assert "own unit" not in result.output
    pixels = np.asarray(Image.open(image)).reshape(-1, 3)
    assert np.array_equal(np.stack([cloud[c] for c in ("red", "green", "blue")], -1), pixels)
    fx, fy, cx, cy = INTRINSICS
    v, u = np.divmod(np.arange(depth_m.size), ORIGINAL_PX[1])
    np.testing.assert_allclose(cloud["z"], depth_m.ravel(), rtol=1e-5)
    np.testing.assert_allclose(cloud["x"] / cloud["z"] * fx + cx, u, atol=1e-3)  # projects back to its pixel
    np.testing.assert_allclose(cloud["y"] / cloud["z"] * fy + cy, v, atol=1e-3)


def test_point_cloud_of_a_mono_model_is_in_its_own_unit_and_says_so_once(mono: Path, tmp_path: Path) -> None:
    for number in range(3):
        save_image(tmp_path / f"{number}.jpg", number)
    result = run("--image", tmp_path, "--model", mono, "--format", "ply,npy", "--intrinsics", *INTRINSICS)
    assert result.exit_code == 0, result.output
    assert result.output.count("the network's own unit") == 1
    header, cloud = read_ply(tmp_path / "1.ply")
    assert "comment unit: the network's own (mono: the scale is unknown)" in header
    np.testing.assert_allclose(cloud["z"], 1 / resize(np.load(tmp_path / "1_disp.npy")[0, 0], ORIGINAL_PX).ravel(), rtol=1e-5)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_colormaps(stereo: Path, tmp_path: Path, colormap: str) -> None:
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", stereo, "--format", "png", "--colormap", colormap)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["a.jpg", "a_disp.png"]
    picture = np.asarray(Image.open(tmp_path / "a_disp.png")).reshape(-1, 3)
    table = matplotlib.colormaps[colormap](np.arange(256), bytes=True)[:, :3]
    assert set(map(tuple, picture)) <= set(map(tuple, table))
    assert len(np.unique(picture, axis=0)) > 20


def test_16_bit_depth_rounds_saturates_and_keeps_zero_for_unknown(tmp_path: Path) -> None:
    depth_m = np.array([[0.0001, 0.0059, 1.0, 100.003], [255.998, 256.0, 300.0, 1e9]], np.float32)
    depth = Depth(5.4 / depth_m, (2, 4), 5.4, np.zeros((2, 4, 3), np.uint8))
    write_prediction(depth, tmp_path / "a.jpg", OutputConfig(formats=("png16",)))
    values = np.asarray(Image.open(tmp_path / "a_depth.png"))
    assert values.tolist() == [[1, 2, 256, 25601], [65535, 65535, 65535, 65535]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "plx"], "--format plx is unknown; did you mean ply?"),
        (["--format", "npy", "exr"], "--format exr is unknown; choose from npy, png16, jpeg, png, ply"),
        (["--format", ""], "--format names no format"),
        (["--format", "ply"], "--format ply needs --intrinsics FX FY CX CY"),
        (["--intrinsics", "1", "1", "0", "0"], "--intrinsics is for point clouds; add --format ply"),
        (["--format", "ply", "--intrinsics", "0", "1", "0", "0"], "--intrinsics 0 1 0 0: all must be finite"),
        (["--format", "ply", "--intrinsics", "1", "1", "nan", "0"], "--intrinsics 1 1 nan 0: all must be finite"),
        (["--format", "ply", "--intrinsics", "1", "1", "0"], "is not a valid float"),
        (["--colormap", "jet"], "'jet' is not one of"),
    ],
)
def test_wrong_usage_exits_2(tmp_path: Path, args: list[str], message: str) -> None:
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", "none", *args)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert names(tmp_path) == ["a.jpg"]
