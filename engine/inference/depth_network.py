"""The depth network as evaluation, prediction and export use it: built from a folder of weights alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataload.datasets.kitti import KITTI_METRIC_FACTOR
from engine.networks import DepthDecoder, ResnetEncoder
from engine.weights import fill_module, read_file, weights_folder
from splits.errors import InputError

# Blocks in a ResNet's third stage, and whether they are bottlenecks, tell its depth.
_STAGE3 = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}


# What Monodepth2 trains with unless a run's options say otherwise.
_DEFAULT_FACTS = {"min_depth": 0.1, "max_depth": 100.0, "metric_factor": KITTI_METRIC_FACTOR}


class DepthNetwork(nn.Module):
    """Encoder and depth decoder with the facts their weights were trained under.

    Attributes:
        height_px, width_px: input size, pixels.
        use_stereo: trained with the other camera, so that depth times ``metric_factor`` is metric.
        metric_factor: metres in the network's unit, KITTI's where the run does not tell; None where a moving camera left it unknown.
        min_depth, max_depth: the range of the depth conversion, in the network's unit.
    """

    def __init__(self, encoder: ResnetEncoder, depth: DepthDecoder, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder, self.depth = encoder, depth
        self.height_px: int = facts["height"]
        self.width_px: int = facts["width"]
        self.use_stereo: bool = facts["use_stereo"]
        self.metric_factor: float | None = facts["metric_factor"] if self.use_stereo else None
        self.num_layers: int = facts["num_layers"]
        self.min_depth: float = facts["min_depth"]
        self.max_depth: float = facts["max_depth"]

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of its input."""
        return self.height_px, self.width_px

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in 0..1 to the finest disp (B,1,H,W), the sigmoid output in (0,1)."""
        return finest_disp(self.encoder, self.depth, images)


def finest_disp(encoder: ResnetEncoder, depth: DepthDecoder, images: Tensor) -> Tensor:
    """The finest disp (B,1,H,W) that the two networks make of images (B,3,H,W) in 0..1."""
    disps = depth(encoder(images))
    finest: Tensor = disps[min(disps)]
    # Weights trained without scale 0 still predict, at the scale they have.
    return finest if finest.shape[-2:] == images.shape[-2:] else F.interpolate(finest, images.shape[-2:], mode="bilinear")


def load_depth_network(path: Path, device: torch.device | str = "cpu") -> DepthNetwork:
    """The depth network of a weights folder or of the last epoch of a run folder, ours or Monodepth2's, ready to predict.

    The architecture is read off the weights; depth range and scales off the run's ``opt.json`` where there is one (else 0.1 to 100).

    Raises:
        InputError: no weights there, a corrupt file, or an architecture that is not known.
    """
    folder = weights_folder(path)
    encoder_content = read_file(folder / "encoder.pth")
    depth_content = read_file(folder / "depth.pth")
    num_layers = resnet_layers(encoder_content, folder / "encoder.pth")
    options = run_options(folder)
    encoder = ResnetEncoder(num_layers)
    depth = DepthDecoder(encoder.num_ch_enc, scales=_scales(depth_content, folder / "depth.pth"))
    fill_module(encoder, encoder_content, folder / "encoder.pth", complete=True)
    fill_module(depth, depth_content, folder / "depth.pth", complete=True)
    facts = {key: options.get(key, default) for key, default in _DEFAULT_FACTS.items()}
    try:
        facts |= {key: encoder_content[key] for key in ("height", "width")}
    except KeyError as error:
        raise InputError(f"{folder / 'encoder.pth'} does not record its input {error}; it was not saved by a training run") from error
    facts |= {"num_layers": num_layers, "use_stereo": bool(encoder_content.get("use_stereo", False))}
    network = DepthNetwork(encoder, depth, facts).to(device).to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def resnet_layers(content: Mapping[str, Any], path: Path) -> int:
    """The layers, 18 to 152, of the ResNet whose weights ``path`` holds; ``InputError`` where it holds none."""
    blocks = {key.split(".")[2] for key in content if key.startswith("encoder.layer3.")}
    num_layers = _STAGE3.get((len(blocks), "encoder.layer1.0.conv3.weight" in content))
    if num_layers is None:
        raise InputError(f"{path} holds no ResNet-18/34/50/101/152 encoder; check that the file is what its name says")
    return num_layers


def _scales(content: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    # The disparity heads follow ten upconvolutions; a head of scale s reads 16 * 2^s channels.
    scale_of = {16: 0, 32: 1, 64: 2, 128: 3}
    heads: list[int | None] = []
    while (weight := content.get(f"decoder.{10 + len(heads)}.conv.weight")) is not None:
        heads.append(scale_of.get(weight.shape[1]))
    scales = tuple(scale for scale in heads if scale is not None)
    if not scales or len(scales) != len(heads):
        raise InputError(f"{path} holds no depth decoder; check that the file is what its name says")
    return scales


def run_options(folder: Path) -> dict[str, Any]:
    """The options a weights folder was trained with: its own or its run's ``opt.json``; empty without one, ``InputError`` if damaged."""
    for path in (folder / "opt.json", folder.parent / "opt.json"):
        if path.is_file():
            try:
                return dict(json.loads(path.read_text(encoding="utf-8")))
            except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
                raise InputError(f"{path} is not valid JSON ({error}); restore it or remove it to use the defaults") from error
    return {}
