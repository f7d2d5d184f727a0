"""Augmentation on a CPU: resized frames and draws of a sample in, its images out; what describes the augmentation, for its twin too.

A mirrored frame is mirrored after the resize, which gives the same pixels as the published order (mirror, then resize) because the
filter is symmetric, moves less memory, and lets frames be kept resized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from dataload.config import DataConfig
from dataload.pipeline.decode import resize
from dataload.pipeline.order import Draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, UInt8
    from torch import Tensor

# The colour map is applied to four pixels at a time: a product of 12x12 runs several times faster than one of 3x3.
PIXELS_PER_ROW = 4


class Images(NamedTuple):
    """The images of a batch, uint8 (B, ..., h, w, 3), or of one sample, without the B; fields as in ``Batch``."""

    target: tuple[Tensor, ...]
    sources: tuple[Tensor, ...]
    target_input: Tensor
    source_inputs: Tensor

    def sample(self, row: int) -> Images:
        """Views of one sample."""
        return Images(
            tuple(level[row] for level in self.target),
            tuple(level[row] for level in self.sources),
            self.target_input[row],
            self.source_inputs[row],
        )


def empty_images(config: DataConfig, batch_size: int, *, training: bool) -> Images:
    """Unfilled frames for ``batch_size`` samples. Unless ``training``, nothing is jittered and the inputs share the memory of level 0."""

    def empty(count: tuple[int, ...], level: int) -> Tensor:
        shape = (batch_size, *count, config.height_px >> level, config.width_px >> level, 3)
        return torch.empty(shape, dtype=torch.uint8)

    target = tuple(empty((), level) for level in range(config.num_levels))
    sources = tuple(empty((config.num_sources,), level) for level in range(config.source_levels))
    temporal = len(config.temporal_ids)
    if training:
        return Images(target, sources, empty((), 0), empty((temporal,), 0))
    return Images(target, sources, target[0], sources[0][:, :temporal])


def jitter(image: UInt8[Tensor, "H W 3"], draw: Draw, out: UInt8[Tensor, "H W 3"]) -> None:
    """Writes the colour-mapped ``image`` to ``out``: ``color @ x + color_mean @ mean(image)``, clipped and rounded."""
    n = PIXELS_PER_ROW
    matrix = torch.from_numpy(np.kron(np.eye(n, dtype=np.float32), draw.color.T))
    pixels: Float[Tensor, "rows 3n"] = image.reshape(-1, 3 * n).float()
    mean = pixels.mean(0).view(n, 3).mean(0)
    # The cast to uint8 cuts off, so adding a half rounds.
    shift = torch.from_numpy(draw.color_mean) @ mean + 0.5
    out.view(-1, 3 * n).copy_(torch.addmm(shift.repeat(n), pixels, matrix).clamp_(0, 255))


def fill_sample(frames: Sequence[UInt8[Tensor, "H W 3"]], draw: Draw, out: Images, *, training: bool) -> None:
    """Makes the images of one sample.

    Args:
        frames: as recorded, at the size of level 0: the target, then the sources in the order of ``Batch.sources``.
        draw: its augmentation.
        out: views to fill (see ``Images.sample``); of ``empty_images(..., training=training)``.
        training: also fill the network inputs, which otherwise are the frames themselves.
    """
    fill_pyramid(frames[0], draw, out.target)
    for s, frame in enumerate(frames[1:]):
        fill_pyramid(frame, draw, [level[s] for level in out.sources])
    if not training:
        return
    temporal = len(out.source_inputs)
    for recorded, seen in [(out.target[0], out.target_input), *zip(out.sources[0][:temporal], out.source_inputs, strict=True)]:
        if draw.jitter:
            jitter(recorded, draw, seen)
        else:
            seen.copy_(recorded)


def fill_pyramid(frame: UInt8[Tensor, "H W 3"], draw: Draw, levels: Sequence[UInt8[Tensor, "h w 3"]]) -> None:
    """Fills the levels of one frame, each resized from the one before, and mirrored where ``draw`` says so."""
    for number, level in enumerate(levels):
        if number > 0:
            frame = resize(frame, (level.shape[0], level.shape[1]))
        level.copy_(frame.flip(1) if draw.flip else frame)
