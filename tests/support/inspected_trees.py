"""Small datasets to inspect: a camera that moves along a textured wall, with calibration, depth and the other camera where wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataload.check.inspection import inspect
from dataload.check.report import Report
from dataload.config import DataConfig
from dataload.frames.calibration import LEFT, RIGHT, Calibration, Intrinsics, write_calibration

SIZE_PX = (96, 320)
STEP_PX = 5
STAMP = 1_600_000_000_000_000_000


def wall(width: int, height: int, seed: int = 0) -> Image.Image:
    """A long picture without repetition, with details of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (height // k + 1, width // k + 1, 3), dtype=np.uint8)).resize((width, height)), np.float32
        )
        for k in (4, 12, 40)
    ]
    return Image.fromarray((sum(layers) / len(layers)).astype(np.uint8))


def write_frames(folder: Path, names: list[str], *, size_px: tuple[int, int] = SIZE_PX, offset: int = 0, seed: int = 0) -> None:
    """Frames of a moving camera; ``offset`` moves it further to the right."""
    height, width = size_px
    picture = wall(width + STEP_PX * len(names) + 64, height, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        x = STEP_PX * place + offset
        picture.crop((x, 0, x + width, height)).save(folder / name, quality=92)


def write_depth(folder: Path, names: list[str], metres: float, *, scale: float = 256, size_px: tuple[int, int] = SIZE_PX) -> None:
    """Depth PNGs that slope gently around so many metres."""
    folder.mkdir(parents=True, exist_ok=True)
    slope = np.linspace(0.8, 1.2, size_px[1])[None].repeat(size_px[0], 0)
    for name in names:
        Image.fromarray((slope * metres * scale).astype(np.uint16)).save(folder / f"{Path(name).stem}.png")


def write_camera(
    folder: Path, *, size_px: tuple[int, int] = SIZE_PX, baseline_m: float | None = None, scale: float | None = None, **changed: float
) -> None:
    """A plausible camera for images of that size, with what is to be different."""
    height, width = size_px
    numbers = {"fx_px": 0.6 * width, "fy_px": 0.6 * width, "cx_px": (width - 1) / 2, "cy_px": (height - 1) / 2} | changed
    camera = Intrinsics(**numbers, width_px=width, height_px=height)
    cameras = {LEFT: camera} | ({RIGHT: camera} if baseline_m else {})
    folder.mkdir(parents=True, exist_ok=True)
    write_calibration(folder / "calibration.yaml", Calibration(cameras=cameras, baseline_m=baseline_m, depth_scale=scale))


def folder_tree(root: Path, sequences: Mapping[str, int], *, size_px: tuple[int, int] = SIZE_PX) -> Path:
    """A ``folder`` dataset: so many frames in each sequence, one camera for all."""
    for seed, (name, frames) in enumerate(sequences.items()):
        write_frames(root / name, [f"{index:04d}.jpg" for index in range(frames)], size_px=size_px, seed=seed)
    write_camera(root, size_px=size_px)
    return root


def evo_tree(root: Path, sequence: str, seconds: list[float]) -> Path:
    """An ``evo`` dataset of one sequence with frames at those times, and depth of them all."""
    names = [f"{sequence}_{STAMP + round(1e9 * second)}.jpg" for second in seconds]
    write_frames(root / sequence / "front_rgb_left", names)
    write_depth(root / sequence / "front_depth_left", names, 12)
    write_camera(root / sequence)
    return root


def write_lists(folder: Path, **lists: list[str]) -> Path:
    """A split folder with these lists."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (folder / f"{name}_files.txt").write_text("\n".join(lines) + "\n")
    return folder


def inspected(root: Path, split: Path | None = None, *, dataset: str = "folder", sheet: Path | None = None, **options: Any) -> Report:
    """The report on a dataset, or one split of it; ``options`` as in ``DataConfig``."""
    options = {"height_px": SIZE_PX[0], "width_px": SIZE_PX[1]} | options
    return inspect(DataConfig(data_path=root, dataset=dataset, **options), None if split is None else str(split), sheet=sheet)
