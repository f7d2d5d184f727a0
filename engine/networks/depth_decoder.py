"""The decoder from encoder features to one or more maps in (0, 1) at up to four resolutions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.choices import SCALES, check_scales
from engine.networks.border import double_with_border, reflect_border
from engine.networks.recompute import Recomputing
from splits.errors import InputError

NUM_STAGES = 5
# Channels after the stage that ends at scale 0, 1, ... 4.
NUM_CH_DEC = (16, 32, 64, 128, 256)


class Conv3x3(nn.Module):
    """3x3 convolution of a map that already has a reflected border: zeros there would give wrong depth at the image's border."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, bordered: Tensor) -> Tensor:
        """(B, in, h + 2, w + 2) to (B, out, h, w)."""
        return self.conv(bordered)


class ConvBlock(nn.Module):
    """``Conv3x3`` and ELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)

    def forward(self, bordered: Tensor) -> Tensor:
        """(B, in, h + 2, w + 2) to (B, out, h, w)."""
        return F.elu(self.conv(bordered), inplace=True)


class DepthDecoder(Recomputing):
    """Five stages of convolution, doubling and skip connection, with a sigmoid head at each requested scale.

    ``decoder`` is one list: two blocks per stage from the coarsest to the finest (0..9), then the heads in the order of ``scales``;
    the order fixes the state-dict keys.

    Args:
        num_ch_enc: channels of the encoder's five feature maps, finest first.
        scales: distinct scales in 0..3; scale s has 1/2^s of the encoder's input size.
        num_output_channels: maps per scale: 1 for disp, one per source for the predictive mask.

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
        # Stages finer than the finest requested scale are kept for the file format; nothing reads them.
        for block in blocks[2 * (NUM_STAGES - min(self.scales)) :]:
            block.requires_grad_(False)

    @property
    def heads(self) -> list[Conv3x3]:
        """The output convolutions, in the order of ``scales``."""
        return [head for head in self.decoder[2 * NUM_STAGES :] if isinstance(head, Conv3x3)]

    def forward(self, features: Sequence[Tensor]) -> dict[int, Tensor]:
        """Maps by scale, fp32 of shape (B, num_output_channels, H >> s, W >> s) in (0, 1), from five features, finest first."""
        outputs: dict[int, Tensor] = {}
        x = reflect_border(features[-1])
        for stage in reversed(range(min(self.scales), NUM_STAGES)):
            x, *output = self.section(self._stage, stage, x, features[stage - 1] if stage > 0 else None)
            if output:
                outputs[stage] = output[0]
        return outputs

    def _stage(self, stage: int, bordered: Tensor, skipped: Tensor | None) -> tuple[Tensor, ...]:
        """What the next stage reads, twice the size of ``bordered`` and with a border too, and this stage's maps where asked for."""
        first = 2 * (NUM_STAGES - 1 - stage)
        x = self.decoder[first](bordered)
        x = reflect_border(self.decoder[first + 1](double_with_border(x, skipped)))
        if stage not in self.scales:
            return (x,)
        logits = self.decoder[2 * NUM_STAGES + self.scales.index(stage)](x)
        # A half-precision sigmoid would cost 0.4 % of depth.
        return x, torch.sigmoid(logits.float())


def set_initial_disp(decoder: DepthDecoder, disp: float) -> None:
    """Make an untrained decoder predict about ``disp`` everywhere: each head's bias becomes logit(disp).

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
