"""Shared fixtures: the reference data, small KITTI trees made on the spot, the wheel; shape checks switched on."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from kitti_tree import DATE, drive_folder, write_calibration
from PIL import Image
from places import PROJECT, ROOMS, shared_folder

from dataload.system.machine import available_memory_bytes, usable_cores

# The modules whose signatures carry shapes; the hook must be installed before they are imported. It takes any name, so a stale one
# would switch the checks off unnoticed.
SHAPE_CHECKED = ["engine.geometry", "engine.loss.terms", "engine.evaluation.metrics", "engine.networks"]
HAS_BEARTYPE = find_spec("beartype") is not None
if HAS_BEARTYPE:  # not where a GPU is lent with the packages that it has
    install_import_hook(SHAPE_CHECKED, "beartype.beartype")
for _name in SHAPE_CHECKED:
    assert find_spec(_name), f"there is no module {_name}"

# As many tests run at once as there are cores, so each takes one thread, and so does what it starts: threads of several processes that wait
# for each other on the same cores take ten times as long. An example takes as long as the others leave it.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# A run that nohup or a service started ignores a closed terminal, and so would all that tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.register_profile("beside others", deadline=None)
settings.load_profile("beside others")

# Without a GPU, Triton's kernels are run by its interpreter; it must be set before they are made.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A script's background job is started with Ctrl-C ignored, and so would be what the tests start to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing that a test makes is left in the user's cache folder, nor found there.
_cache = TemporaryDirectory(prefix="md-cache-")
os.environ["XDG_CACHE_HOME"] = _cache.name


def pytest_report_header() -> str | None:
    """A line where shapes are not checked."""
    return None if HAS_BEARTYPE else "shapes are not checked: beartype is not installed"


# What a process that runs a share of the tests has taken at its end.
WORKER_BYTES = 3 * 2**30


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_auto_num_workers() -> int:
    """As many as there are cores and memory for."""
    return max(1, min(usable_cores(), available_memory_bytes() // WORKER_BYTES))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (real frames, golden numbers); skips where it is absent."""
    folder = shared_folder()
    if not (folder / "README.md").is_file():
        pytest.skip(f"no reference data at {folder} (set MD_SHARED to its folder)")
    return folder


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


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the project's wheel is unpacked in."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    wanted = ("LICENSE", "README.md", "pyproject.toml", "setup.py")
    source.mkdir()
    for name in wanted:
        (source / name).write_bytes((PROJECT / name).read_bytes())
    for room in ROOMS:
        # Without what other processes are just now writing there.
        shutil.copytree(PROJECT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(out.glob("*.whl"))
    target = out / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target
