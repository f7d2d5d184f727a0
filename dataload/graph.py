"""The DALI graph: file paths and draws in, uint8 frames out. It draws nothing; ``dataload.torch_graph`` is its twin.

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
# Batches decoded ahead of the one being used.
BATCHES_AHEAD = 2
# The largest frame of KITTI, for the memory of the hardware decoder.
NATIVE_HINT_PX = (376, 1242)
HW_DECODER_LOAD = 0.65


def build_pipeline(
    source: Callable[[], Sequence[Any]], config: DataConfig, *, training: bool, device_id: int | None, num_threads: int
) -> Any:
    """A built DALI pipeline around ``frames_graph``.

    Args:
        source: called once a batch; gives one list over the samples for each input of ``frames_graph``: the frames' paths as uint8
            arrays and, when training, flip (int32 0 or 1), jitter (bool), color and color_mean ((3, 3) float32).
            ``StopIteration`` ends an epoch.
        device_id: the GPU, or None to run on the CPU alone.
    """
    pipeline = _pipeline(
        source,
        config,
        training,
        device_id is not None,
        batch_size=config.batch_size,
        num_threads=num_threads,
        device_id=device_id,
        prefetch_queue_depth=BATCHES_AHEAD + 1,
        # The dynamic executor never reuses the memory of an output that is still referenced.
        exec_dynamic=True,
    )
    pipeline.build()
    return pipeline


@pipeline_def(enable_conditionals=True)
def _pipeline(source: Callable[[], Sequence[Any]], config: DataConfig, training: bool, on_gpu: bool) -> tuple[Any, ...]:
    num_frames = 1 + config.num_sources
    inputs = fn.external_source(source, num_outputs=num_frames + (DRAW_INPUTS if training else 0), batch=True)
    return frames_graph(inputs[:num_frames], inputs[num_frames:], config=config, on_gpu=on_gpu)


def frames_graph(paths: Sequence[Any], draws: Sequence[Any], *, config: DataConfig, on_gpu: bool) -> tuple[Any, ...]:
    """Data nodes of HWC uint8 images: the levels of the target, the levels of the stacked sources and, given draws, the target as
    the networks see it and the stacked temporal sources as they see them. What would be an empty stack is left out.

    Args:
        paths: per frame, its path as uint8: the target, then the sources in the order of ``Batch.sources``.
        draws: flip, jitter, color and color_mean of the sample, on the CPU (see ``dataload.order.Draw``); none to evaluate.
    """
    frames = [_resize_native(_decode(path, on_gpu), config) for path in paths]
    if draws:
        frames = [fn.flip(frame, horizontal=draws[0]) for frame in frames]
    target = _pyramid(frames[0], config, config.num_levels)
    sources = [_pyramid(frame, config, config.source_levels) for frame in frames[1:]]
    stacks = [fn.stack(*[frame[level] for frame in sources], axis=0) for level in range(config.source_levels if sources else 0)]
    if not draws:
        return (*target, *stacks)
    seen = [_jitter_where(frame, *draws[1:]) for frame in frames[: 1 + len(config.temporal_ids)]]
    inputs = [fn.stack(*seen[1:], axis=0)] if len(seen) > 1 else []
    return (*target, *stacks, seen[0], *inputs)


def _decode(path: Any, on_gpu: bool) -> Any:
    data = fn.io.file.read(path)
    if not on_gpu:
        return fn.decoders.image(data, device="cpu", adjust_orientation=False)
    return fn.decoders.image(
        data,
        device="mixed",
        adjust_orientation=False,
        # The chroma upsampling of libjpeg-turbo, without which colours differ from every CPU decoder.
        jpeg_fancy_upsampling=True,
        hw_decoder_load=HW_DECODER_LOAD,
        preallocate_height_hint=NATIVE_HINT_PX[0],
        preallocate_width_hint=NATIVE_HINT_PX[1],
    )


def _resize_native(image: Any, config: DataConfig) -> Any:
    native = image.shape(dtype=types.INT32)
    return _resize(image, (native[0], native[1]), (config.height_px, config.width_px))


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
    known = isinstance(native, int)
    inside = _share_inside_constant(native, size, image.device) if known else _share_inside(image, native, size, keep)
    ends = []
    for start, edge in ((0, 0), (size - n, native - 1)):
        repeated = _filtered(image, size, start, start + n, keep, dtype=types.FLOAT)
        share = _rows(inside, start, n)
        # From a filter that saw the edge repeated outside the image to one that leaves the outside out.
        ends.append(fn.cast((repeated - (1.0 - share) * _rows(image, edge, 1)) / share, dtype=types.UINT8))
    return fn.cat(ends[0], _filtered(image, size, n, size - n, keep), ends[1], axis=0)


def _filtered(image: Any, size: int, start: int, end: int, keep: Any, dtype: Any = None) -> Any:
    """Rows ``start`` to ``end`` of the ``size`` that the image is resized to."""
    region: Any = {"roi_start": [start / size, 0.0], "roi_end": [end / size, 1.0], "roi_relative": True}
    return _lanczos(image, end - start, keep, dtype=dtype, **region)


def _share_inside(image: Any, native: Any, size: int, keep: Any) -> Any:
    """(size, 1, 3) float32: how much of each output's filter lies inside the image: a column of ones, resized, with a row of zeros at
    either end which DALI repeats outwards."""
    ones = fn.cast(fn.slice(image, [0, 0], [1, 1], axes=[1, 2]) * 0 + 1, dtype=types.FLOAT)
    framed = fn.slice(ones, -1, native + 2, axes=[0], out_of_bounds_policy="pad")
    zero = native * 0.0
    return _lanczos(framed, size, keep, roi_start=fn.stack(zero + 1.0, zero), roi_end=fn.stack(zero + native + 1.0, zero + 1.0))


def _share_inside_constant(native: int, size: int, device: str) -> Any:
    """The same where both sizes are known, and ``size`` is the smaller."""
    scale = native / size
    outputs, taps = np.arange(size)[:, None], np.arange(-native, 2 * native)
    distance = (taps + 0.5) / scale - (outputs + 0.5)
    weights = np.where(np.abs(distance) < LANCZOS_LOBES, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    share = weights[:, native : 2 * native].sum(1) / weights.sum(1)
    return types.Constant(share.astype(np.float32)[:, None, None], device=device)


def _lanczos(image: Any, size: int, keep: Any, **region: Any) -> Any:
    return fn.resize(image, resize_y=size, mode="stretch", antialias=True, min_filter=types.INTERP_LANCZOS3, mag_filter=keep, **region)


def _rows(image: Any, start: Any, count: int) -> Any:
    return fn.slice(image, start, count, axes=[0])


def _transpose(image: Any) -> Any:
    return fn.transpose(image, perm=[1, 0, 2], transpose_layout=False)


def _jitter_where(image: Any, jitter: Any, color: Any, color_mean: Any) -> Any:
    """``color @ x + color_mean @ mean(image)``, clipped and rounded, where ``jitter``; elsewhere the image itself."""
    if jitter:
        # The mean stays where the image is; only the matrices, arguments of the operator, come from the CPU.
        mean = fn.reductions.mean(image, axes=[0, 1], keep_dims=True)
        shift = fn.coord_transform(mean, M=color_mean, dtype=types.FLOAT)
        seen = fn.cast(fn.coord_transform(image, M=color, dtype=types.FLOAT) + shift, dtype=types.UINT8)
    else:
        seen = image
    return seen
