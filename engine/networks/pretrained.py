"""ImageNet weights for the encoders, through torchvision's own download and cache."""

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from dataload.system.files import cache_folder
from engine.networks import Networks
from engine.networks.encoder import ResnetEncoder, inflate
from splits.errors import InputError

# The original weights of each depth, those of the published results.
WEIGHTS: dict[int, WeightsEnum] = {
    18: models.ResNet18_Weights.IMAGENET1K_V1,
    34: models.ResNet34_Weights.IMAGENET1K_V1,
    50: models.ResNet50_Weights.IMAGENET1K_V1,
    101: models.ResNet101_Weights.IMAGENET1K_V1,
    152: models.ResNet152_Weights.IMAGENET1K_V1,
}
# The errors of reading a truncated or foreign file, and of a download whose hash is wrong.
DAMAGED = (RuntimeError, EOFError, UnpicklingError)


def load_imagenet(networks: Networks, num_layers: int) -> None:
    """Fill the encoder and, where there is one, the pose encoder with ImageNet weights, downloading them on first use.

    A pose encoder's first layer gets the weights once per image, divided by the number of images.

    Raises:
        InputError: the weights are neither in torch's cache nor can be downloaded, or the cached file is another one.
    """
    state = _imagenet_state(num_layers)
    _fill(networks.encoder, state)
    if networks.has("pose_encoder"):
        _fill(networks.pose_encoder, state)


def cached_file(num_layers: int) -> Path:
    """Where the weights of that depth lie once downloaded."""
    folder = Path(torch.hub.get_dir())
    if not folder.is_absolute() and "TORCH_HOME" not in os.environ:  # there is no home folder, and torch would make one called "~" here
        folder = cache_folder() / "torch" / "hub"
    return folder / "checkpoints" / Path(WEIGHTS[num_layers].url).name


def _imagenet_state(num_layers: int) -> Mapping[str, Tensor]:
    file = cached_file(num_layers)
    remedy = f"train with --weights_init scratch, or put {file.name} into {file.parent}"
    try:
        state: Mapping[str, Tensor] = WEIGHTS[num_layers].get_state_dict(
            progress=True, check_hash=True, weights_only=True, model_dir=str(file.parent)
        )
    except OSError as error:  # no network, an HTTP fault, a read-only or full cache folder
        raise InputError(f"ImageNet weights {WEIGHTS[num_layers].url} could not be fetched ({error}); {remedy}") from error
    except DAMAGED as error:
        raise InputError(f"{file} is damaged or is no weights file; remove it, then {remedy}") from error
    return state


def _fill(encoder: ResnetEncoder, state: Mapping[str, Tensor]) -> None:
    own = encoder.encoder
    num_images = own.conv1.in_channels // state["conv1.weight"].shape[1]
    own.load_state_dict({**state, "conv1.weight": inflate(state["conv1.weight"], num_images)})
