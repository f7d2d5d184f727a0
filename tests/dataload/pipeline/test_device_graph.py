"""The GPU's half of the twin: the CPU resize's pixels to the bit, the CPU twin's batches, and no look at a value on the way."""

import numpy as np
import pytest
import torch
from batches import images
from PIL import Image

import dataload.pipeline.device_graph as device_graph
from dataload.config import DataConfig
from dataload.pipeline.decode import load_frame, resize
from dataload.pipeline.device_graph import DeviceDraws, augment, halve, halving_weights, jitter, pack_draws
from dataload.pipeline.jitter import affine_colour, draw_factors
from dataload.pipeline.order import IDENTITY_DRAW, Draw
from dataload.pipeline.torch_graph import empty_images, fill_sample

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SIZES_PX = [(192, 640), (96, 320), (64, 96), (320, 1024), (2, 4)]
CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def hard_images(height: int, width: int) -> torch.Tensor:
    """Noise, noise of nothing but black and white, and a step from black to white: those that overshoot and are clipped."""
    black_and_white = (noise(height, width, 3, seed=1) > 127).to(torch.uint8) * 255
    step = torch.zeros(height, width, 3, dtype=torch.uint8)
    step[height // 3 :, width // 2 + 1 :] = 255
    return torch.stack([noise(height, width, 3), black_and_white, step, 255 - step])


def random_draws(count: int, seed: int = 0) -> list[Draw]:
    """Every combination of flip and jitter, one after the other."""
    rng = np.random.default_rng(seed)
    colour = [affine_colour(draw_factors(rng)) for _ in range(count)]
    return [Draw(bool(i & 1), *colour[i], True) if i & 2 else IDENTITY_DRAW._replace(flip=bool(i & 1)) for i in range(count)]


def pillow_halved(image: torch.Tensor) -> torch.Tensor:
    half = (image.shape[1] // 2, image.shape[0] // 2)
    return torch.from_numpy(np.array(Image.fromarray(image.numpy()).resize(half, Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_halving_is_the_cpu_resize_to_the_bit_down_to_an_eighth(size_px) -> None:
    level = hard_images(*size_px)
    while min(level.shape[1:3]) > max(1, size_px[0] // 8):
        half = halve(level)
        for image, halved in zip(level, half, strict=True):
            assert torch.equal(halved, resize(image, (image.shape[0] // 2, image.shape[1] // 2)))
        level = half


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_where_pillow_resizes_halving_is_pillows_to_the_bit(size_px) -> None:
    level = hard_images(*size_px)
    for image, halved in zip(level, halve(level, "pillow-simd" if "post" in Image.__version__ else "pillow"), strict=True):
        assert torch.equal(halved, pillow_halved(image))


def test_halving_in_parts_changes_nothing(monkeypatch) -> None:
    level = noise(5, 64, 96, 3)
    whole = halve(level)
    monkeypatch.setattr(device_graph, "PRODUCT_BYTES", 2 * 64 * 48 * 3 * 12 * 4)
    assert torch.equal(halve(level), whole)
    assert halve(level[:0]).shape == (0, 32, 48, 3)


@pytest.mark.parametrize("resizer", ["torch", "pillow-simd", "pillow"])
@pytest.mark.parametrize("size", [2, 4, 8, 10, 96, 640, 1024])
def test_weights_are_symmetric_and_sum_to_one(size, resizer) -> None:
    weights, bits = halving_weights(size, resizer, CPU)
    # What makes mirror-then-halve the same as halve-then-mirror.
    assert torch.equal(weights, weights.flip(0, 1))
    assert (weights.sum(1) - 2**bits).abs().max() <= 6
    assert (bits, weights.max() < 2**15) == (22, False) if resizer == "pillow" else (bits <= 16 and weights.max() < 2**15)


def test_jitter_is_the_colour_map_and_leaves_the_others_alone() -> None:
    draws = random_draws(8)
    frames = torch.cat([noise(4, 2, 64, 96, 3), hard_images(64, 96).unflatten(0, (2, 2)).repeat(2, 1, 1, 1, 1)])
    seen = jitter(frames, pack_draws(draws)).numpy()
    for sample, drawn, recorded in zip(seen, draws, frames.numpy(), strict=True):
        if not drawn.jitter:
            assert np.array_equal(sample, recorded)
            continue
        for image, x in zip(sample, recorded.astype(np.float64), strict=True):
            exact = np.clip(x @ drawn.color.T.astype(np.float64) + drawn.color_mean @ x.mean((0, 1)), 0, 255)
            assert np.abs(image - exact).max() < 0.5 + 1e-3


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_stereo": True, "source_levels": 3},
        {"frame_ids": (0,), "use_stereo": True, "num_levels": 1},
        {"frame_ids": (0,), "source_levels": 2},
    ],
)
def test_batches_of_hard_images_are_the_twins(tmp_path, training, options) -> None:
    config = DataConfig(data_path=tmp_path, height_px=64, width_px=96, **options)
    frames = torch.stack([torch.stack([*hard_images(64, 96)][: 1 + config.num_sources]).roll(i, 0) for i in range(8)])
    assert_the_twins(frames, random_draws(8) if training else [IDENTITY_DRAW] * 8, config, training=training)


@pytest.mark.parametrize("options", [{}, {"use_stereo": True, "source_levels": 4}])
def test_batches_of_real_frames_are_the_twins(shared, options) -> None:
    config = DataConfig(data_path=shared / "kitti" / "raw_jpg", **options)
    paths = sorted(config.data_path.glob("*/*/image_0[23]/data/*.jpg"))[::11][: 4 * (1 + config.num_sources)]
    frames = torch.stack([load_frame(path, (192, 640)) for path in paths]).unflatten(0, (4, -1))
    assert_the_twins(frames, random_draws(4), config, training=True)


def assert_the_twins(frames: torch.Tensor, draws: list[Draw], config: DataConfig, *, training: bool) -> None:
    """Asserts that ``augment`` makes the CPU twin's batch: to the bit but for jitter, which rounds a sum taken in another order."""
    twin = empty_images(config, len(frames), training=training)
    for row, drawn in enumerate(draws):
        fill_sample(list(frames[row]), drawn, twin.sample(row), training=training)
    made = augment(frames, pack_draws(draws) if training else None, config)
    assert [image.shape for image in images(made)] == [image.shape for image in images(twin)]
    jittered = torch.tensor([drawn.jitter for drawn in draws])
    for x, y in zip(images(made)[:-2], images(twin)[:-2], strict=True):
        assert torch.equal(x, y)
    for x, y in zip(images(made)[-2:], images(twin)[-2:], strict=True):
        assert torch.equal(x[~jittered], y[~jittered])
        if x.numel():
            difference = (x.int() - y.int()).abs()
            assert difference.max() <= 1
            assert difference.float().mean() < 1e-3


@pytest.mark.parametrize("draws", [None, pack_draws(random_draws(3))], ids=["evaluating", "training"])
def test_frames_may_be_overwritten_and_images_are_contiguous(tmp_path, draws) -> None:
    config = DataConfig(data_path=tmp_path, use_stereo=True, source_levels=2, height_px=64, width_px=96)
    frames = noise(3, 4, 64, 96, 3)
    made = augment(frames, draws, config)
    assert all(image.is_contiguous() for image in images(made)[:-1])
    assert draws is None or made.source_inputs.is_contiguous()
    copies = [image.clone() for image in images(made)]
    frames.zero_()
    assert all(torch.equal(image, copy) for image, copy in zip(images(made), copies, strict=True))
    shared_memory = [made.target_input.data_ptr() == made.target[0].data_ptr(), made.source_inputs.data_ptr() == made.sources[0].data_ptr()]
    assert shared_memory == [draws is None] * 2


def test_no_value_is_read_on_the_way(tmp_path) -> None:
    # Tensors on the meta device have shapes and no values: whatever would wait for a GPU fails there.
    config = DataConfig(data_path=tmp_path)
    draws = DeviceDraws(*(part.to("meta") for part in pack_draws(random_draws(12))))
    made = augment(torch.empty(12, 3, 192, 640, 3, dtype=torch.uint8, device="meta"), draws, config)
    assert [tuple(level.shape) for level in made.target] == [(12, 192 >> s, 640 >> s, 3) for s in range(4)]
    assert made.source_inputs.shape == (12, 2, 192, 640, 3)


@needs_gpu
@pytest.mark.gpu
def test_the_gpu_makes_the_same_without_waiting(tmp_path) -> None:
    config = DataConfig(data_path=tmp_path, use_stereo=True, source_levels=2)
    frames, draws = noise(8, 4, 192, 640, 3), pack_draws(random_draws(8))
    frames[:, 1] = hard_images(192, 640).repeat(2, 1, 1, 1)
    on_gpu = (frames.cuda(), DeviceDraws(*(part.cuda() for part in draws)))
    augment(*on_gpu, config)  # The weights go to the GPU once, and that waits.
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = augment(*on_gpu, config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for x, y in zip(images(made), images(augment(frames, draws, config)), strict=True):
        assert torch.equal(x.cpu(), y)
