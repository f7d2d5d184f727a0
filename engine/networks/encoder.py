"""Image encoders: torchvision's residual networks, read at five resolutions, with room for several images at once."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50, resnet101, resnet152
from torchvision.models.resnet import ResNet

from engine.networks.norm import UncountedNorm
from engine.networks.recompute import Recomputing
from splits.errors import InputError

# Depth -> factory; a factory takes ``weights`` and returns a torchvision ResNet.
ENCODERS: dict[int, Callable[..., ResNet]] = {18: resnet18, 34: resnet34, 50: resnet50, 101: resnet101, 152: resnet152}
IMAGE_CHANNELS = 3
# One mean and one spread for all channels, as in the published model.
IMAGE_MEAN = 0.45
IMAGE_STD = 0.225


class ResnetEncoder(Recomputing):
    """Five feature maps of one or more images, from stride 2 to stride 32.

    State-dict keys are ``encoder.`` plus torchvision's names, the classifier ``fc`` included: it is never run, but the published
    files hold it, so it is kept and frozen.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        num_input_images: images stacked on the channel axis; widens the first convolution.

    Raises:
        InputError: ``num_layers`` is none of these.
    """

    def __init__(self, num_layers: int, num_input_images: int = 1) -> None:
        super().__init__()
        if num_layers not in ENCODERS:
            raise InputError(f"num_layers={num_layers} is no known encoder; choose from {', '.join(map(str, ENCODERS))}")
        self.encoder = ENCODERS[num_layers](weights=None, norm_layer=UncountedNorm)
        if num_input_images > 1:
            self.encoder.conv1 = _first_convolution(num_input_images)
        self.encoder.fc.requires_grad_(False)
        self.num_ch_enc = feature_channels(num_layers)

    def forward(self, images: Float[Tensor, "B C H W"] | UInt8[Tensor, "B C H W"]) -> list[Tensor]:
        """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of ``images`` (in [0, 1], or uint8 in 0..255; height and width multiples of 32)."""
        net = self.encoder
        if self.training:
            norms = [module for module in net.modules() if isinstance(module, UncountedNorm)]
            torch._foreach_add_([norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None], 1)
        x = normalise(images)
        features = [self.section(self._stem, x)]
        x = features[0]
        for blocks in ([self._first_block, *list(net.layer1)[1:]], net.layer2, net.layer3, net.layer4):
            for block in blocks:
                x = self.section(block, x)
            features.append(x)
        return features

    def _stem(self, x: Tensor) -> Tensor:
        net = self.encoder
        features: Tensor = net.relu(net.bn1(net.conv1(x)))
        return features

    def _first_block(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder.layer1[0](self.encoder.maxpool(x))
        return features


def normalise(images: Float[Tensor, "B C H W"] | UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """``(images - IMAGE_MEAN) / IMAGE_STD`` in fp32 of images in [0, 1]; of uint8 levels in two passes over them."""
    if images.dtype == torch.uint8:
        return (images * (1.0 / (255.0 * IMAGE_STD))).sub_(IMAGE_MEAN / IMAGE_STD)
    return (images - IMAGE_MEAN) / IMAGE_STD


def feature_channels(num_layers: int) -> tuple[int, ...]:
    """Channels of the five feature maps; bottleneck blocks (50 layers and more) widen all but the first fourfold."""
    widen = 4 if num_layers > 34 else 1
    return (64, *(widen * channels for channels in (64, 128, 256, 512)))


def inflate(weight: Float[Tensor, "O C h w"], num_images: int) -> Float[Tensor, "O D h w"]:
    """First-layer weights for ``num_images`` images that give for equal images what the given ones give for one."""
    return weight.repeat(1, num_images, 1, 1) / num_images


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Images (B, 3, H, W) side by side on the channel axis, as a multi-image encoder reads them."""
    return torch.cat(list(images), dim=1)


def _first_convolution(num_images: int) -> nn.Conv2d:
    convolution = nn.Conv2d(IMAGE_CHANNELS * num_images, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
