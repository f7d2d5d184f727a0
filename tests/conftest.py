"""Shared fixtures: where the shared reference data lies, small KITTI trees made on the spot, shape checks switched on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
# The rooms whose signatures carry shapes; the hook must be installed before they are imported.
SHAPE_CHECKED = ["engine.geometry", "engine.losses", "engine.metrics", "engine.networks"]
install_import_hook(SHAPE_CHECKED, "beartype.beartype")

# Without a GPU, Triton's kernels are run by its interpreter; it must be told before they are made.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A script's background job is started with Ctrl-C ignored, and so would be what the tests start to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing that a test makes is left in the user's cache folder, nor found there.
_cache = TemporaryDirectory(prefix="md-cache-")
os.environ["XDG_CACHE_HOME"] = _cache.name

DATE = "2011_09_26"


def shared_folder() -> Path:
    """Where the reference data would lie on this machine."""
    return Path(os.environ.get("MD_SHARED") or PROJECT.parent / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (real frames, golden numbers); skips where it is absent."""
    folder = shared_folder()
    if not (folder / "README.md").is_file():
        pytest.skip(f"no reference data at {folder} (set MD_SHARED to its folder)")
    return folder


def drive_folder(drive: str) -> str:
    """The folder field of a split line of this drive."""
    return f"{DATE}/{DATE}_drive_{drive}_sync"


def write_calibration(folder: Path, size_px: tuple[int, int]) -> None:
    """KITTI calibration files of a 90-degree-free, rectified pair with focal length 0.58 W and baseline 0.54 m."""
    height, width = size_px
    f, cx, cy = 0.58 * width, 0.5 * width, 0.5 * height
    p = {side: f"{f} 0 {cx} {-f * x} 0 {f} {cy} 0 0 0 1 0" for side, x in (("02", 0.0), ("03", 0.54))}
    lines = [f"S_rect_{c}: {width} {height}" for c in ("02", "03")]
    lines += ["R_rect_00: 1 0 0 0 1 0 0 0 1"] + [f"P_rect_{c}: {p[c]}" for c in ("02", "03")]
    (folder / "calib_cam_to_cam.txt").write_text("calib_time: 09-Jan-2012 13:57:47\n" + "\n".join(lines) + "\n")
    (folder / "calib_velo_to_cam.txt").write_text("calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")


@pytest.fixture(scope="session")
def kitti_tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Factory of small KITTI raw trees with split folder ``<root>/split``: smooth moving patterns, calibration, velodyne scans."""

    def make(*, drives: tuple[str, ...] = ("0001",), frames: int = 6, size_px: tuple[int, int] = (75, 248), ext: str = ".jpg") -> Path:
        root = tmp_path_factory.mktemp("kitti")
        rng = np.random.default_rng(0)
        height, width = size_px
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        lines = []
        for number, drive in enumerate(drives):
            for camera, shift in (("image_02", 0), ("image_03", 4)):
                folder = root / drive_folder(drive) / camera / "data"
                folder.mkdir(parents=True)
                for index in range(frames):
                    phase = x + 3 * index + shift + 11 * number
                    channels = [127 + 100 * np.sin(phase / (7 + c)) * np.cos(y / (5 + c)) for c in range(3)]
                    image = Image.fromarray(np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8))
                    image.save(folder / f"{index:010d}{ext}", **({"quality": 92} if ext == ".jpg" else {}))
            scans = root / drive_folder(drive) / "velodyne_points" / "data"
            scans.mkdir(parents=True)
            for index in range(frames):
                points = rng.uniform([2, -8, -2, 0], [60, 8, 1, 1], size=(4000, 4)).astype(np.float32)
                points.tofile(scans / f"{index:010d}.bin")
            lines += [f"{drive_folder(drive)} {i} {side}" for i in range(1, frames - 1) for side in "lr"]
        write_calibration(root / DATE, size_px)
        (root / "split").mkdir()
        for subset in ("train", "val", "test"):
            (root / "split" / f"{subset}_files.txt").write_text("\n".join(lines) + "\n")
        return root

    return make
