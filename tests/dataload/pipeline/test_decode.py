"""What resizes on this machine, and that all that may do so agree; damaged and odd files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from places import PROJECT

from dataload.frames.picture import read_picture
from dataload.pipeline import decode
from dataload.pipeline.decode import TORCH_HAS_LANCZOS, load_frame, resize, resizer
from splits.errors import InputError


@pytest.mark.parametrize("version", [PIL.__version__, "0.1"])
def test_pillow_simd_resizes_where_torch_cannot_and_it_has_taken_pillows_place(tmp_path: Path, version: str) -> None:
    metadata = tmp_path / "pillow_simd-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pillow-simd\nVersion: {version}\n")
    program = "from dataload.pipeline import decode; print(decode.resizer()); decode.TORCH_HAS_LANCZOS = False; print(decode.resizer())"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])}
    done = subprocess.run([sys.executable, "-c", program], env=here, capture_output=True, text=True, check=True)
    without = "pillow-simd" if version == PIL.__version__ else "pillow"
    assert done.stdout.split() == ["torch" if TORCH_HAS_LANCZOS else without, without]


def test_every_resizer_is_within_a_level_of_pillow(shared, monkeypatch) -> None:
    path = sorted((shared / "kitti" / "raw_jpg").glob("*/*/image_02/data/*.jpg"))[0]
    expected = np.asarray(Image.open(path).convert("RGB").resize((640, 192), Image.Resampling.LANCZOS)).astype(int)
    for name in {resizer(), "pillow", *(["torch"] if TORCH_HAS_LANCZOS else [])}:
        monkeypatch.setattr(decode, "RESIZER", name)
        found = load_frame(path, (192, 640)).numpy().astype(int)
        assert np.abs(found - expected).max() <= (0 if name == "pillow" else 1), name


def test_a_frame_lies_in_memory_as_it_is_kept() -> None:
    assert resize(torch.zeros(40, 60, 3, dtype=torch.uint8), (32, 64)).is_contiguous()


def test_png_grey_and_cmyk_files_are_read(tmp_path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png"), rgb)
    Image.fromarray(rgb).convert("L").save(tmp_path / "grey.jpg")
    grey = read_picture(tmp_path / "grey.jpg")
    assert grey.shape == (20, 30, 3)
    assert np.ptp(grey, axis=2).max() == 0
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_picture(tmp_path / "cmyk.jpg").shape == (20, 30, 3)


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_file_is_named(tmp_path, damage) -> None:
    path = tmp_path / "bad.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"not an image"}[damage])
    with pytest.raises(InputError, match=r"bad\.jpg is a damaged image .*; restore the file"):
        read_picture(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.jpg \(No such file"):
        read_picture(tmp_path / "none.jpg")
