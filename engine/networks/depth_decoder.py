"""The decoder from encoder features to one or more maps in (0, 1) at up to four resolutions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.recompute import Recomputing
from splits.errors import InputError

NUM_STAGES = 5
# Channels after the stage that ends at scale 0, 1, ... 4.
NUM_CH_DEC = (16, 32, 64, 128, 256)
SCALES = (0, 1, 2, 3)


class Conv3x3(nn.Module):
    """3x3 convolution on a reflected border: zeros there would draw a frame of wrong depth."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w)."""
        return self.conv(reflect_border(x))


class ConvBlock(nn.Module):
    """``Conv3x3`` and ELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w)."""
        return F.elu(self.conv(x), inplace=True)


class DepthDecoder(Recomputing):
    """Five stages of convolution, doubling and skip connection, with a sigmoid head at each asked scale.

    ``decoder`` is one list: two blocks a stage from the coarsest to the finest (0..9), then the heads in the order of ``scales``;
    the order fixes the state-dict keys.

    Args:
        num_ch_enc: channels of the encoder's five feature maps, finest first.
        scales: distinct scales in 0..3; scale s has 1/2^s of the encoder's input size.
        num_output_channels: maps per scale: 1 for disp, one a source for the predictive mask.

    Raises:
        InputError: ``scales`` is empty, repeats a scale or holds one outside 0..3.
    """

    def __init__(self, num_ch_enc: Sequence[int], scales: Sequence[int] = SCALES, num_output_channels: int = 1) -> None:
        super().__init__()
        check_scales(scales)
        self.scales = tuple(scales)
        blocks: list[nn.Module] = []
        for stage in reversed(range(NUM_STAGES)):
            from_below = num_ch_enc[-1] if stage == NUM_STAGES - 1 else NUM_CH_DEC[stage + 1]
            skipped = num_ch_enc[stage - 1] if stage > 0 else 0
            blocks += [ConvBlock(from_below, NUM_CH_DEC[stage]), ConvBlock(NUM_CH_DEC[stage] + skipped, NUM_CH_DEC[stage])]
        heads = [Conv3x3(NUM_CH_DEC[scale], num_output_channels) for scale in self.scales]
        self.decoder = nn.ModuleList([*blocks, *heads])
        # Stages finer than the finest asked scale are kept for the files' sake, but nothing reads them.
        for block in blocks[2 * (NUM_STAGES - min(self.scales)) :]:
            block.requires_grad_(False)

    @property
    def heads(self) -> list[Conv3x3]:
        """The output convolutions, in the order of ``scales``."""
        return [head for head in self.decoder[2 * NUM_STAGES :] if isinstance(head, Conv3x3)]

    def forward(self, features: Sequence[Tensor]) -> dict[int, Tensor]:
        """Maps by scale, fp32 of shape (B, num_output_channels, H >> s, W >> s) in (0, 1), from five features, finest first."""
        outputs: dict[int, Tensor] = {}
        x = features[-1]
        for stage in reversed(range(min(self.scales), NUM_STAGES)):
            x, *output = self.section(self._stage, stage, x, features[stage - 1] if stage > 0 else None)
            if output:
                outputs[stage] = output[0]
        return outputs

    def _stage(self, stage: int, x: Tensor, skipped: Tensor | None) -> tuple[Tensor, ...]:
        """What the next stage reads, twice the size of ``x``, and this stage's maps where its scale is asked for."""
        first = 2 * (NUM_STAGES - 1 - stage)
        x = F.interpolate(self.decoder[first](x), scale_factor=2.0, mode="nearest")
        if skipped is not None:
            x = torch.cat([x, skipped], dim=1)
        x = self.decoder[first + 1](x)
        if stage not in self.scales:
            return (x,)
        logits = self.decoder[2 * NUM_STAGES + self.scales.index(stage)](x)
        # A half-precision sigmoid would cost 0.4 % of depth.
        return x, torch.sigmoid(logits.float())


def reflect_border(x: Tensor) -> Tensor:
    """(B, C, h, w) with one more pixel around, mirrored at the edge pixel: (B, C, h + 2, w + 2)."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        padded: Tensor = _ReflectBorder.apply(x)
        return padded
    return F.pad(x, (1, 1, 1, 1), mode="reflect")


class _ReflectBorder(torch.autograd.Function):
    """The same by plain copies in the input's own dtype and layout; on a CPU, autocast has padding done in fp32 at forty times the cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Copy inside, then the rows, then the columns with the corners."""
        batch, channels, height, width = x.shape
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        padded = torch.empty(batch, channels, height + 2, width + 2, dtype=x.dtype, device=x.device, memory_format=memory_format)
        padded[..., 1:-1, 1:-1] = x
        padded[..., 0, 1:-1], padded[..., -1, 1:-1] = x[..., 1, :], x[..., -2, :]
        padded[..., 0], padded[..., -1] = padded[..., 2], padded[..., -3]
        return padded

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        """Fold the border's gradient back onto the pixels it mirrors."""
        inner = slice(1, -1)
        columns = upstream[..., inner].clone()
        columns[..., 1] += upstream[..., 0]
        columns[..., -2] += upstream[..., -1]
        gradient = columns[..., inner, :]
        gradient[..., 1, :] += columns[..., 0, :]
        gradient[..., -2, :] += columns[..., -1, :]
        return gradient


def set_initial_disp(decoder: DepthDecoder, disp: float) -> None:
    """Make an untrained decoder answer about ``disp`` everywhere: each head's bias becomes logit(disp).

    Raises:
        InputError: ``disp`` is not strictly between 0 and 1.
    """
    if not 0.0 < disp < 1.0:
        raise InputError(
            f"initial disp {disp:g} must lie strictly between 0 and 1; choose an initial depth between min_depth and max_depth"
        )
    for head in decoder.heads:
        if head.conv.bias is not None:
            nn.init.constant_(head.conv.bias, math.log(disp / (1.0 - disp)))


def check_scales(scales: Sequence[int]) -> None:
    """Raise InputError unless ``scales`` are distinct members of 0..3, at least one."""
    if not scales or len(set(scales)) != len(scales) or not set(scales) <= set(SCALES):
        raise InputError(f"scales={' '.join(map(str, scales)) or '(none)'} must be distinct scales out of 0 1 2 3, at least one")
