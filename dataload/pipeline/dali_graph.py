"""The DALI graph: image files in, resized frames out. ``dataload.pipeline.decode`` is its twin: a second implementation of the same
function, in plain torch, with which tests compare it.

Pillow's Lanczos, which the published numbers rest on, filters rows first and rounds to uint8 before it filters columns, and leaves
out what lies outside the image. DALI's keeps floats between, picks the order itself, and repeats the border, which moves values by
up to 15 levels where the filter overshoots at a saturated edge. Here one axis is resized at a time and the border is mended: of
KITTI's frames at 640x192 every value is then within one level of the twin's, at larger sizes nearly every. That is little work for a GPU;
DALI's CPU kernels take half as long again as for the plain resize.

The graph does not augment: ``torch_graph`` does on a CPU, where it was measured to be faster; on a GPU ``device_graph`` does. There
nothing was measured, but counted: DALI needs more operators for it than ``device_graph`` launches kernels.

Arguments of operators lie in the machine's memory. One that is given by position to an operator on the GPU, as a constant, is brought
there, and the operator waits for the GPU to have it back: so they are given by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nvidia.dali import fn, pipeline_def, types

# Half the width of the filter, in output pixels; so as many outermost pixels see beyond the image.
BORDER_PX = 3
# The first byte of an input that holds a file instead of its path; no path has it.
CONTENTS = 0


def build_decoder(
    source: Callable[[], Sequence[Any]],
    size_px: tuple[int, int],
    *,
    device_id: int | None,
    num_threads: int,
    batch_size: int,
    batches_ahead: int,
    hardware_share: float,
) -> Any:
    """A built DALI pipeline that makes frames of files: ``run`` gives one output of (N, H, W, 3) uint8, on the device that makes them.

    Args:
        source: gives the next files as ``dali_pipeline.file_input`` does, ``batch_size`` or fewer; ``StopIteration``, each time it is
            called from then on, at their end. They are copied at once.
        size_px: (height, width) of a frame.
        device_id: the GPU that decodes and resizes, or None to do so on the CPU.
        batches_ahead: batches that are begun beyond the one asked for.
        hardware_share: of each batch, the share that a GPU's JPEG engine decodes; see ``decoders.DaliDecoder``.
    """
    pipeline = decoder_graph(
        source,
        size_px,
        device_id is not None,
        hardware_share,
        batch_size=batch_size,
        device_id=device_id,
        num_threads=num_threads,
        prefetch_queue_depth=batches_ahead + 1,
        # Never reuses the memory of an output that is still referenced, and gives outputs to a stream without waiting for the GPU.
        exec_dynamic=True,
    )
    pipeline.build()
    return pipeline


@pipeline_def(enable_conditionals=True)
def decoder_graph(source: Callable[[], Sequence[Any]], size_px: tuple[int, int], on_gpu: bool, hardware_share: float) -> Any:
    """The graph of ``build_decoder``, not built."""
    return read_frame(fn.external_source(source, batch=True), size_px, on_gpu, hardware_share)


def read_frame(file: Any, size_px: tuple[int, int], on_gpu: bool, hardware_share: float) -> Any:
    """The frame of a file, HWC uint8, as recorded; ``file`` is uint8, on the CPU, as ``dali_pipeline.file_input`` makes it."""
    image = _decode(file, on_gpu, hardware_share)
    native = image.shape(dtype=types.INT32)
    # Rows are filtered as columns of the transposed image: DALI's CPU kernels take a third of the time for those.
    rows = _transpose(_resize_columns(_transpose(image), native[1], size_px[1]))
    return _resize_columns(rows, native[0], size_px[0])


def _decode(file: Any, on_gpu: bool, hardware_share: float) -> Any:
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
        # Training and validation have a pipeline each, and so has every rank: all would tie their threads to the same cores.
        affine=False,
        hw_decoder_load=hardware_share,
    )


def _resize_columns(image: Any, native: Any, size: int) -> Any:
    """(native, w, 3) -> (size, w, 3) uint8; ``native`` is a data node."""
    n = BORDER_PX
    # The axis that keeps its size counts as growing; linear leaves it exactly alone, and is cheap.
    linear, lanczos = int(types.INTERP_LINEAR), int(types.INTERP_LANCZOS3)
    grows = fn.cast(native < size, dtype=types.INT32)
    keep = fn.cast(grows * (lanczos - linear) + linear, dtype=types.INTERP_TYPE)
    inside = _share_inside(image, native, size, keep)
    ends = []
    for start, edge in ((0, 0), (size - n, native - 1)):
        repeated = _resize_rows(image, size, start, start + n, keep, dtype=types.FLOAT)
        share = _rows(inside, start, n)
        # From a filter that saw the edge repeated outside the image to one that leaves the outside out.
        ends.append(fn.cast((repeated - (1.0 - share) * _rows(image, edge, 1)) / share, dtype=types.UINT8))
    return fn.cat(ends[0], _resize_rows(image, size, n, size - n, keep), ends[1], axis=0)


def _resize_rows(image: Any, size: int, start: int, end: int, keep: Any, dtype: Any = None) -> Any:
    """Only rows ``start`` to ``end`` of the image resized to ``size`` rows."""
    region: Any = {"roi_start": [start / size, 0.0], "roi_end": [end / size, 1.0], "roi_relative": True}
    return _lanczos(image, end - start, keep, dtype=dtype, **region)


def _share_inside(image: Any, native: Any, size: int, keep: Any) -> Any:
    """(size, 1, 1) float32: how much of each output's filter lies inside the image: a column of ones, resized, with a row of zeros at
    either end which DALI repeats outwards."""
    ones = fn.slice(image, start=[0, 0], shape=[1, 1], axes=[1, 2]) * 0.0 + 1.0
    framed = fn.slice(ones, start=[-1], shape=native + 2, axes=[0], out_of_bounds_policy="pad")
    zero = native * 0.0
    return _lanczos(framed, size, keep, roi_start=fn.stack(zero + 1.0, zero), roi_end=fn.stack(zero + native + 1.0, zero + 1.0))


def _lanczos(image: Any, size: int, keep: Any, **region: Any) -> Any:
    return fn.resize(image, resize_y=size, mode="stretch", antialias=True, min_filter=types.INTERP_LANCZOS3, mag_filter=keep, **region)


def _rows(image: Any, start: Any, count: int) -> Any:
    return fn.slice(image, start=start, shape=[count], axes=[0])


def _transpose(image: Any) -> Any:
    return fn.transpose(image, perm=[1, 0, 2], transpose_layout=False)
