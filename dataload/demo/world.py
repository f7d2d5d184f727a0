"""The demo world: a small rendered street in KITTI raw layout, with exact depth and poses; made once, in a cache folder.

Beside KITTI's own folders (image_02, image_03, velodyne_points) each drive holds ``depth_exact/image_02|03/%010d.png`` (16-bit, metres
times 256, 0 for sky) and ``poses.txt`` (a row of 12 numbers per frame: camera 2 to world, metres). The last drive but two is for
validation, the last two are for test.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dataload.demo import render as demo_render
from dataload.demo.scene import Scene
from dataload.demo.street import make_scene
from dataload.demo.textures import make_atlas
from dataload.system.console import console
from dataload.system.files import cache_folder, whole_folder
from dataload.system.interrupts import ignore_interrupts, without_interrupts
from dataload.system.locks import hold
from dataload.system.machine import usable_cores
from dataload.system.progress import progress_bar
from splits.errors import InputError
from splits.reading import read_json

if TYPE_CHECKING:
    from tqdm import tqdm

VERSION = 2  # change it with anything that changes the pictures: worlds of other versions are not used
DATE = "2000_01_01"
MARKER = "world.json"  # written last: a folder without it is no finished demo world
BASELINE_M = 0.54
JPEG_QUALITY = 92
DEPTH_PER_M = 256
CAMERAS = ("image_02", "image_03")
MAX_TEST_FRAMES = 25
FRAMES_PER_JOB = 6
# A further process takes a second to start, which pays from some dozens of frames on.
MIN_FRAMES_PER_PROCESS = 24


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size of a demo world; ``frames`` is per drive, and at width = 3.31 height the nominal intrinsics have square pixels."""

    height_px: int = 192
    width_px: int = 640
    drives: int = 16
    frames: int = 18
    seed: int = 10

    def __post_init__(self) -> None:
        if self.drives < 4:
            raise InputError(f"drives={self.drives} must be at least 4: the last three are for validation and test")
        if self.frames < 3:
            raise InputError(f"frames={self.frames} must be at least 3: a target needs a frame before and after it")

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.height_px, self.width_px


def default_folder() -> Path:
    """Where the demo world is kept: ``demo_world_v2`` in the cache folder."""
    return cache_folder() / f"demo_world_v{VERSION}"


def split_folder(folder: Path) -> Path:
    """The split lists of a demo world: ``{train,val,test}_files.txt``."""
    return folder / "splits" / "demo"


def drive_folder(drive: int) -> str:
    """The folder field of a split line; drives count from 1."""
    return f"{DATE}/{DATE}_drive_{drive:04d}_sync"


def exact_depth_path(folder: Path, drive: str, camera: str, frame_index: int) -> Path:
    """The exact depth of a frame; ``drive`` as in the split line, ``camera`` image_02 or image_03."""
    return folder / drive / "depth_exact" / camera / f"{frame_index:010d}.png"


def ensure(
    folder: Path | None = None,
    *,
    config: WorldConfig | None = None,
    remake: bool = False,
    progress: bool = True,
    processes: int | None = None,
) -> Path:
    """The demo world's folder, rendered first where there is none; the same bytes every time.

    It is rendered beside its place and renamed when complete, so a folder found there is whole. A second process that wants the same
    world waits for the first.

    Args:
        folder: where; ``default_folder()`` by default.
        config: how to make it; an existing world is used as it is.
        remake: render again even if it exists.
        progress: show a bar.
        processes: how many render; by default one per CPU, fewer where there is little to do.

    Raises:
        InputError: the folder holds something else, or a world of another version.
    """
    folder = Path(folder) if folder is not None else default_folder()
    if _is_ready(folder, remake=remake):
        return folder
    waiting = partial(console.info, "Demo world  another process is making %s; waiting", folder)
    with hold(folder, "", folder=True, waiting=waiting):
        if not _is_ready(folder, remake=remake):  # else another process made it meanwhile
            with whole_folder(folder) as temporary:
                _make(temporary, config or WorldConfig(), progress=progress, processes=processes)
    return folder


