"""Depth in Python, as md-predict makes it at the command line: the same numbers, to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dataload.option import whole_number
from dataload.system.home import expand_home
from export.choices import ModelOptions
from export.prediction.depth import Depth
from export.prediction.given import ImageLike, is_one, named_images
from export.prediction.predict import BATCH_SIZE, Predictor, predict_batches
from export.prediction.predictors import open_predictor
from splits.errors import InputError
from splits.faults import describe_fault

if TYPE_CHECKING:
    from PIL import Image

# Threads that read and resize images while the network predicts.
NUM_THREADS = 4


class DepthModel:
    """A depth network, ready to predict images of any size; made by ``load``."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        no_cuda: bool = False,
        amp: str = "auto",
        provider: str = "auto",
        height: int | None = None,
        width: int | None = None,
        onnx_output: str | None = None,
        min_depth: float | None = None,
        max_depth: float | None = None,
    ) -> DepthModel:
        """The model of a name, a folder or a file; the keywords are md-predict's options.

        Args:
            model: a released model's name (``mono+stereo_640x192``), which is downloaded once; or a run folder, a weights folder, one of
                its files, a released model's zip, or an ONNX file. An ONNX file needs no torch.
            no_cuda: predict on the CPU. Without it a GPU is used where there is one.
            amp: precision of weights: auto, off, bf16 or fp16; auto is fp16 on a GPU and fp32 on a CPU.
            provider: what an ONNX file runs on: auto, cpu, cuda or tensorrt.
            height: input height in pixels, of weights that record none, or of an ONNX file that leaves it open.
            width: input width, likewise.
            onnx_output: disp, inv_depth or depth: what an ONNX file gives that md-export did not write.
            min_depth: smallest depth of the range that its disp spans, in the network's unit.
            max_depth: largest depth of that range.

        Raises:
            InputError: no such model, a damaged one, a download that failed, options that it cannot take, or a package missing that it
                needs.
        """
        if not isinstance(model, (str, os.PathLike)):
            raise InputError(f"model={model!r} must be a name or a path")
        try:
            options = ModelOptions(
                model=Path(expand_home(os.fspath(model))), no_cuda=no_cuda, amp=amp, provider=provider, height_px=height, width_px=width,
                onnx_output=onnx_output, min_depth=min_depth, max_depth=max_depth,
            )  # fmt: skip
            return cls(open_predictor(options))
        except OSError as error:
            raise InputError(f"model {model} cannot be opened: {describe_fault(error)}") from error

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the network's input, to which images are resized, and of its inverse depth."""
        return self._predictor.size_px

    @property
    def unit_m(self) -> float | None:
        """Metres in the network's unit; None where unknown, as for a model trained without stereo."""
        return self._predictor.unit_m

    @overload
    def predict(self, images: str | os.PathLike[str] | Image.Image, batch_size: int = BATCH_SIZE) -> Depth: ...

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...] | Iterator[Any], batch_size: int = BATCH_SIZE) -> list[Depth]: ...

    @overload
    def predict(self, images: Any, batch_size: int = BATCH_SIZE) -> Any: ...

    def predict(self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH_SIZE) -> Depth | list[Depth]:
        """The depth of one image, or of each of several, in their order. Images may be of any sizes; they are resized as md-predict does.

        Args:
            images: a path, a PIL image, a uint8 array (H, W, 3), or a torch tensor (3, H, W) on any device, of uint8 or of floats in 0..1,
                which are rounded to 8 bits; all are RGB. Or several: a batch (B, H, W, 3) or (B, 3, H, W), or a list of any of these.
            batch_size: images per pass of the network.

        What is no path is read when its turn comes, and kept as it was then: a generator may fill one buffer again and again.

        Returns:
            A ``Depth`` for one image, else a list of them. Paths give the numbers that md-predict writes of them, to the bit, where the
            list and the batch size (8) are its own: in other batches a value may be rounded differently.

        Raises:
            InputError: no image, one that cannot be read, or of another dtype, shape or range; or the device failed.
        """
        batch_size = whole_number("batch_size", batch_size, least=1)
        depths: list[Depth] = []
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for batch in predict_batches(self._predictor, named_images(images), pool, batch_size=batch_size):
                for depth in batch:
                    if not isinstance(depth, Depth):
                        raise depth
                    depths.append(depth)
        return depths[0] if is_one(images) else depths

    def __repr__(self) -> str:
        height, width = self.size_px
        return f"DepthModel({width}x{height}, {'unknown unit' if self.unit_m is None else f'{self.unit_m:g} m per unit'})"
