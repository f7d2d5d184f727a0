"""What the tests of md-eval share: a call of the command on a small tree, predictions by formula, the truth they are scored on."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from published import networks_of

from dataload.datasets.kitti import KittiRaw
from dataload.frames.frame_ref import FrameRef, parse_split
from dataload.frames.sparse_depth import SparseDepth
from engine.commands.md_eval import md_eval
from engine.weights import InputSize, save_weights

SIZE_PX = (64, 96)


def save_untrained(folder: Path) -> Path:
    """The weights folder ``models/weights_3`` of an untrained network, below ``folder``."""
    torch.manual_seed(0)
    weights = folder / "models" / "weights_3"
    weights.parent.mkdir()
    save_weights(weights, networks_of(frame_ids=(0,), use_stereo=True), InputSize(*SIZE_PX, True))
    return weights


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run"))


def save_server_images(root: Path) -> Path:
    """The depth benchmark's folder of anonymous images below ``root``: all 500 of its list."""
    folder = root / "test_depth_prediction_anonymous" / "image"
    folder.mkdir(parents=True)
    for number in range(500):
        if number < 3:
            Image.fromarray(np.full((75, 248, 3), 50 * number, np.uint8)).save(folder / f"{number:010d}.png")
        else:
            (folder / f"{number:010d}.png").symlink_to(folder / f"{number % 3:010d}.png")
    return root


@pytest.fixture
def server_images(tmp_path: Path) -> Path:
    return save_server_images(tmp_path)


def options_of(tree: Path, *args: object) -> list[str]:
    """md-eval's options for a small tree, then ``args``."""
    fixed = ["--data_path", tree, "--eval_split", tree / "split", "--no_cuda", "--loader", "torch"]
    return [str(arg) for arg in (*fixed, *args)]


def run(tree: Path, *args: object) -> Result:
    return CliRunner().invoke(md_eval, options_of(tree, *args))


def refs_of(tree: Path) -> tuple[FrameRef, ...]:
    return parse_split((tree / "split" / "test_files.txt").read_text().splitlines(), source="test")


def truths_of(tree: Path) -> list[SparseDepth]:
    return [SparseDepth.of(KittiRaw(tree, ".jpg").eval_depth_m(ref)) for ref in refs_of(tree)]


def ext_disp(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def model_of(path: Path) -> dict:
    """The scores of the one model in a file of scores."""
    (model,) = json.loads(path.read_text())["models"]
    return model


def formula(count: int) -> np.ndarray:
    i, y, x = np.ogrid[0:count, 0:20, 0:50]
    return (0.02 + 0.2 * (y / 20) ** 2 + 0.01 * np.sin(0.3 * x + i) ** 2).astype(np.float32)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of weights is read from now on, by its name."""
    reads: Counter[str] = Counter()
    load = torch.load

    def counting(path: Path, **options: Any) -> Any:
        reads[path.name] += 1
        return load(path, **options)

    monkeypatch.setattr(torch, "load", counting)
    return reads
