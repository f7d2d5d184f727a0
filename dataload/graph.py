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

# Outermost pixels whose Lanczos window (3 output pixels to a side) reaches beyond the image.
BORDER_PX = 3
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
            arrays, then flip (int32 0 or 1), jitter (bool), color and color_mean ((3, 3) float32). ``StopIteration`` ends an epoch.
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
    target = _pyramid(_decode(paths[0], on_gpu), flip, config, config.num_levels)
    sources = [_pyramid(_decode(path, on_gpu), flip, config, config.source_levels) for path in paths[1:]]
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


def _pyramid(image: Any, flip: Any, config: DataConfig, num_levels: int) -> list[Any]:
    """Level 0 from the native image, mirrored where ``flip``; every further level from the one before."""
    levels = [fn.flip(_resize(image, config.height_px, config.width_px), horizontal=flip)]
    for level in range(1, num_levels):
        levels = [*levels, _resize(levels[-1], config.height_px >> level, config.width_px >> level)]
    return levels


def _resize(image: Any, height: int, width: int) -> Any:
    """Pillow's Lanczos: rows first, rounded to uint8, then columns. Rows are filtered as columns of the transposed image, since
    DALI's CPU kernels take a third of the time for those."""
    rows = _transpose(_resize_columns(_transpose(image), width))
    return _resize_columns(rows, height)


def _resize_columns(image: Any, size: int) -> Any:
    """(h, w, 3) -> (size, w, 3) uint8."""
    native = image.shape(dtype=types.INT32)[0]
    n = BORDER_PX
    top = _renormalised(image, _rows(image, 0, 1), size, 0, n)
    middle = _filtered(image, native, size, n, size - n)
    bottom = _renormalised(image, _rows(image, native - 1, 1), size, size - n, size)
    return fn.cat(top, middle, bottom, axis=0)


def _renormalised(image: Any, edge: Any, size: int, start: int, end: int) -> Any:
    """Outputs ``start`` to ``end`` with a filter that leaves out what lies outside the image, as Pillow's does.

    DALI's sees the ``edge`` row repeated outside. How much of each output's filter lies inside is the filtered image of a column
    of ones with a row of zeros at either end, which DALI repeats in its turn.
    """
    native = image.shape(dtype=types.INT32)[0]
    ones = fn.cast(fn.slice(image, [0, 0], [1, 1], axes=[1, 2]) * 0 + 1, dtype=types.FLOAT)
    framed = fn.slice(ones, -1, native + 2, axes=[0], out_of_bounds_policy="pad")
    inside = _filtered(framed, native, size, start, end, offset=1.0)
    repeated = _filtered(image, native, size, start, end, dtype=types.FLOAT)
    return fn.cast((repeated - (1.0 - inside) * edge) / inside, dtype=types.UINT8)


def _filtered(image: Any, native: Any, size: int, start: int, end: int, *, offset: float = 0.0, dtype: Any = None) -> Any:
    """Rows ``start`` to ``end`` of the ``size`` that the ``native`` rows from ``offset`` on are resized to."""
    # The axis that keeps its size counts as growing; linear leaves it exactly alone, and is cheap.
    grows = fn.cast(native < size, dtype=types.INT32)
    keep = fn.cast(grows * int(types.INTERP_LANCZOS3) + (1 - grows) * int(types.INTERP_LINEAR), dtype=types.INTERP_TYPE)
    zero = native * 0.0
    first, last = [(native * (row / size) + offset) / (native + 2.0 * offset) for row in (start, end)]
    return fn.resize(
        image,
        resize_y=end - start,
        mode="stretch",
        roi_start=fn.stack(first, zero),
        roi_end=fn.stack(last, zero + 1.0),
        roi_relative=True,
        antialias=True,
        min_filter=types.INTERP_LANCZOS3,
        mag_filter=keep,
        dtype=dtype,
    )


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