def _is_ready(folder: Path, *, remake: bool) -> bool:
    """Whether the world exists; ``InputError`` where the folder holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / MARKER
    if not marker.is_file():
        raise InputError(f"{folder} is there but is no demo world (it has no {MARKER}); name an empty or a new folder")
    remedy = "render it again: md-data demo --remake"
    said = {} if remake else read_json(marker, "what md-data demo writes", remedy)
    version = said.get("version") if isinstance(said, dict) else None
    if version != VERSION and not remake:
        raise InputError(f"{folder} holds a demo world of version {version}, not {VERSION}; {remedy}")
    return not remake


def _make(folder: Path, config: WorldConfig, *, progress: bool, processes: int | None) -> None:
    drives = range(1, config.drives + 1)
    for drive in drives:
        _make_drive_folder(folder, config, drive)
    _write_calibration(folder / DATE, config)
    _write_splits(split_folder(folder), config)
    jobs = [
        (drive, range(first, min(first + FRAMES_PER_JOB, config.frames)))
        for drive in drives
        for first in range(0, config.frames, FRAMES_PER_JOB)
    ]
    total = config.drives * config.frames
    if processes is None:
        processes = min(usable_cores(), total // MIN_FRAMES_PER_PROCESS)
    with progress_bar(total, "rendering the demo world", "frames", shown=progress, in_logs=True) as bar:
        if processes < 2:
            for drive, frames in jobs:
                bar.update(_render_frames(folder, config, drive, frames))
        else:
            _render_in_processes(folder, config, jobs, processes, bar)
    (folder / MARKER).write_text(json.dumps({"version": VERSION, **asdict(config)}, indent=1) + "\n", encoding="utf-8")


def _render_in_processes(folder: Path, config: WorldConfig, jobs: list[tuple[int, range]], processes: int, bar: tqdm[Any]) -> None:
    # Spawned, not forked: the parent may have threads (torch, DALI) that a fork would cut off.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=ignore_interrupts)
    try:
        with without_interrupts():
            started = [pool.submit(_render_frames, folder, config, drive, frames) for drive, frames in jobs]
        for done in as_completed(started):
            bar.update(done.result())
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=2)
def scene_of(config: WorldConfig, drive: int) -> Scene:
    """The street of a drive, drives counted from 1."""
    return make_scene(np.random.default_rng((config.seed, drive)), config.frames)


def camera_pose(scene: Scene, frame: int, camera: str) -> np.ndarray:
    """Camera to world (3, 4) float64; camera 3 stands ``BASELINE_M`` to the right of camera 2."""
    pose = scene.poses[frame].copy()
    if camera == CAMERAS[1]:
        pose[:, 3] += BASELINE_M * pose[:, 0]
    return pose


def _make_drive_folder(folder: Path, config: WorldConfig, drive: int) -> None:
    place = folder / drive_folder(drive)
    for camera in CAMERAS:
        (place / camera / "data").mkdir(parents=True)
        exact_depth_path(folder, drive_folder(drive), camera, 0).parent.mkdir(parents=True)
    (place / "velodyne_points" / "data").mkdir(parents=True)
    np.savetxt(place / "poses.txt", scene_of(config, drive).poses.reshape(-1, 12), fmt="%.9e")


def _render_frames(folder: Path, config: WorldConfig, drive: int, frames: range) -> int:
    """Write some frames of a drive, both cameras and the laser scan; returns how many."""
    scene, atlas = scene_of(config, drive), make_atlas()
    place = folder / drive_folder(drive)
    for frame in frames:
        for camera in CAMERAS:
            image, depth = demo_render.render(scene, atlas, camera_pose(scene, frame, camera), *config.size_px)
            Image.fromarray(image).save(place / camera / "data" / f"{frame:010d}.jpg", quality=JPEG_QUALITY)
            levels = np.rint(depth * DEPTH_PER_M).astype(np.uint16)
            Image.fromarray(levels).save(exact_depth_path(folder, drive_folder(drive), camera, frame), compress_level=3)
        demo_render.scan(scene, scene.poses[frame]).tofile(place / "velodyne_points" / "data" / f"{frame:010d}.bin")
    return len(frames)


def _write_calibration(folder: Path, config: WorldConfig) -> None:
    """KITTI's calibration files; the projections count pixels from 1, as KITTI's do, so that the published rule hits the right ones."""
    K = demo_render.intrinsics(*config.size_px)
    K[:2, 2] += 1
    time = "calib_time: 01-Jan-2000 00:00:00"
    lines = [time, f"R_rect_00: {_row(np.eye(3))}"]
    for camera, x in (("02", 0.0), ("03", BASELINE_M)):
        projection = K @ np.column_stack([np.eye(3), [-x, 0, 0]])
        lines += [f"S_rect_{camera}: {_row(np.array([config.width_px, config.height_px]))}"]
        lines += [f"R_rect_{camera}: {_row(np.eye(3))}", f"P_rect_{camera}: {_row(projection)}"]
    (folder / "calib_cam_to_cam.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [time, f"R: {_row(demo_render.AXES_VELO_TO_CAM)}", f"T: {_row(demo_render.T_VELO_TO_CAM)}"]
    (folder / "calib_velo_to_cam.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:.6e}" for value in values.ravel())


def _write_splits(folder: Path, config: WorldConfig) -> None:
    """Frames with both neighbours: of the first drives from both cameras, of the others from the left one, spaced out for the test."""
    inner = range(1, config.frames - 1)
    train, val, test = range(1, config.drives - 2), (config.drives - 2,), (config.drives - 1, config.drives)
    lists = {
        "train": [f"{drive_folder(drive)} {i} {side}" for drive in train for i in inner for side in "lr"],
        "val": [f"{drive_folder(drive)} {i} l" for drive in val for i in inner],
        "test": _space_out([f"{drive_folder(drive)} {i} l" for drive in test for i in inner], MAX_TEST_FRAMES),
    }
    folder.mkdir(parents=True)
    for subset, lines in lists.items():
        (folder / f"{subset}_files.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _space_out(lines: list[str], most: int) -> list[str]:
    return [lines[i * len(lines) // most] for i in range(most)] if len(lines) > most else lines
