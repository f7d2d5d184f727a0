"""Depth as people save it: formats, values that are no distance, files that are none, and units that nobody has said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataload.check.inspection import inspect
from dataload.config import DataConfig
from dataload.datasets.folder import Folder
from dataload.frames.calibration import FILE_NAME
from dataload.frames.depth_file import read_depth_values
from splits.errors import InputError

HEIGHT_PX, WIDTH_PX = 64, 96
CALIBRATION = """image_width: 96
image_height: 64
camera_name: cam
camera_matrix: {rows: 3, cols: 3, data: [90.0, 0, 47.5, 0, 90.0, 31.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
"""
DEPTH_M = np.linspace(2, 12, HEIGHT_PX * WIDTH_PX).reshape(HEIGHT_PX, WIDTH_PX)
WRITERS: dict[str, Callable[[Path], None]] = {
    "uint16.png": lambda path: Image.fromarray((DEPTH_M * 256).astype(np.uint16)).save(path),
    "uint16.tif": lambda path: Image.fromarray((DEPTH_M * 256).astype(np.uint16)).save(path),
    "float32.tiff": lambda path: Image.fromarray(DEPTH_M.astype(np.float32)).save(path),
    "float32.npy": lambda path: np.save(path, DEPTH_M.astype(np.float32)),
    "float64.npy": lambda path: np.save(path, DEPTH_M),
    "float16.npy": lambda path: np.save(path, DEPTH_M.astype(np.float16)),
    "one_channel.npy": lambda path: np.save(path, DEPTH_M[None]),
    "uint16.npy": lambda path: np.save(path, (DEPTH_M * 256).astype(np.uint16)),
}


def make_sequence(root: Path, write: Callable[[Path], None], suffix: str) -> Folder:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (HEIGHT_PX, WIDTH_PX + 60, 3), dtype=np.uint8)
    (root / "seq" / "depth").mkdir(parents=True)
    (root / FILE_NAME).write_text(CALIBRATION)
    for number in range(6):
        Image.fromarray(picture[:, 6 * number : 6 * number + WIDTH_PX]).save(root / "seq" / f"{number:03d}.png")
        write(root / "seq" / "depth" / f"{number:03d}{suffix}")
    return Folder(root)


def problems(root: Path, **options: float) -> str:
    config = DataConfig(data_path=root, dataset="folder", height_px=64, width_px=96, **options)
    return " ".join(inspect(config, None).problems)


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gives_the_same_metres(tmp_path: Path, name: str) -> None:
    dataset = make_sequence(tmp_path, WRITERS[name], Path(name).suffix)
    depth_m = dataset.depth_m(dataset.all_refs()[0])
    assert depth_m is not None
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, DEPTH_M, rtol=2e-3)


def test_what_is_no_distance_is_no_measurement(tmp_path: Path) -> None:
    values = DEPTH_M.astype(np.float32)
    values[0, :4] = np.nan, np.inf, -np.inf, -1
    dataset = make_sequence(tmp_path, lambda path: np.save(path, values), ".npy")
    ref = dataset.all_refs()[0]
    depth_m = dataset.depth_m(ref)
    assert depth_m is not None
    np.testing.assert_array_equal(depth_m[0, :5] > 0, [False, False, False, False, True])
    assert dataset.eval_sparse_depth(ref).values_m.size == values.size - 4


def test_a_scale_that_is_given_holds_for_floats_too(tmp_path: Path) -> None:
    make_sequence(tmp_path, lambda path: np.save(path, (1000 * DEPTH_M).astype(np.float32)), ".npy")
    dataset = Folder(tmp_path, depth_scale=1000.0)
    depth_m = dataset.depth_m(dataset.all_refs()[0])
    np.testing.assert_allclose(depth_m, DEPTH_M, rtol=1e-5)


def test_integers_whose_unit_nobody_says_are_a_problem_of_the_check(tmp_path: Path) -> None:
    make_sequence(tmp_path, lambda path: Image.fromarray((1000 * DEPTH_M).astype(np.uint16)).save(path), ".png")
    assert "read as 1/256 m they are 7.81 to 46.9 m, as millimetres 2 to 12 m" in problems(tmp_path)
    assert problems(tmp_path, depth_scale=1000.0) == ""
    (tmp_path / FILE_NAME).write_text(CALIBRATION + "depth: {scale: 1000}\n")
    assert problems(tmp_path) == ""


def test_floats_are_metres(tmp_path: Path) -> None:
    make_sequence(tmp_path, WRITERS["float32.npy"], ".npy")
    assert problems(tmp_path) == ""


@pytest.mark.parametrize("suffix", [".exr", ".pfm", "_depth.png"])
def test_files_beside_the_frames_names_or_in_other_formats_are_told(tmp_path: Path, suffix: str) -> None:
    make_sequence(tmp_path, lambda path: path.write_bytes(b"anything"), suffix)
    assert f"seq/depth holds 6 files as 000{suffix}" in problems(tmp_path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: np.save(path, np.zeros((4, 5, 3), np.float32)),
        lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
        lambda path: np.save(path, np.array([["a"]])),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 900000), }"),
        lambda path: path.write_bytes(b""),
    ],
)
def test_what_is_no_map_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "depth.npy")
    with pytest.raises(InputError, match=r"depth\.npy"):
        read_depth_values(tmp_path / "depth.npy")
