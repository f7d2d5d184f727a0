"""What the tests of md-predict share: a small model and image, the command, what it left."""

from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner, Result
from PIL import Image
from published import networks_of

from engine.weights import InputSize, save_weights
from export.commands.md_predict import md_predict

SIZE_PX = (64, 96)
ORIGINAL_PX = (75, 124)


def save_model(folder: Path, *, use_stereo: bool) -> Path:
    """A run folder of an untrained network."""
    torch.manual_seed(0)
    networks = networks_of(frame_ids=(0,), use_stereo=True)
    weights = folder / "models" / "weights_0"
    weights.parent.mkdir(parents=True)
    save_weights(weights, networks, InputSize(*SIZE_PX, use_stereo))
    return folder


def save_image(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    coarse.resize((ORIGINAL_PX[1], ORIGINAL_PX[0]), Image.Resampling.BICUBIC).save(path)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(md_predict, [*map(str, args), "--no_cuda"])


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
