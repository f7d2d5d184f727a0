"""Files and draws in, uint8 frames out, without DALI: the twin of ``dataload.graph``, and the faster of the two on a CPU.

Each frame is decoded and resized once; a mirrored frame is mirrored after the resize, which gives the same pixels as the published
order (mirror, then resize) because the filter is symmetric, and moves less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from dataload.config import DataConfig
from dataload.order import Draw
from splits.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

JPEG_START = b"\xff\xd8"
# torch has had a uint8 Lanczos on the CPU since 2.13; it differs from Pillow's by one level at most and takes an eighth of its time.
TORCH_HAS_LANCZOS = hasattr(torch.ops.aten, "_upsample_lanczos2d_aa")
# The colour map is applied to four pixels at a time: a product of 12x12 runs several times faster than one of 3x3.
PIXELS_PER_ROW = 4


class Frames(NamedTuple):
    """The images of a batch, uint8 (B, ..., h, w, 3), or of one sample, without the B; fields as in ``Batch``."""

    target: tuple[Tensor, ...]
    sources: tuple[Tensor, ...]
    target_input: Tensor
    source_inputs: Tensor

    def sample(self, row: int) -> Frames:
        """Views of one sample."""
        return Frames(
            tuple(level[row] for level in self.target),
            tuple(level[row] for level in self.sources),
            self.target_input[row],
            self.source_inputs[row],
        )


def empty_frames(config: DataConfig, batch_size: int, *, training: bool, pin_memory: bool = False) -> Frames:
    """Unfilled frames for ``batch_size`` samples. Unless ``training``, nothing is jittered and the inputs share the memory of level 0."""

    def empty(count: tuple[int, ...], level: int) -> Tensor:
        shape = (batch_size, *count, config.height_px >> level, config.width_px >> level, 3)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=pin_memory)

    target = tuple(empty((), level) for level in range(config.num_levels))
    sources = tuple(empty((config.num_sources,), level) for level in range(config.source_levels))
    temporal = len(config.temporal_ids)
    if training:
        return Frames(target, sources, empty((), 0), empty((temporal,), 0))
    return Frames(target, sources, target[0], sources[0][:, :temporal])


def decode(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a JPEG or PNG file.

    Raises:
        InputError: the file cannot be read, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; restore the file, or take its line out of the split") from error
    if data.startswith(JPEG_START):
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass  # Pillow reads a few kinds that simplejpeg refuses (CMYK, harmless garbage), and says best what is wrong with the rest.
    try:
        with Image.open(BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is a damaged image ({error}); restore the file, or take its line out of the split") from error


def resize(image: UInt8[Tensor, "h w 3"], size_px: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    """Lanczos (a = 3, widened when shrinking) to ``size_px`` = (height, width); at most one level from Pillow's."""
    if TORCH_HAS_LANCZOS:
        # Seen as channels_last, which is how the fast kernel wants it.
        return F.interpolate(image[None].permute(0, 3, 1, 2), size=size_px, mode="lanczos", antialias=True)[0].permute(1, 2, 0)
    height, width = size_px
    resized = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized))


def jitter(image: UInt8[Tensor, "H W 3"], draw: Draw, out: UInt8[Tensor, "H W 3"]) -> None:
    """Writes the colour-mapped ``image`` to ``out``: ``color @ x + color_mean @ mean(image)``, clipped and rounded."""
    n = PIXELS_PER_ROW
    matrix = torch.from_numpy(np.kron(np.eye(n, dtype=np.float32), draw.color.T))
    pixels: Float[Tensor, "rows 3n"] = image.reshape(-1, 3 * n).float()
    mean = pixels.mean(0).view(n, 3).mean(0)
    # The cast to uint8 cuts off, so adding a half rounds.
    shift = torch.from_numpy(draw.color_mean) @ mean + 0.5
    out.view(-1, 3 * n).copy_(torch.addmm(shift.repeat(n), pixels, matrix).clamp_(0, 255))


def fill_sample(paths: Sequence[Path], draw: Draw, out: Frames, *, training: bool) -> None:
    """Loads one sample into ``out`` (see ``Frames.sample``).

    Args:
        paths: the target, then the sources in the order of ``Batch.sources``.
        draw: its augmentation.
        out: views to fill; of ``empty_frames(..., training=training)``.
        training: also fill the network inputs, which otherwise are the frames themselves.

    Raises:
        InputError: a file cannot be read, or is damaged.
    """
    fill_pyramid(paths[0], draw, out.target)
    for s, path in enumerate(paths[1:]):
        fill_pyramid(path, draw, [level[s] for level in out.sources])
    if not training:
        return
    temporal = len(out.source_inputs)
    for recorded, seen in [(out.target[0], out.target_input), *zip(out.sources[0][:temporal], out.source_inputs, strict=True)]:
        if draw.jitter:
            jitter(recorded, draw, seen)
        else:
            seen.copy_(recorded)


def fill_pyramid(path: Path, draw: Draw, levels: Sequence[UInt8[Tensor, "h w 3"]]) -> None:
    """Loads one frame into its levels, each resized from the one before, the first from the file."""
    image = torch.from_numpy(decode(path))
    for number, level in enumerate(levels):
        image = resize(image, (level.shape[0], level.shape[1]))
        if number == 0 and draw.flip:
            image = image.flip(1)
        level.copy_(image)
