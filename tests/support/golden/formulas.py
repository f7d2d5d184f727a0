"""The published implementation's numbers, and the images, weights and batches that they were computed from."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dataload.batch import Batch

NUM_LEVELS = 4
NOMINAL_K = ((0.58, 0.0, 0.5), (0.0, 1.92, 0.5), (0.0, 0.0, 1.0))
DATE = "2011_09_26"


def formula_numbers() -> dict[str, Any]:
    """The published implementation's numbers on images made by formula, in fp32 on a CPU, without tie-break noise."""
    return dict(json.loads(Path(__file__).with_name("functions.json").read_text()))


def real_numbers(shared: Path) -> dict[str, Any]:
    """Its numbers on real frames of KITTI."""
    return dict(json.loads((shared / "golden" / "upstream.json").read_text()))


def image(batch: int, channels: int, height_px: int, width_px: int, phase: float) -> Tensor:
    """0.5 + 0.5 sin(0.37 (x + 1)(1 + 0.1 c) + 0.23 y + 0.9 b + phase), fp32 (B, C, H, W)."""
    b, c, y, x = np.ogrid[0:batch, 0:channels, 0:height_px, 0:width_px]
    values = 0.5 + 0.5 * np.sin(0.37 * (x + 1) * (1 + 0.1 * c) + 0.23 * y + 0.9 * b + phase)
    return torch.from_numpy(values.astype(np.float32))


def nominal_K(batch: int, height_px: int, width_px: int) -> Tensor:
    """KITTI's nominal intrinsics in pixels of that size, (B, 3, 3)."""
    K = torch.tensor(NOMINAL_K)
    K[0] *= width_px
    K[1] *= height_px
    return K.expand(batch, 3, 3)


def stereo_transforms(*translations_x: float) -> Tensor:
    """Pure shifts along x, (B, 4, 4)."""
    T = torch.eye(4).repeat(len(translations_x), 1, 1)
    T[:, 0, 3] = torch.tensor(translations_x)
    return T


def fill_weights(module: nn.Module, name: str, seed: int) -> None:
    """Fill every tensor of ``module``'s state dict with pseudo-random values that depend on ``name``, key and ``seed`` alone."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            tensor.copy_(_values(f"{name}/{key}", tensor, seed) if tensor.is_floating_point() else torch.zeros_like(tensor))


def _values(path: str, tensor: Tensor, seed: int) -> Tensor:
    phase = (crc32(path.encode()) % 10007) / 10 + seed
    x = np.sin(12.9898 * np.arange(1, tensor.numel() + 1, dtype=np.float64) + phase) * 43758.5453
    u = 2 * (x - np.floor(x)) - 1
    if path.endswith("running_var"):
        values = 1 + 0.2 * u
    elif path.endswith("running_mean"):
        values = 0.1 * u
    elif tensor.dim() >= 2:
        values = u * np.sqrt(3 / (tensor.numel() / tensor.shape[0]))
    else:
        values = 1 + 0.2 * u if path.endswith("weight") else 0.1 * u
    return torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape)


def real_batch(shared: Path, *, frame_ids: tuple[int, ...], use_stereo: bool) -> Batch:
    """The two real samples of the reference numbers: pyramids by Pillow's LANCZOS, each level from the one before."""
    numbers = real_numbers(shared)
    width_px, height_px = numbers["size_wh"]
    frames: list[int | str] = [*frame_ids, *(["s"] if use_stereo else [])]
    levels = [
        torch.stack(level)
        for level in zip(*(_sample(shared, *case, frames, (width_px, height_px)) for case in numbers["cases"]), strict=True)
    ]
    temporal = len(frame_ids)
    return Batch(
        target=tuple(level[:, 0] for level in levels),
        sources=tuple(level[:, 1:] for level in levels),
        target_input=levels[0][:, 0],
        source_inputs=levels[0][:, 1:temporal],
        K=nominal_K(len(numbers["cases"]), height_px, width_px),
        T_stereo=stereo_transforms(*(-0.1 if camera == "02" else 0.1 for _, camera, _ in numbers["cases"])),
        indices=torch.arange(len(numbers["cases"])),
    )


def _sample(shared: Path, drive: str, camera: str, frame: int, frames: list[int | str], size_wh: tuple[int, int]) -> list[Tensor]:
    """One tensor per level, (frames, 3, h, w) uint8."""
    pyramids = []
    for offset in frames:
        folder = {"02": "03", "03": "02"}[camera] if offset == "s" else camera
        number = frame if offset == "s" else frame + int(offset)
        drive_folder = shared / "kitti" / "raw_jpg" / DATE / f"{DATE}_drive_{drive}_sync"
        with Image.open(drive_folder / f"image_{folder}" / "data" / f"{number:010d}.jpg") as file:
            level = file.convert("RGB")
        pyramid = []
        for s in range(NUM_LEVELS):
            level = level.resize((size_wh[0] >> s, size_wh[1] >> s), Image.Resampling.LANCZOS)
            pyramid.append(torch.from_numpy(np.array(level)).movedim(-1, 0))
        pyramids.append(pyramid)
    return [torch.stack(level) for level in zip(*pyramids, strict=True)]
