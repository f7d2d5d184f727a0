"""Both graphs against each other and against Pillow: decode, mirror, resize, pyramid, jitter."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import HAS_DALI
from PIL import Image
from reference import pillow_loader

from dataload.config import DataConfig
from dataload.frames.picture import read_picture
from dataload.pipeline import decode
from dataload.pipeline.jitter import Factors, affine_colour
from dataload.pipeline.order import IDENTITY_DRAW, Draw
from dataload.pipeline.torch_graph import Images, empty_images, fill_sample
from splits.errors import InputError

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
    """Images that must grow in both directions."""
    paths = sorted(kitti_tree().glob("*/*/image_02/data/*.jpg"))
    return [paths[i : i + 3] for i in range(4)]


def by_torch(samples, draws, options: DataConfig, *, training: bool) -> Images:
    frames = empty_images(options, len(samples), training=training)
    for row, (paths, draw) in enumerate(zip(samples, draws, strict=True)):
        loaded = [decode.load_frame(path, options.size_px) for path in paths]
        fill_sample(loaded, draw, frames.sample(row), training=training)
    return frames


def path_bytes(path: Path) -> np.ndarray:
    return np.frombuffer(str(path).encode(), np.uint8)


def draw_inputs(draws: list[Draw]) -> tuple[list, ...]:
    """As the graph takes them."""
    parts = ([np.int32(d.flip) for d in draws], [np.bool_(d.jitter) for d in draws])
    return (*parts, [d.color for d in draws], [d.color_mean for d in draws])


def epoch(pipeline) -> Iterator[list[torch.Tensor]]:
    """The outputs of a pipeline until its source ends."""
    while True:
        try:
            outputs = pipeline.run()
        except StopIteration:
            return
        yield [torch.from_dlpack(output.as_tensor()) for output in outputs]


def by_dali(
    samples, draws, options: DataConfig, *, training: bool, device_id: int | None = None, stored: bool = False
) -> list[torch.Tensor]:
    """The outputs of the graph for one batch. ``samples`` holds what stands for each frame of each sample: a path, or the frame."""
    from dataload.pipeline.dali_graph import build_pipeline

    entry = (lambda frame: frame) if stored else path_bytes
    inputs = ([entry(sample[i]) for sample in samples] for i in range(len(samples[0])))
    batch = (*inputs, *(draw_inputs(draws) if training else ()))
    pipeline = build_pipeline(lambda: batch, options, training=training, device_id=device_id, num_threads=1, stored=stored)
    return [torch.from_dlpack(output.as_tensor()).cpu() for output in pipeline.run()]


def by_decoder(paths: list[Path], options: DataConfig, *, batch_size: int, device_id: int | None = None) -> list[np.ndarray]:
    """The level-0 frames of files, from the pipeline that builds a store."""
    from dataload.pipeline.dali_graph import build_decoder

    batches = iter([[path_bytes(path) for path in paths[i : i + batch_size]] for i in range(0, len(paths), batch_size)])
    pipeline = build_decoder(lambda: next(batches), options, device_id=device_id, num_threads=1, batch_size=batch_size)
    return [frame.numpy() for (frames,) in epoch(pipeline) for frame in frames]


def difference(a, b) -> np.ndarray:
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


def outputs(frames: Images, *, training: bool) -> list[torch.Tensor]:
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


GRAPHS = [
    pytest.param({}, id="plain"),
    pytest.param({"num_levels": 1, "source_levels": 1}, id="one level"),
    pytest.param({"num_levels": 2, "source_levels": 1}, id="two levels"),
    pytest.param({"num_levels": 3, "source_levels": 4}, id="three and four levels"),
    pytest.param({"frame_ids": (0, -1), "use_stereo": True}, id="stereo"),
    pytest.param({"frame_ids": (0,), "use_stereo": True}, id="stereo alone"),
    pytest.param({"frame_ids": (0,)}, id="target alone"),
]


@needs_dali
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", GRAPHS)
def test_stored_frames_give_what_their_files_give(triplets, options, training) -> None:
    options = config(height_px=96, width_px=320, **options)
    samples = [paths[: 1 + options.num_sources] for paths in triplets]
    draws = [JITTERED, MIRRORED, JITTERED._replace(flip=False), PLAIN]
    stored = iter(by_decoder([path for paths in samples for path in paths], options, batch_size=5))
    frames = [[next(stored) for _ in paths] for paths in samples]
    expected = by_dali(samples, draws, options, training=training)
    found = by_dali(frames, draws, options, training=training, stored=True)
    assert len(found) == options.num_levels + (options.source_levels if options.num_sources else 0) + (
        (1 + bool(options.temporal_ids)) if training else 0
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_dali
def test_frames_for_the_store_are_level_0(triplets) -> None:
    paths = [path for paths in triplets for path in paths]
    found = by_decoder(paths, config(), batch_size=5)
    assert len(found) == len(paths)
    target, _, sources, _ = by_dali(triplets, [PLAIN] * 4, config(num_levels=2), training=False)
    expected = torch.cat([target[:, None], sources], dim=1).flatten(0, 1).numpy()
    assert np.array_equal(found, expected)


@needs_dali
@pytest.mark.parametrize("training", [True, False])
def test_stored_frames_may_be_overwritten_batch_by_batch(training) -> None:
    """One buffer serves every batch, though batches are made ahead; outputs stay as they are; and an epoch can follow another."""
    from dataload.pipeline.dali_graph import BATCHES_AHEAD, build_pipeline

    options = config(height_px=64, width_px=64, batch_size=2, num_levels=1, source_levels=1, frame_ids=(0, 1))
    doubled = JITTERED._replace(color=2 * np.eye(3, dtype=np.float32), color_mean=np.zeros((3, 3), np.float32))
    buffer = np.empty((2, 2, 64, 64, 3), np.uint8)
    values = iter(())

    def feed() -> tuple[list, ...]:
        buffer[...] = next(values)
        return (*(list(frame) for frame in buffer), *(draw_inputs([PLAIN, doubled]) if training else ()))

    pipeline = build_pipeline(feed, options, training=training, device_id=None, num_threads=2, stored=True)
    for end in (10 + BATCHES_AHEAD + 4, 11):
        values = iter(range(10, end))
        batches = list(epoch(pipeline))
        assert len(batches) == end - 10
        for value, batch in enumerate(batches, start=10):
            assert all(output[0].eq(value).all() for output in batch)
            assert all(output[1].eq(value).all() for output in batch[:2])
            assert all(output[1].eq(2 * value).all() for output in batch[2:])
        pipeline.reset()


@needs_dali
@needs_gpu
@pytest.mark.gpu
def test_the_gpu_makes_what_the_cpu_makes(triplets) -> None:
    draws = [JITTERED, MIRRORED, JITTERED._replace(flip=False), PLAIN]
    cpu = by_dali(triplets, draws, config(), training=True)
    gpu = by_dali(triplets, draws, config(), training=True, device_id=0)
    for a, b in zip(gpu, cpu, strict=True):
        assert difference(a, b).mean() < 0.5


@needs_dali
@needs_gpu
@pytest.mark.gpu
def test_the_gpu_takes_stored_frames(triplets) -> None:
    draws = [JITTERED, MIRRORED, JITTERED._replace(flip=False), PLAIN]
    stored = iter(by_decoder([path for paths in triplets for path in paths], config(), batch_size=5, device_id=0))
    frames = [[torch.from_numpy(next(stored)).cuda() for _ in paths] for paths in triplets]
    expected = by_dali(triplets, draws, config(), training=True, device_id=0)
    found = by_dali(frames, draws, config(), training=True, device_id=0, stored=True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


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
    with pytest.raises(InputError, match=r"cannot read .*none\.jpg: No such file"):
        read_picture(tmp_path / "none.jpg")
