"""The yardstick: a loader that does the work Monodepth2's does, in the way it does it.

Per frame: Pillow decodes and mirrors at native size; a cascade of Lanczos resizes makes four scales; every one of the five sizes,
native included, becomes a float tensor once as it is and once jittered; the native ones are then thrown away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dataload.config import DataConfig
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef

NUM_SCALES = 4
NATIVE = -1
Sample = dict[Any, torch.Tensor]


class PlainDataset(TorchDataset[Sample]):
    """One sample as a dictionary of float tensors, keyed by what they are, the frame and the scale."""

    def __init__(self, config: DataConfig, dataset: Dataset, refs: Sequence[FrameRef]) -> None:
        self.config, self.dataset, self.refs = config, dataset, refs

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {}
        jittered, flipped = random.random() > 0.5, random.random() > 0.5
        ref = self.refs[index]
        pyramids = {frame_id: self._pyramid(ref, frame_id, flipped) for frame_id in self.config.frame_ids}
        jitter = random_jitter() if jittered else lambda image: image
        for frame_id, pyramid in pyramids.items():
            for scale, image in pyramid.items():
                sample["image", frame_id, scale] = TF.to_tensor(image)
                sample["jittered", frame_id, scale] = TF.to_tensor(jitter(image))
            del sample["image", frame_id, NATIVE], sample["jittered", frame_id, NATIVE]
        for scale in range(NUM_SCALES):
            K = np.eye(4, dtype=np.float32)
            K[:3, :3] = self.dataset.K(ref, self.config.height_px >> scale, self.config.width_px >> scale)
            sample["K", scale], sample["inverse_K", scale] = torch.from_numpy(K), torch.from_numpy(np.linalg.pinv(K))
        return sample

    def _pyramid(self, ref: FrameRef, frame_id: int, flipped: bool) -> dict[int, Image.Image]:
        """The native image and its scales, each resized from the one before."""
        with Image.open(self.dataset.image_path(ref, frame_id)) as file:
            image = file.convert("RGB")
        pyramid = {NATIVE: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image}
        for scale in range(NUM_SCALES):
            size = (self.config.width_px >> scale, self.config.height_px >> scale)
            pyramid[scale] = pyramid[scale - 1].resize(size, Image.Resampling.LANCZOS)
        return pyramid


def random_jitter() -> Callable[[Image.Image], Image.Image]:
    """Four colour operations with random factors in random order, on a Pillow image."""
    brightness, contrast, saturation = (random.uniform(0.8, 1.2) for _ in range(3))
    hue = random.uniform(-0.1, 0.1)
    operations: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: TF.adjust_brightness(image, brightness),
        lambda image: TF.adjust_contrast(image, contrast),
        lambda image: TF.adjust_saturation(image, saturation),
        lambda image: TF.adjust_hue(image, hue),
    ]
    random.shuffle(operations)

    def apply(image: Image.Image) -> Image.Image:
        for operation in operations:
            image = operation(image)
        return image

    return apply


def plain_loader(config: DataConfig, dataset: Dataset, refs: Sequence[FrameRef], *, num_workers: int) -> DataLoader[Sample]:
    """Shuffled full batches by worker processes, which stay alive between epochs."""
    return DataLoader(
        PlainDataset(config, dataset, refs),
        config.batch_size,
        shuffle=True,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
        persistent_workers=num_workers > 0,
    )
