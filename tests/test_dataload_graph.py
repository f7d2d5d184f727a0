"""Both graphs against each other and against Pillow: decode, mirror, resize, pyramid, jitter."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference import pillow_loader

from dataload import torch_graph
from dataload.config import DataConfig
from dataload.jitter import Factors, affine_colour
from dataload.order import IDENTITY_DRAW, Draw
from dataload.torch_graph import Frames, empty_frames, fill_sample
from splits.errors import InputError

HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

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


@pytest.fixture(scope="module")
def small(kitti_tree) -> list[list[Path]]:
    """Frames that must grow in both directions."""
    paths = sorted(kitti_tree().glob("*/*/image_02/data/*.jpg"))
    return [paths[i : i + 3] for i in range(4)]


def by_torch(samples, draws, options: DataConfig, *, training: bool) -> Frames:
    frames = empty_frames(options, len(samples), training=training)
    for row, (paths, draw) in enumerate(zip(samples, draws, strict=True)):
        fill_sample(paths, draw, frames.sample(row), training=training)
    return frames


def by_dali(samples, draws, options: DataConfig, *, training: bool, device_id: int | None = None) -> list[torch.Tensor]:
    """The outputs of the graph for one batch."""
    from dataload.graph import build_pipeline

    def feed() -> Iterator[list]:
        yield from ([np.frombuffer(str(paths[i]).encode(), np.uint8) for paths in samples] for i in range(len(samples[0])))
        if training:
            yield from ([np.int32(d.flip) for d in draws], [np.bool_(d.jitter) for d in draws])
            yield from ([d.color for d in draws], [d.color_mean for d in draws])

    pipeline = build_pipeline(lambda: tuple(feed()), options, training=training, device_id=device_id, num_threads=1)
    return [torch.from_dlpack(output.as_tensor()).cpu() for output in pipeline.run()]


def difference(a, b) -> np.ndarray:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


def outputs(frames: Frames, *, training: bool) -> list[torch.Tensor]:
    """In the order of the DALI graph's outputs."""
    return [*frames.target, *frames.sources, *([frames.target_input, frames.source_inputs] if training else [])]


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
    monkeypatch.setattr(torch_graph, "TORCH_HAS_LANCZOS", False)
    frames = by_torch(triplets[:1], [MIRRORED], config(), training=False)
    expected = pillow_loader.pyramid(triplets[0][0], size_px=(192, 640), levels=4, flip=True)
    assert all(np.array_equal(frames.target[level][0], expected[level]) for level in range(4))


def test_the_twin_jitters_as_the_affine_map_says(triplets) -> None:
    frames = by_torch(triplets[:1], [JITTERED], config(), training=True)
    for recorded, seen in [(frames.target[0][0], frames.target_input[0]), *zip(frames.sources[0][0], frames.source_inputs[0], strict=True)]:
        x = recorded.numpy().astype(np.float64)
        expected = x @ JITTERED.color.T + JITTERED.color_mean @ x.mean((0, 1))
        assert difference(seen, np.clip(np.rint(expected), 0, 255)).max() <= 1


@needs_dali
@pytest.mark.parametrize("size_px", [(192, 640), (128, 416)])
def test_the_graph_is_within_two_levels_of_the_twin(triplets, size_px) -> None:
    options = config(height_px=size_px[0], width_px=size_px[1])
    draws = [PLAIN, MIRRORED, PLAIN, MIRRORED]
    expected = outputs(by_torch(triplets, draws, options, training=True), training=True)
    found = by_dali(triplets, draws, options, training=True)
    assert [a.shape for a in found] == [b.shape for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert difference(a, b).max() <= 2
        assert difference(a, b).mean() < 0.06


@needs_dali
def test_jittered_frames_agree_on_average(triplets) -> None:
    draws = [JITTERED, MIRRORED, JITTERED._replace(flip=False), PLAIN]
    expected = outputs(by_torch(triplets, draws, config(), training=True), training=True)
    for a, b in zip(by_dali(triplets, draws, config(), training=True), expected, strict=True):
        assert difference(a, b).mean() < 0.5


@needs_dali
def test_small_frames_grow_alike(small) -> None:
    options = config(height_px=96, width_px=320)
    expected = outputs(by_torch(small, [PLAIN] * 4, options, training=False), training=False)
    for a, b in zip(by_dali(small, [PLAIN] * 4, options, training=False), expected, strict=True):
        assert difference(a, b).mean() < 0.06
        assert difference(a, b).max() <= 2


@needs_dali
@needs_gpu
@pytest.mark.gpu
def test_the_gpu_makes_what_the_cpu_makes(triplets) -> None:
    draws = [JITTERED, MIRRORED, JITTERED._replace(flip=False), PLAIN]
    cpu = by_dali(triplets, draws, config(), training=True)
    gpu = by_dali(triplets, draws, config(), training=True, device_id=0)
    for a, b in zip(gpu, cpu, strict=True):
        assert difference(a, b).mean() < 0.5


def test_png_grey_and_cmyk_files_are_read(tmp_path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert np.array_equal(torch_graph.decode(tmp_path / "a.png"), rgb)
    Image.fromarray(rgb).convert("L").save(tmp_path / "grey.jpg")
    grey = torch_graph.decode(tmp_path / "grey.jpg")
    assert grey.shape == (20, 30, 3)
    assert np.ptp(grey, axis=2).max() == 0
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert torch_graph.decode(tmp_path / "cmyk.jpg").shape == (20, 30, 3)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage) -> None:
    path = tmp_path / "bad.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"not an image", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"bad\.jpg is a damaged image .*; restore the file"):
        torch_graph.decode(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.jpg: No such file"):
        torch_graph.decode(tmp_path / "none.jpg")
