"""The DALI graph: file paths and draws in, uint8 frames out. It draws nothing; ``dataload.torch_graph`` is its twin.

Pillow's Lanczos, which the published numbers rest on, filters rows first and rounds to uint8 before it filters columns. DALI alone
keeps floats between and picks the order itself, which moves bright edges by up to 13 levels; two resizes of one axis each agree
with Pillow to two levels, and to four on the outermost two pixels, where DALI repeats the border and Pillow leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nvidia.dali import fn, pipeline_def, types

from dataload.config import DataConfig

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
            arrays, then flip (float32 0 or 1), jitter (bool), color and color_mean ((3, 3) float32). ``StopIteration`` ends an epoch.
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
    inputs = fn.external_source(source, num_outputs=num_frames + 4, batch=True)
    flip, jitter, color, color_mean = inputs[num_frames:]
    return frames_graph(inputs[:num_frames], flip, jitter, color, color_mean, config=config, training=training, on_gpu=on_gpu)


def frames_graph(
    paths: Sequence[Any], flip: Any, jitter: Any, color: Any, color_mean: Any, *, config: DataConfig, training: bool, on_gpu: bool
) -> tuple[Any, ...]:
    """Data nodes of HWC uint8 images: the levels of the target, the levels of the stacked sources and, when training, the
    target as the networks see it and the stacked temporal sources as they see them. What would be an empty stack is left out.

    Args:
        paths: per frame, its path as uint8: the target, then the sources in the order of ``Batch.sources``.
        flip, jitter, color, color_mean: the draw of the sample, on the CPU; see ``dataload.order.Draw``.
    """
    target = _pyramid(_decode(paths[0], on_gpu), flip, config, config.num_levels, on_gpu)
    sources = [_pyramid(_decode(path, on_gpu), flip, config, config.source_levels, on_gpu) for path in paths[1:]]
    stacks = [fn.stack(*[frame[level] for frame in sources], axis=0) for level in range(config.source_levels if sources else 0)]
    if not training:
        return (*target, *stacks)
    seen = [_jitter_where(frame[0], jitter, color, color_mean) for frame in [target, *sources[: len(config.temporal_ids)]]]
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


def _pyramid(image: Any, flip: Any, config: DataConfig, num_levels: int, on_gpu: bool) -> list[Any]:
    """Level 0 from the native image, mirrored where ``flip``; every further level from the one before."""
    levels = [_resize(image, config.height_px, config.width_px, on_gpu, flip)]
    for level in range(1, num_levels):
        levels = [*levels, _resize(levels[-1], config.height_px >> level, config.width_px >> level, on_gpu)]
    return levels


def _resize(image: Any, height: int, width: int, on_gpu: bool, flip: Any | None = None) -> Any:
    """Lanczos in two passes, rows first, rounded to uint8 between them. ``flip`` belongs to a native image, which may be smaller."""
    native = flip is not None
    # DALI's CPU kernels filter columns several times faster than rows.
    rows = _resize_axis(image, 1, width, native, flip) if on_gpu else _transpose(_resize_axis(_transpose(image), 0, width, native, flip))
    return _resize_axis(rows, 0, height, native)


def _resize_axis(image: Any, axis: int, size: int, may_grow: bool, flip: Any | None = None) -> Any:
    region: Any = {}
    if flip is not None:
        zero, one = flip * 0.0, flip * 0.0 + 1.0
        start, end = [zero, zero], [one, one]
        start[axis], end[axis] = flip, 1.0 - flip
        # A region that ends before it starts is mirrored, at no cost.
        region = {"roi_start": fn.stack(*start), "roi_end": fn.stack(*end), "roi_relative": True}
    # The filter for axes that do not shrink: the other axis keeps its size, for which linear is exact and cheap.
    keep: Any = types.INTERP_LINEAR
    if may_grow:
        grows = fn.cast(image.shape()[axis] < size, dtype=types.INT32)
        keep = fn.cast(grows * int(types.INTERP_LANCZOS3) + (1 - grows) * int(types.INTERP_LINEAR), dtype=types.INTERP_TYPE)
    side: Any = {"resize_y": size} if axis == 0 else {"resize_x": size}
    return fn.resize(image, **side, **region, mode="stretch", antialias=True, min_filter=types.INTERP_LANCZOS3, mag_filter=keep)


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
