"""The networks as they are exported: with normalisation, depth conversion and, where asked for, resizing inside the graph."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.geometry import disp_to_depth
from engine.inference.depth_network import DepthNetwork

# Lanczos's window, in pixels of the coarser of the two images.
SUPPORT = 3


class DeployedDepth(nn.Module):
    """A depth network between an image and a depth that needs no further arithmetic.

    Args:
        network: taken as it is; its weights may be half precision (``to_fp16``).
        output: ``disp``, ``inv_depth``, ``depth`` (the network's unit) or ``depth_m`` (metres).
        preprocessing: resize uint8 images of any size to the network's.
        metric_factor: metres in the network's unit; read for ``depth_m`` alone.
    """

    def __init__(self, network: DepthNetwork, output: str, *, preprocessing: bool = False, metric_factor: float | None = None) -> None:
        super().__init__()
        assert output != "depth_m" or metric_factor is not None
        self.network, self.output, self.preprocessing, self.metric_factor = network, output, preprocessing, metric_factor

    def forward(self, image: Tensor) -> Tensor:
        """(B,1,h,w) fp32 of ``image``: float (B,3,h,w) in 0..1, or with ``preprocessing`` uint8 (B,H,W,3)."""
        if self.preprocessing:
            image = lanczos(image, *self.network.size_px) / 255.0
        disp = self.network(image).float()
        if self.output == "disp":
            return disp
        inv_depth, depth = disp_to_depth(disp, self.network.min_depth, self.network.max_depth)
        if self.output == "inv_depth":
            return inv_depth
        return depth if self.metric_factor is None or self.output == "depth" else depth * self.metric_factor


def lanczos(images: Tensor, height_px: int, width_px: int) -> Tensor:
    """uint8 images (B,H,W,3) resized as Pillow does it, to within its rounding: levels (B,3,h,w), whole numbers in fp32.

    Two products with banded matrices; each pass ends in whole levels, as Pillow's does. Columns come first, as in the resize of training;
    Pillow since 13 takes the rows first where that is quicker. Any runtime has a product, while Lanczos is no operator of ONNX.
    """
    planes = images.permute(0, 3, 1, 2).float()
    for axis, size in ((3, width_px), (2, height_px)):
        weights = lanczos_weights(planes.shape[axis], size, planes.device)
        planes = planes @ weights.T if axis == 3 else weights @ planes
        planes = torch.floor(planes + 0.5).clamp(0.0, 255.0)
    return planes


def lanczos_weights(source_px: int, resized_px: int, device: torch.device) -> Tensor:
    """(resized, source): the share of each source pixel in each resized one, sinc(t) sinc(t / 3) for |t| < 3 with rows summing to 1.

    t is the distance of the pixels' centres in pixels of the coarser image. As its numerator is made in whole numbers, it is as exact
    for the last column of a wide image as for the first.
    """
    source = torch.arange(source_px, device=device, dtype=torch.int64)
    resized = torch.arange(resized_px, device=device, dtype=torch.int64)
    num_source = source[-1] + 1
    offset = (2 * resized[:, None] + 1) * num_source - (2 * source[None, :] + 1) * resized_px
    t = offset.float() / (2 * torch.maximum(num_source, torch.full_like(num_source, resized_px))).float()
    shares = torch.where(t.abs() < SUPPORT, _sinc(t) * _sinc(t / SUPPORT), 0.0)
    return shares / shares.sum(dim=1, keepdim=True)


def _sinc(t: Tensor) -> Tensor:
    angle = torch.pi * t
    return torch.where(t == 0, 1.0, torch.sin(angle) / torch.where(t == 0, 1.0, angle))


def transpose_head(network: DepthNetwork) -> DepthNetwork:
    """A copy whose finest head is a transposed convolution, of the same result.

    With a single channel to make, onnxruntime copies each pixel nine times for a convolution, 1.9 ms at 640x192 on two cores; transposed it
    is a small product and nine sums, 0.4 ms.
    """
    network = copy.deepcopy(network)
    finest = network.depth.heads[network.depth.scales.index(min(network.depth.scales))]
    convolution = finest.conv
    channels, made = convolution.in_channels, convolution.out_channels
    # It sums what it is given into a larger map; the padding takes that back to the inside of the border.
    transposed = nn.ConvTranspose2d(channels, made, 3, padding=2, dtype=convolution.weight.dtype)
    state = {"weight": convolution.weight.flip(2, 3).transpose(0, 1), "bias": convolution.bias}
    transposed.load_state_dict({name: tensor for name, tensor in state.items() if tensor is not None})
    finest.conv = transposed.requires_grad_(False)  # type: ignore[assignment]
    return network


def fold_norms(network: DepthNetwork) -> DepthNetwork:
    """A copy whose convolutions have taken in the BatchNorm behind them: the same function in inference."""
    network = copy.deepcopy(network)
    for module in list(network.encoder.modules()):
        children = list(module.named_children())
        for (before, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(convolution, norm))
                setattr(module, name, nn.Identity())
    return network


def to_fp16(network: DepthNetwork) -> DepthNetwork:
    """A copy that computes in fp16, from the first convolution's input to the logits; the image is normalised in fp32."""
    network = fold_norms(network).half()
    network.encoder.encoder.conv1.register_forward_pre_hook(lambda _, inputs: (inputs[0].half(),))
    return network
