"""The depth network as evaluation, prediction and export use it: built from a folder of weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataload.datasets.kitti import KITTI_METRIC_FACTOR
from engine.networks.depth_decoder import DepthDecoder
from engine.networks.encoder import ResnetEncoder
from engine.run_options import number_in, run_options
from engine.saved_forms import SavedNetwork
from engine.weights import fill_module, read_network, weights_folder
from splits.errors import InputError

# A ResNet's depth by the blocks in its third stage and whether they are bottlenecks.
_STAGE3 = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}


# What Monodepth2 trains with by default.
_DEFAULT_FACTS = {"min_depth": 0.1, "max_depth": 100.0, "metric_factor": KITTI_METRIC_FACTOR}


class DepthNetwork(nn.Module):
    """Encoder and depth decoder with the facts their weights were trained under.

    Attributes:
        height_px, width_px: input size, pixels.
        use_stereo: trained with the other camera, so that depth times ``metric_factor`` is metric.
        metric_factor: metres in the network's unit, KITTI's where the run does not record it; None where a moving camera leaves it unknown.
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
        return at_full_size(self.depth(self.encoder(images)), images.shape[-2:])


def at_full_size(disps: Mapping[int, Tensor], size_px: torch.Size) -> Tensor:
    """The finest of the disps (B,1,h,w) that a depth network makes by scale, at its input size (height, width)."""
    finest = disps[min(disps)]
    # Weights trained without scale 0 still predict, at the scale they have.
    return finest if finest.shape[-2:] == size_px else F.interpolate(finest, size_px, mode="bilinear")


def load_depth_network(path: Path, device: torch.device | str = "cpu", *, size_px: tuple[int, int] | None = None) -> DepthNetwork:
    """The depth network of a weights folder or file or of the last epoch of a run folder, ours or Monodepth2's, ready to predict.

    The architecture is read from the weights; depth range and scales from the run's ``opt.json`` where there is one (else 0.1 to 100).

    Args:
        size_px: input size (height, width) of weights that record none, or none that can be.

    Raises:
        InputError: no weights there, a corrupt file, an architecture that is not known, or no input size.
    """
    folder = weights_folder(path)
    encoder_saved, depth_saved = read_network(folder, "encoder"), read_network(folder, "depth")
    num_layers = resnet_layers(encoder_saved)
    options = run_options(folder)
    encoder = ResnetEncoder(num_layers)
    depth = DepthDecoder(encoder.num_ch_enc, scales=_scales(depth_saved))
    fill_module(encoder, encoder_saved, complete=True)
    fill_module(depth, depth_saved, complete=True)
    facts: dict[str, Any] = {key: number_in(options, key, folder) or default for key, default in _DEFAULT_FACTS.items()}
    if not facts["min_depth"] < facts["max_depth"]:
        raise InputError(f"the opt.json of {folder}: min_depth {facts['min_depth']:g} is not below max_depth {facts['max_depth']:g}")
    height, width = input_size(encoder_saved, options, size_px)
    facts |= {"height": height, "width": width, "num_layers": num_layers, "use_stereo": encoder_saved.use_stereo}
    network = DepthNetwork(encoder, depth, facts).to(device).to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def input_size(encoder: SavedNetwork, options: Mapping[str, Any], size_px: tuple[int, int] | None) -> tuple[int, int]:
    """The size (height, width) that weights record, or the run's ``opt.json``, else ``size_px``.

    Raises:
        InputError: none of them gives it, or the recorded size is none that networks take and there is no ``size_px``.
    """
    try:
        recorded = encoder.size_px() or encoder._replace(facts=dict(options)).size_px()
    except InputError:
        if size_px is None:
            raise
        recorded = None
    found = recorded or size_px
    if found is None:
        raise InputError(f"{encoder.path} does not record its input size; give the size of its training with --height and --width")
    return found


def require_size(network: DepthNetwork, size_px: tuple[int, int] | None, path: Path) -> None:
    """Raise InputError where ``size_px`` is given and the weights at ``path`` record another."""
    if size_px is not None and network.size_px != size_px:
        height, width = network.size_px
        raise InputError(
            f"{path} was trained at {width}x{height}, as it records: --height and --width are for weights without a size; leave them out"
        )


def resnet_layers(saved: SavedNetwork) -> int:
    """The layers, 18 to 152, of a ResNet encoder; ``InputError`` where it is none of them."""
    blocks = {key.split(".")[2] for key in saved.tensors if key.startswith("encoder.layer3.")}
    num_layers = _STAGE3.get((len(blocks), "encoder.layer1.0.conv3.weight" in saved.tensors))
    if num_layers is None:
        raise InputError(f"{saved.path} holds no ResNet-18/34/50/101/152 encoder; check that the file is what its name says")
    return num_layers


def _scales(saved: SavedNetwork) -> tuple[int, ...]:
    # The disparity heads follow ten upconvolutions; a head of scale s reads 16 * 2^s channels.
    scale_of = {16: 0, 32: 1, 64: 2, 128: 3}
    heads: list[int | None] = []
    while (weight := saved.tensors.get(f"decoder.{10 + len(heads)}.conv.weight")) is not None:
        heads.append(scale_of.get(weight.shape[1] if weight.dim() > 1 else 0))
    scales = tuple(scale for scale in heads if scale is not None)
    if not scales or len(set(scales)) != len(heads):
        raise InputError(f"{saved.path} holds no depth decoder; check that the file is what its name says")
    return scales
