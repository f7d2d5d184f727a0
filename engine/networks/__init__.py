"""The networks of one model and the rules by which they fit together."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn

from engine.choices import MODULES, POSE_MODEL_INPUTS, POSE_MODEL_TYPES, check_choice
from engine.networks.depth_decoder import SCALES, DepthDecoder, check_scales
from engine.networks.encoder import ENCODERS, ResnetEncoder
from engine.networks.pose import PoseCNN, PoseDecoder
from splits.errors import InputError

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
        """``task(*inputs)``, which asks these networks: so that ``torch.func.functional_call`` can lend them other weights meanwhile."""
        return task(*inputs)

    def has(self, name: str) -> bool:
        """Whether this model has the network of that name."""
        return name in self._modules


def build_networks(
    num_layers: int = 18,
    scales: Sequence[int] = SCALES,
    frame_ids: Sequence[int] = (0, -1, 1),
    use_stereo: bool = False,
    pose_model_type: str = "separate_resnet",
    pose_model_input: str = "pairs",
    predictive_mask: bool = False,
) -> Networks:
    """Untrained networks for the given options, all in fp32 on the CPU.

    Without temporal sources (``frame_ids`` is (0,)) there is no pose network. The predictive mask has one channel a source.

    Raises:
        InputError: an option has no known value, or the options leave nothing to compare the target with.
    """
    num_temporal = _check_options(num_layers, scales, frame_ids, use_stereo, pose_model_type, pose_model_input)
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


def _check_options(
    num_layers: int, scales: Sequence[int], frame_ids: Sequence[int], use_stereo: bool, pose_model_type: str, pose_model_input: str
) -> int:
    """The number of temporal sources, after refusing what cannot work."""
    check_scales(scales)
    shown = " ".join(map(str, frame_ids))
    check_choice("num_layers", num_layers, tuple(ENCODERS))
    check_choice("pose_model_type", pose_model_type, POSE_MODEL_TYPES)
    check_choice("pose_model_input", pose_model_input, POSE_MODEL_INPUTS)
    if not frame_ids or frame_ids[0] != 0 or len(set(frame_ids)) != len(frame_ids):
        raise InputError(f"frame_ids={shown} must be distinct offsets that start with 0, the target; for example 0 -1 1")
    if len(frame_ids) == 1 and not use_stereo:
        raise InputError("frame_ids=0 without use_stereo leaves no source to compare the target with; add offsets (0 -1 1) or use_stereo")
    return len(frame_ids) - 1
