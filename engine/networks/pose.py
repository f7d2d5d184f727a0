"""Networks for the motion between frames: a decoder on encoder features, and a small network of its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Motion = tuple[Tensor, Tensor]
# Keeps the first motions small, so that the first warps stay inside the image.
MOTION_SCALE = 0.01
WIDTH = 256


class MotionHead(nn.Conv2d):
    """A 1x1 convolution averaged over space, scaled and split into motions.

    Averaging before the convolution gives the same result, as both are linear, and lets the last product run in fp32 on a few
    numbers, out of reach of autocast and TF32.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Motion:  # type: ignore[override]
        """Axis-angle and translation, (B, F, 3) fp32 each, from a map (B, in, h, w)."""
        assert self.bias is not None
        with torch.autocast(x.device.type, enabled=False):
            mean = x.float().mean(dim=(2, 3))
            outputs = (mean[:, None, :] * self.weight[:, :, 0, 0].float()).sum(dim=-1) + self.bias.float()
            motions = MOTION_SCALE * outputs.unflatten(1, (-1, 6))
        return motions[..., :3], motions[..., 3:]


class PoseDecoder(nn.Module):
    """Motions from the coarsest features of one or more images.

    Args:
        num_ch_enc: channels of the encoder's feature maps; the last is read.
        num_input_features: feature maps joined: 1 when the encoder saw all images at once, else one per image.
        num_frames_to_predict_for: motions F in the output.
    """

    def __init__(self, num_ch_enc: Sequence[int], num_input_features: int, num_frames_to_predict_for: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Conv2d(num_ch_enc[-1], WIDTH, 1),
                nn.Conv2d(WIDTH * num_input_features, WIDTH, 3, padding=1),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                MotionHead(WIDTH, 6 * num_frames_to_predict_for),
            ]
        )

    def forward(self, last_features: Sequence[Tensor]) -> Motion:
        """Axis-angle in radians and translation, each (B, F, 3) fp32, from maps (B, C, h, w), one per input feature."""
        squeeze, first, second, head = self.net
        x = torch.cat([F.relu(squeeze(feature)) for feature in last_features], dim=1)
        x = F.relu(second(F.relu(first(x))))
        motion: Motion = head(x)
        return motion


class PoseCNN(nn.Module):
    """Motions straight from images, without an encoder.

    Args:
        num_input_frames: images n on the channel axis; the output holds n - 1 motions.
    """

    def __init__(self, num_input_frames: int) -> None:
        super().__init__()
        widths = (3 * num_input_frames, 16, 32, 64, 128, 256, 256, 256)
        kernels = (7, 5, 3, 3, 3, 3, 3)
        convolutions = [
            nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)
            for before, after, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
        ]
        self.pose_conv = MotionHead(widths[-1], 6 * (num_input_frames - 1))
        self.net = nn.ModuleList(convolutions)

    def forward(self, images: Tensor) -> Motion:
        """Axis-angle in radians and translation, each (B, n - 1, 3) fp32, from (B, 3 n, H, W) in [0, 1] or uint8 in 0..255."""
        x = images / 255.0 if images.dtype == torch.uint8 else images
        for convolution in self.net:
            x = F.relu(convolution(x))
        motion: Motion = self.pose_conv(x)
        return motion
