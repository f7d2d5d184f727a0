"""The networks of one model and the rules by which they fit together."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn

from engine.choices import MODULES
from engine.networks.depth_decoder import DepthDecoder
from engine.networks.encoder import ENCODERS, ResnetEncoder
from engine.networks.pose import PoseCNN, PoseDecoder

__all__ = ["ENCODERS", "MODULES", "Networks", "build_networks"]

T = TypeVar("T")
# The published pose head of a separate encoder has room for two motions, whether or not both are read.
PUBLISHED_MOTIONS = 2


class Networks(nn.Module):
    """The networks of one model as children named in ``MODULES``; those a model does without are not registered."""

    encoder: ResnetEncoder
    depth: DepthDecoder
    pose_encoder: ResnetEncoder
    pose: PoseDecoder | PoseCNN
    predictive_mask: DepthDecoder

    def __init__(self, **modules: nn.Module | None) -> None:
        super().__init__()
        unknown = set(modules) - set(MODULES)
        assert not unknown, f"not among {MODULES}: {unknown}"
        for name in MODULES:
            module = modules.get(name)
            if module is not None:
                self.add_module(name, module)

    def forward(self, task: Callable[..., T], *inputs: Any) -> T:
        """``task(*inputs)``, which calls these networks: so that ``torch.func.functional_call`` can replace their weights for the call.

        Args:
            task: a function that calls these networks.
            inputs: what it is given.
        """
        return task(*inputs)

    def has(self, name: str) -> bool:
        """Whether this model has the network of that name."""
        return name in self._modules


def build_networks(
    *,
    num_layers: int,
    scales: Sequence[int],
    frame_ids: Sequence[int],
    use_stereo: bool,
    pose_model_type: str,
    pose_model_input: str,
    predictive_mask: bool,
) -> Networks:
    """Untrained networks of the given options, which fit together (see ``TrainConfig``), all in fp32 on the CPU.

    Without temporal sources (``frame_ids`` is (0,)) there is no pose network. The predictive mask has one channel per source.
    """
    num_temporal = len(frame_ids) - 1
    encoder = ResnetEncoder(num_layers)
    pose_encoder, pose = _pose_networks(encoder, num_layers, num_temporal, pose_model_type, pose_model_input)
    num_sources = num_temporal + int(use_stereo)
    return Networks(
        encoder=encoder,
        depth=DepthDecoder(encoder.num_ch_enc, scales),
        pose_encoder=pose_encoder,
        pose=pose,
        predictive_mask=DepthDecoder(encoder.num_ch_enc, scales, num_sources) if predictive_mask else None,
    )


def _pose_networks(
    encoder: ResnetEncoder, num_layers: int, num_temporal: int, pose_model_type: str, pose_model_input: str
) -> tuple[ResnetEncoder | None, PoseDecoder | PoseCNN | None]:
    if num_temporal == 0:
        return None, None
    num_images = 2 if pose_model_input == "pairs" else 1 + num_temporal
    if pose_model_type == "posecnn":
        return None, PoseCNN(num_images)
    if pose_model_type == "shared":
        return None, PoseDecoder(encoder.num_ch_enc, num_images, num_images - 1)
    pose_encoder = ResnetEncoder(num_layers, num_images)
    return pose_encoder, PoseDecoder(pose_encoder.num_ch_enc, 1, max(PUBLISHED_MOTIONS, num_images - 1))
