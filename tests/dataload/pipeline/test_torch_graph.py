"""The CPU's graph against Pillow and against the formula of jitter: decode, mirror, resize, pyramid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import pillow_loader

from dataload.config import DataConfig
from dataload.pipeline import decode
from dataload.pipeline.jitter import Factors, affine_colour
from dataload.pipeline.order import IDENTITY_DRAW, Draw
from dataload.pipeline.torch_graph import Images, empty_images, fill_sample

JITTERED = Draw(True, *affine_colour(Factors(1.15, 0.85, 1.2, 0.07, (3, 1, 0, 2))), True)
PLAIN = IDENTITY_DRAW
MIRRORED = IDENTITY_DRAW._replace(flip=True)


def config(**options) -> DataConfig:
    return DataConfig(**{"data_path": Path("unused"), "source_levels": 2, "batch_size": 4, **options})


@pytest.fixture(scope="module")
def triplets(shared) -> list[list[Path]]:
    """Real frames of three drives and two native sizes: a target and its two neighbours each."""
    root = shared / "kitti" / "raw_jpg"
    drives = ["2011_09_26/*_9001_*", "2011_09_26/*_0052_*", "2011_09_26/*_9002_*", "2011_09_28/*_9003_*"]
    frames = [sorted(root.glob(f"{drive}/image_02/data/*.jpg"))[:3] for drive in drives]
    return [[target, before, after] for before, target, after in frames]


def by_torch(samples, draws, options: DataConfig, *, training: bool) -> Images:
    frames = empty_images(options, len(samples), training=training)
    for row, (paths, draw) in enumerate(zip(samples, draws, strict=True)):
        loaded = [decode.load_frame(path, options.size_px) for path in paths]
        fill_sample(loaded, draw, frames.sample(row), training=training)
    return frames


def difference(a, b) -> np.ndarray:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


@pytest.mark.parametrize("size_px", [(192, 640), (96, 320)])
@pytest.mark.parametrize("draw", [PLAIN, MIRRORED])
def test_the_twin_is_within_a_level_of_pillow(triplets, size_px, draw) -> None:
    options = config(height_px=size_px[0], width_px=size_px[1], source_levels=4)
    frames = by_torch(triplets, [draw] * 4, options, training=False)
    for row, paths in enumerate(triplets):
        expected = [pillow_loader.pyramid(path, size_px=size_px, levels=4, flip=draw.flip) for path in paths]
        for level in range(4):
            found = [frames.target[level][row], *frames.sources[level][row]]
            off = difference(torch.stack(found), [frame[level] for frame in expected])
            # One level for each resize; those of a cascade seldom fall on the same pixel.
            assert off.max() <= (1 if level == 0 else 2)
            assert off.mean() < 0.05


def test_without_torch_lanczos_the_twin_is_pillow(triplets, monkeypatch) -> None:
    monkeypatch.setattr(decode, "RESIZER", "pillow")
    frames = by_torch(triplets[:1], [MIRRORED], config(), training=False)
    expected = pillow_loader.pyramid(triplets[0][0], size_px=(192, 640), levels=4, flip=True)
    assert all(np.array_equal(frames.target[level][0], expected[level]) for level in range(4))


def test_the_twin_jitters_as_the_affine_map_says(triplets) -> None:
    frames = by_torch(triplets[:1], [JITTERED], config(), training=True)
    for recorded, seen in [(frames.target[0][0], frames.target_input[0]), *zip(frames.sources[0][0], frames.source_inputs[0], strict=True)]:
        x = recorded.numpy().astype(np.float64)
        expected = x @ JITTERED.color.T + JITTERED.color_mean @ x.mean((0, 1))
        assert difference(seen, np.clip(np.rint(expected), 0, 255)).max() <= 1
