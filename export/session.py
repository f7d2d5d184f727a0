"""Depth from an ONNX file in numpy terms, by onnxruntime on a CPU or a GPU. Never torch, never onnx."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.config import SIZE_MULTIPLE_PX
from export.choices import AssumedFacts
from export.runtime.bounds import FATAL, within_seconds
from export.runtime.fitting import resize_image
from export.runtime.onnx_file import MAX_RUN_PIXELS, open_model
from export.runtime.providers import best_session, check_provider, faults, gpu_session, import_onnxruntime, reason
from splits.errors import InputError
from splits.limits import MODEL_BYTES, MODEL_SECONDS

# Images per run of a model with an open batch: beyond, nothing is faster and the memory grows.
MAX_BATCH = 16
# Of a run on a CPU, where more images at once are no faster: a ResNet-50 takes 0.9 GiB for so many.
MOST_PIXELS_ON_CPU = 2**20
# How onnxruntime says that there is no room for a tensor.
LACKS_MEMORY = re.compile(r"Available memory of|Failed to allocate memory|would require more than \d+ bytes")
# Input shapes whose buffers, and on a GPU recorded graphs, are kept.
KEPT_SHAPES = 8
# Run option of onnxruntime: which recorded graph is meant; -1 neither records nor replays.
GRAPH_OPTION, NO_GRAPH = "gpu_graph_id", -1


class Buffers(NamedTuple):
    """What one input shape is run in, at addresses that stay: a recorded graph knows no others.

    Attributes:
        staging: the input in the CPU's memory. input, output: both where the model runs.
        binding, run_options: onnxruntime's.
    """

    staging: NDArray[Any]
    input: Any
    output: Any
    binding: Any
    run_options: Any


class DepthSession:
    """A depth network in an ONNX file, ready to predict. Threads may share it; they take turns.

    On CUDA the first run of a shape is recorded, which other CUDA work of the process at that moment can make fail: see ``warm_up``.

    Attributes:
        facts: what the file says of itself; of a file that md-export did not write, what was assumed.
        provider: what it runs on: cpu, cuda or tensorrt.
    """

    def __init__(self, path: Path | str, provider: str = "auto", assumed: AssumedFacts | None = None) -> None:
        """Load the file.

        Args:
            provider: auto, cpu, cuda or tensorrt. auto is CUDA where there is a GPU and it can be used, else the CPU; the others run or
                raise.
            assumed: the facts of a file that md-export did not write.

        Raises:
            InputError: no onnxruntime, no such provider here, no depth network in the file, or facts that are missing.
        """
        path = Path(path)
        check_provider(provider)
        start_s = process_time()
        session, self.facts, self._form = open_model(path, assumed)
        graphs = not self.facts.preprocessing  # its nodes that work on shapes run on the CPU
        self.provider = provider
        if provider == "auto":
            session, self.provider = best_session(path, session, self.facts.precision, graphs=graphs)
        elif provider != "cpu":
            session = gpu_session(path, provider, self.facts.precision, graphs=graphs)
        self._path, self._session = path, session
        self._opening_s = process_time() - start_s
        self._device = "cpu" if self.provider == "cpu" else "cuda"
        self._most_pixels = MOST_PIXELS_ON_CPU if self._device == "cpu" else MAX_RUN_PIXELS
        self._kept: dict[tuple[int, ...], Buffers] = {}
        self._turn = Lock()

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the network's input, to which images of other sizes are resized."""
        return self.facts.size_px

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth (B,h,w) of uint8 images (B,H,W,3) in RGB: metres where ``facts.metric_factor`` is known, else the network's unit.

        Frames may have any size: those of another than the network's are resized to ``size_px`` as md-predict does (LANCZOS) and as the
        network was trained, and h,w is ``size_px``. Frames of just that size go in as they are, which is fastest. Two kinds of file take
        others as they are too: with ``facts.preprocessing`` the graph itself resizes; with ``facts.dynamic_size`` it computes at any size
        of multiples of 32, and h,w is then the frames'.

        Args:
            images: (B, H, W, 3) uint8, RGB.

        Raises:
            InputError: no such images; or the device failed.
        """
        raw = self._run(images)
        unit_m = np.float32(self.facts.metric_factor or 1.0)
        if self.facts.output == "depth_m":
            return raw
        return raw * unit_m if self.facts.output == "depth" else unit_m / self._inverse(raw)

    def inv_depth(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Inverse depth (B,h,w) of uint8 images (B,H,W,3), 1 over the network's unit; raises as ``predict``."""
        return self._inverse(self._run(images))

    def warm_up(self, num_images: int = 1) -> None:
        """Predict ``num_images`` black images of the network's size: the first run of a shape finds kernels, makes buffers, records."""
        self._run(np.zeros((num_images, *self.size_px, 3), np.uint8))

    def _inverse(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """1 over the network's unit, of what the graph gives."""
        if self.facts.output == "inv_depth":
            return raw
        if self.facts.output == "disp":
            lowest, highest = 1 / self.facts.max_depth, 1 / self.facts.min_depth
            return (lowest + (highest - lowest) * raw).astype(np.float32)
        unit = self.facts.metric_factor if self.facts.output == "depth_m" else None
        with np.errstate(divide="ignore", over="ignore"):  # of depth 0, which no network of ours gives
            return np.float32(unit or 1.0) / raw

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the graph gives (B,h,w), in runs of as many images as it takes; a fixed batch is filled with its last image."""
        images = self._fitted(images)
        size_px = images.shape[1:3] if self.facts.dynamic_size else self.size_px
        height, width = (a if isinstance(a, int) else b for a, b in zip(self._form.output_shape[-2:], size_px, strict=True))
        result = np.empty((len(images), height, width), np.float32)
        step = self._form.batch or max(1, min(MAX_BATCH, self._most_pixels // (size_px[0] * size_px[1])))
        for first in range(0, len(images), step):
            part = images[first : first + step]
            count = len(part)
            if self._form.batch is not None and count < step:
                part = np.concatenate([part, np.repeat(part[-1:], step - count, axis=0)])
            with self._turn:
                result[first : first + count] = self._run_once(part, (height, width))[:count]
        return result

    def _run_once(self, images: NDArray[np.uint8], output_px: tuple[int, int]) -> NDArray[np.float32]:
        try:
            buffers = self._buffers(images.shape, output_px)
            if self._form.takes_bytes:
                buffers.staging[...] = images
            else:
                np.divide(images.transpose(0, 3, 1, 2), np.float32(255), out=buffers.staging)
            buffers.input.update_inplace(buffers.staging)
            if self._device == "cpu":
                self._run_bounded(buffers, len(images))
            else:
                self._session.run_with_iobinding(buffers.binding, buffers.run_options)
            buffers.binding.synchronize_outputs()
        except faults() as error:
            if LACKS_MEMORY.search(reason(error)) and self._device == "cpu":
                raise InputError(
                    f"{self._path} needs more memory than the {MODEL_BYTES.most / 2**30:.2f} GiB that a model gets, with images "
                    f"{images.shape}; predict at a smaller size or, where that much is meant, set {MODEL_BYTES.variable} to more bytes"
                ) from error
            failed = f"{self._path} failed on {self.provider} with images {images.shape} ({reason(error)})"
            raise InputError(f"{failed}; try another provider or fewer images, or export it again") from error
        raw: NDArray[np.float32] = buffers.output.numpy().reshape(len(images), *output_px)
        return raw

    def _run_bounded(self, buffers: Buffers, count: int) -> None:
        """One run, ended when it takes too long; opening the model counts as a part of the first."""
        limit_s, self._opening_s = MODEL_SECONDS.most * count - self._opening_s, 0.0

        def run() -> None:
            self._session.run_with_iobinding(buffers.binding, buffers.run_options)

        def stop() -> None:
            buffers.run_options.terminate = True

        try:
            within_seconds(limit_s, run, stop, self._path)
        except InputError:
            # A run that did not end may still use the buffers.
            self._kept.clear()
            raise

    def _buffers(self, shape: tuple[int, ...], output_px: tuple[int, int]) -> Buffers:
        """The buffers of images ``shape`` (B,H,W,3): those of the first ``KEPT_SHAPES`` stay, others are made for one run."""
        if shape in self._kept:
            return self._kept[shape]
        onnxruntime = import_onnxruntime()
        batch, height, width, _ = shape
        staging = np.empty(shape, np.uint8) if self._form.takes_bytes else np.empty((batch, 3, height, width), np.float32)
        output_shape = [batch, *([1] if len(self._form.output_shape) == 4 else []), *output_px]
        input_value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(staging.shape, staging.dtype.type, self._device, 0)
        output_value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output_shape, np.float32, self._device, 0)
        binding, run_options = self._session.io_binding(), onnxruntime.RunOptions()
        binding.bind_ortvalue_input(self._form.input, input_value)
        binding.bind_ortvalue_output(self._form.output, output_value)
        kept = len(self._kept) < KEPT_SHAPES
        run_options.log_severity_level = FATAL
        run_options.add_run_config_entry(GRAPH_OPTION, str(len(self._kept) + 1 if kept else NO_GRAPH))
        buffers = Buffers(staging, input_value, output_value, binding, run_options)
        if kept:
            self._kept[shape] = buffers
        return buffers

    def _fitted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The images at a size that the network takes: as they are where they have one."""
        if not isinstance(images, np.ndarray):
            raise InputError(f"images are of type {type(images).__name__}; give an array, uint8 (B,H,W,3), RGB")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(f"images are {images.dtype} {images.shape}; give uint8 (B,H,W,3), RGB")
        height, width = images.shape[1:3]
        if not (height and width):
            raise InputError(f"images are {images.shape} and hold no pixel; give uint8 (B,H,W,3), RGB")
        if (height, width) == self.size_px or self.facts.preprocessing:
            return images
        if self.facts.dynamic_size and not (height % SIZE_MULTIPLE_PX or width % SIZE_MULTIPLE_PX):
            return images
        resized = np.empty((len(images), *self.size_px, 3), np.uint8)
        for into, image in zip(resized, images, strict=True):
            into[...] = resize_image(Image.fromarray(image), self.size_px)
        return resized
