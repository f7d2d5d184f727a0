"""The DALI graph: frames and draws in, uint8 images out. It draws no random numbers; ``dataload.pipeline.torch_graph`` is its
twin: a second implementation of the same function, in plain torch, with which tests compare it.

It has two parts: ``read_frame`` makes a frame of its file, ``augment`` makes a sample of its frames. The second alone serves frames
that are already resized and wait in a store, the first alone builds that store.

Pillow's Lanczos, which the published numbers rest on, filters rows first and rounds to uint8 before it filters columns, and leaves
out what lies outside the image. DALI's keeps floats between, picks the order itself, and repeats the border, which moves values by
up to 15 levels where the filter overshoots at a saturated edge. Here one axis is resized at a time and the border is mended: on
KITTI frames every value is then within one level of the twin's. That is little work for a GPU; DALI's CPU kernels take half as long
again as for the plain resize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from dataload.config import DataConfig

# Half the width of the filter, in output pixels; so as many outermost pixels see beyond the image.
LANCZOS_LOBES = BORDER_PX = 3
# Flip, jitter, color, color_mean.
DRAW_INPUTS = 4
# The first byte of a frame's input that holds a file instead of its path; no path has it.
CONTENTS = 0
# Batches made ahead of the one being used.
BATCHES_AHEAD = 2
# The largest frame of KITTI, for the memory of the hardware decoder.
NATIVE_HINT_PX = (376, 1242)
HW_DECODER_LOAD = 0.65


def build_pipeline(
    source: Callable[[], Sequence[Any]],
    config: DataConfig,
    *,
    training: bool,
    device_id: int | None,
    num_threads: int,
    stored: bool = False,
) -> Any:
    """A built DALI pipeline that makes batches: it applies ``augment`` to frames, after ``read_frame`` if they come from files.

    Whatever ``source`` gives is copied before ``run`` returns, on a CPU at once, on a GPU in the order of torch's current stream (the
    GPU must be torch's current device). So the memory may be written to again when ``source`` is called next.

    Args:
        source: called once per batch; gives a list over the samples for each frame, the target first, then the sources in the order of
            ``Batch.sources`` and, when training, for flip (int32 0 or 1), jitter (bool), color and color_mean ((3, 3) float32).
            ``StopIteration``, each time it is called from then on, ends an epoch.
        device_id: the GPU, or None to run on the CPU alone.
        stored: a frame is not its file as ``dali_batches.file_input`` gives it, but (H, W, 3) uint8, as recorded, at the size of level 0,
            in the memory of the device; on a GPU best all samples in one (B, H, W, 3) tensor.
    """
    # A copy of a batch takes a thousandth of a second. Without it (no_copy) DALI keeps no reference to the arrays, which would have
    # to stay alive and unchanged for BATCHES_AHEAD + 1 calls, and on a GPU, if they are pinned, until their batch has been used.
    pipeline = _pipeline(
        _Halves(source, 1 + config.num_sources),
        config,
        training,
        device_id is not None,
        stored,
        batch_size=config.batch_size,
        **_settings(device_id, num_threads),
    )
    pipeline.build()
    return pipeline


def build_decoder(source: Callable[[], Any], config: DataConfig, *, device_id: int | None, num_threads: int, batch_size: int) -> Any:
    """A built DALI pipeline that makes frames of files: ``run`` gives one output of (H, W, 3) uint8, in the machine's memory.

    Args:
        source: gives the next files as ``dali_batches.file_input`` does, ``batch_size`` or fewer; ``StopIteration`` at their end.
        device_id: the GPU that decodes and resizes, or None to do so on the CPU.
    """
    pipeline = _decoder(source, config, device_id is not None, batch_size=batch_size, **_settings(device_id, num_threads))
    pipeline.build()
    return pipeline


def _settings(device_id: int | None, num_threads: int) -> dict[str, Any]:
    # The dynamic executor never reuses the memory of an output that is still referenced, and may copy from the GPU.
    return {"device_id": device_id, "num_threads": num_threads, "prefetch_queue_depth": BATCHES_AHEAD + 1, "exec_dynamic": True}


class _Halves:
    """Gives the frames and the draws of a batch to two external sources, as those may lie on two devices; DALI asks each of them
    once per batch, in any order."""

    def __init__(self, source: Callable[[], Sequence[Any]], num_frames: int) -> None:
        self.source, self.num_frames = source, num_frames
        self.batch: Sequence[Any] = ()
        self.given = {"frames", "draws"}

    def frames(self) -> Sequence[Any]:
        return self._half("frames")[: self.num_frames]

    def draws(self) -> Sequence[Any]:
        return self._half("draws")[self.num_frames :]

    def _half(self, name: str) -> Sequence[Any]:
        if name in self.given:
            self.batch, self.given = self.source(), set()
        self.given.add(name)
        return self.batch


@pipeline_def(enable_conditionals=True)
def _pipeline(source: _Halves, config: DataConfig, training: bool, on_gpu: bool, stored: bool) -> tuple[Any, ...]:
    frames = _frames_in(source, config, on_gpu, stored)
    draws = fn.external_source(source.draws, num_outputs=DRAW_INPUTS, batch=True) if training else []
    return augment(frames, draws, config)


@pipeline_def(enable_conditionals=True)
def _decoder(source: Callable[[], Any], config: DataConfig, on_gpu: bool) -> Any:
    frame = read_frame(fn.external_source(source, batch=True), config, on_gpu)
    return frame.cpu() if on_gpu else frame


def _frames_in(source: _Halves, config: DataConfig, on_gpu: bool, stored: bool) -> list[Any]:
    """The frames at level 0, where the images are to be made."""
    count = source.num_frames
    if not stored:
        return [read_frame(file, config, on_gpu) for file in fn.external_source(source.frames, num_outputs=count, batch=True)]
    device = "gpu" if on_gpu else "cpu"
    return list(fn.external_source(source.frames, num_outputs=count, batch=True, layout="HWC", device=device))


def read_frame(file: Any, config: DataConfig, on_gpu: bool) -> Any:
    """The frame of a file, HWC uint8 at level 0, as recorded; ``file`` is uint8, on the CPU, as ``dali_batches.file_input`` makes it."""
    image = _decode(file, on_gpu)
    native = image.shape(dtype=types.INT32)
    return _resize(image, (native[0], native[1]), config.size_px)


def augment(frames: Sequence[Any], draws: Sequence[Any], config: DataConfig) -> tuple[Any, ...]:
    """A sample of its frames, as data nodes of HWC uint8 images: the levels of the target, the levels of the stacked sources and, given
    draws, the target as the networks see it and the stacked temporal sources as they see them. Empty stacks are left out.

    Args:
        frames: at level 0, as recorded: the target, then the sources in the order of ``Batch.sources``.
        draws: flip, jitter, color and color_mean of the sample, on the CPU (see ``dataload.pipeline.order.Draw``); none to evaluate.
    """
    if draws:
        frames = [fn.flip(frame, horizontal=draws[0]) for frame in frames]
    target = _pyramid(frames[0], config, config.num_levels)
    sources = [_pyramid(frame, config, config.source_levels) for frame in frames[1:]]
    stacks = [fn.stack(*[frame[level] for frame in sources], axis=0) for level in range(config.source_levels if sources else 0)]
    if not draws:
        return (*target, *stacks)
    seen = _jitter(frames[: 1 + len(config.temporal_ids)], *draws[1:])
    inputs = [fn.stack(*seen[1:], axis=0)] if len(seen) > 1 else []
    return (*target, *stacks, seen[0], *inputs)


def _decode(file: Any, on_gpu: bool) -> Any:
    if file[0] == CONTENTS:  # noqa: SIM108  (DALI splits its batches by statements)
        data = file[1:]
    else:
        data = fn.io.file.read(file)
    if not on_gpu:
        return fn.decoders.image(data, device="cpu", adjust_orientation=False)
    return fn.decoders.image(
        data,
        device="mixed",
        adjust_orientation=False,
        # The chroma upsampling of libjpeg-turbo, without which colours differ from every CPU decoder.
        jpeg_fancy_upsampling=True,
        # Each frame of a sample has its decoder, and each rank its pipeline: all would tie their threads to the same cores.
        affine=False,
        hw_decoder_load=HW_DECODER_LOAD,
        preallocate_height_hint=NATIVE_HINT_PX[0],
        preallocate_width_hint=NATIVE_HINT_PX[1],
    )


def _pyramid(image: Any, config: DataConfig, num_levels: int) -> list[Any]:
    """Every level after the first is made from the one before."""
    sizes = [(config.height_px >> level, config.width_px >> level) for level in range(num_levels)]
    levels = [image]
    for level in range(1, num_levels):
        levels = [*levels, _resize(levels[-1], sizes[level - 1], sizes[level])]
    return levels


def _resize(image: Any, native: tuple[Any, Any], size: tuple[int, int]) -> Any:
    """Lanczos from ``native`` to ``size`` (height, width)."""
    # Rows are filtered as columns of the transposed image: DALI's CPU kernels take a third of the time for those.
    rows = _transpose(_resize_columns(_transpose(image), native[1], size[1]))
    return _resize_columns(rows, native[0], size[0])


def _resize_columns(image: Any, native: Any, size: int) -> Any:
    """(native, w, 3) -> (size, w, 3) uint8; ``native`` is a data node, or a whole number where the graph knows it."""
    n = BORDER_PX
    # The axis that keeps its size counts as growing; linear leaves it exactly alone, and is cheap.
    keep: Any = types.INTERP_LINEAR
    if not isinstance(native, int):
        grows = fn.cast(native < size, dtype=types.INT32)
        keep = fn.cast(grows * (int(types.INTERP_LANCZOS3) - int(keep)) + int(keep), dtype=types.INTERP_TYPE)
    inside = _share_inside_known(native, size) if isinstance(native, int) else _share_inside(image, native, size, keep)
    ends = []
    for start, edge in ((0, 0), (size - n, native - 1)):
        repeated = _resize_rows(image, size, start, start + n, keep, dtype=types.FLOAT)
        share, outside = _share_of_rows(inside, start, image.device)
        # From a filter that saw the edge repeated outside the image to one that leaves the outside out.
        ends.append(fn.cast((repeated - outside * _rows(image, edge, 1)) / share, dtype=types.UINT8))
    return fn.cat(ends[0], _resize_rows(image, size, n, size - n, keep), ends[1], axis=0)


def _resize_rows(image: Any, size: int, start: int, end: int, keep: Any, dtype: Any = None) -> Any:
    """Only rows ``start`` to ``end`` of the image resized to ``size`` rows."""
    region: Any = {"roi_start": [start / size, 0.0], "roi_end": [end / size, 1.0], "roi_relative": True}
    return _lanczos(image, end - start, keep, dtype=dtype, **region)


def _share_inside(image: Any, native: Any, size: int, keep: Any) -> Any:
    """(size, 1, 3) float32: how much of each output's filter lies inside the image: a column of ones, resized, with a row of zeros at
    either end which DALI repeats outwards."""
    ones = fn.cast(fn.slice(image, [0, 0], [1, 1], axes=[1, 2]) * 0 + 1, dtype=types.FLOAT)
    framed = fn.slice(ones, -1, native + 2, axes=[0], out_of_bounds_policy="pad")
    zero = native * 0.0
    return _lanczos(framed, size, keep, roi_start=fn.stack(zero + 1.0, zero), roi_end=fn.stack(zero + native + 1.0, zero + 1.0))


def _share_inside_known(native: int, size: int) -> np.ndarray:
    """``_share_inside`` where both sizes are known, and ``size`` is the smaller."""
    scale = native / size
    outputs, taps = np.arange(size)[:, None], np.arange(-native, 2 * native)
    distance = (taps + 0.5) / scale - (outputs + 0.5)
    weights = np.where(np.abs(distance) < LANCZOS_LOBES, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    share = weights[:, native : 2 * native].sum(1) / weights.sum(1)
    return np.asarray(share, np.float32)[:, None, None]


def _share_of_rows(inside: Any, start: int, device: str) -> tuple[Any, Any]:
    """How much of the outermost rows from ``start`` on lies inside, and how much outside; constants where they are known."""
    if not isinstance(inside, np.ndarray):
        share = _rows(inside, start, BORDER_PX)
        return share, 1.0 - share
    known = inside[start : start + BORDER_PX]
    return types.Constant(known, device=device), types.Constant(1 - known, device=device)


def _lanczos(image: Any, size: int, keep: Any, **region: Any) -> Any:
    return fn.resize(image, resize_y=size, mode="stretch", antialias=True, min_filter=types.INTERP_LANCZOS3, mag_filter=keep, **region)


def _rows(image: Any, start: Any, count: int) -> Any:
    return fn.slice(image, start, count, axes=[0])


def _transpose(image: Any) -> Any:
    return fn.transpose(image, perm=[1, 0, 2], transpose_layout=False)


def _jitter(frames: Sequence[Any], jitter: Any, color: Any, color_mean: Any) -> Sequence[Any]:
    """``color @ x + color_mean @ mean(frame)``, clipped and rounded, where ``jitter``; elsewhere the frames themselves."""
    seen = list(frames)
    if jitter:
        seen = [_map_colours(frame, color, color_mean) for frame in frames]
    return seen


def _map_colours(image: Any, color: Any, color_mean: Any) -> Any:
    mean = fn.reductions.mean(image, axes=[0, 1], keep_dims=True)
    shift = fn.coord_transform(mean, M=color_mean, dtype=types.FLOAT)
    if image.device == "cpu":
        return fn.coord_transform(image, M=color, T=fn.reshape(shift, shape=[3]), dtype=types.UINT8)
    # Arguments of an operator lie on the CPU, and the mean is to stay on the GPU: the same numbers, in three passes.
    return fn.cast(fn.coord_transform(image, M=color, dtype=types.FLOAT) + shift, dtype=types.UINT8)
