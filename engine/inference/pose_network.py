"""The pose network as evaluation uses it: built from a folder of weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.geometry import disp_to_depth, transform_from_axisangle
from engine.inference.depth_network import DepthNetwork, load_depth_network, resnet_layers, run_options
from engine.networks.encoder import IMAGE_CHANNELS, ResnetEncoder, stack_images
from engine.networks.pose import WIDTH, Motion, PoseCNN, PoseDecoder
from engine.weights import fill_module, read_file, weights_folder
from splits.errors import InputError

PAIR = (0, 1)
# What three images on one network mean where no options tell.
USUAL_FRAME_IDS = (0, -1, 1)


class InputShape(NamedTuple):
    """What a network reads at once: ``frame_ids`` of the frames, the target first, at a size in pixels."""

    frame_ids: tuple[int, ...]
    height_px: int
    width_px: int


class PoseNetwork(nn.Module):
    """The networks that answer how the camera moved, with the facts their weights were trained under.

    Args:
        pose_model_type: as in training; ``posecnn`` has no encoder.
        encoder: sees all frames at once (separate_resnet) or one at a time (shared).
        depth: for posecnn, whose translations are in units of the scene's mean inverse depth, as in training.

    Attributes:
        frame_ids: frames read at once, the target first: (0, 1) of a network of pairs, the training's of one of all frames.
        height_px, width_px: input size, pixels.
    """

    def __init__(
        self,
        pose_model_type: str,
        pose: PoseDecoder | PoseCNN,
        shape: InputShape,
        *,
        encoder: ResnetEncoder | None = None,
        depth: DepthNetwork | None = None,
    ) -> None:
        super().__init__()
        self.pose_model_type = pose_model_type
        self.frame_ids, self.height_px, self.width_px = shape
        self.pose, self.encoder, self.depth = pose, encoder, depth

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of its input."""
        return self.height_px, self.width_px

    def forward(self, target: Tensor, sources: Tensor) -> Tensor:
        """T_source_target (B,S,4,4) fp32, up to scale, of images (B,3,H,W) and (B,S,3,H,W) in 0..1, sources as ``frame_ids[1:]``."""
        axisangle, translation = self._motions([target, *sources.unbind(dim=1)])
        if self.depth is not None:
            inv_depth, _ = disp_to_depth(self.depth(target), self.depth.min_depth, self.depth.max_depth)
            translation = translation * inv_depth.mean(dim=(2, 3))[:, None]
        transforms = [transform_from_axisangle(axisangle[:, i], translation[:, i]) for i in range(sources.shape[1])]
        return torch.stack(transforms, dim=1)

    def _motions(self, frames: list[Tensor]) -> Motion:
        motions: Motion
        if self.encoder is None:
            motions = self.pose(stack_images(frames))
        elif self.pose_model_type == "shared":
            last: Tensor = self.encoder(torch.cat(frames))[-1]
            motions = self.pose(last.unflatten(0, (len(frames), -1)).unbind())
        else:
            motions = self.pose([self.encoder(stack_images(frames))[-1]])
        return motions


def load_pose_network(
    path: Path, device: torch.device | str = "cpu", *, height_px: int | None = None, width_px: int | None = None
) -> PoseNetwork:
    """The pose network of a weights folder or of the last epoch of a run folder, ours or Monodepth2's, ready to predict.

    The architecture is read off the weights; which frames a network of all frames reads, off the run's ``opt.json``. The input size is
    ``height_px`` and ``width_px`` where given, else as ``encoder.pth`` or ``opt.json`` tell.

    Raises:
        InputError: no pose network there, a corrupt file, an architecture that is not known, or an input size that no file gives.
    """
    folder = pose_folder(path)
    pose_path = folder / "pose.pth"
    options = run_options(folder)
    content = read_file(pose_path)
    kind, num_images = _kind(content, folder)
    height, width = _input_size(folder, options, height_px, width_px)
    shape = InputShape(_frame_ids(options, num_images, pose_path), height, width)
    network = _build(kind, num_images, content, folder, shape)
    fill_module(network.pose, content, pose_path, complete=True)
    return network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def pose_folder(path: Path) -> Path:
    """The folder of weights with a pose network that ``path`` means, itself or a run's last; ``InputError`` where it has none."""
    folder = path if (path / "pose.pth").is_file() else weights_folder(path)
    if not (folder / "pose.pth").is_file():
        stereo = read_file(folder / "encoder.pth").get("use_stereo", False)
        why = "a model trained on stereo pairs alone has no pose network" if stereo else "copy it from the run the weights are of"
        raise InputError(f"{folder} has no pose.pth: {why}; ego-motion needs a model trained with neighbouring frames")
    return folder


def _build(kind: str, num_images: int, content: Mapping[str, Any], folder: Path, shape: InputShape) -> PoseNetwork:
    if kind == "posecnn":
        return PoseNetwork(kind, PoseCNN(num_images), shape, depth=load_depth_network(folder))
    path = folder / ("encoder.pth" if kind == "shared" else "pose_encoder.pth")
    encoder_content = read_file(path)
    num_layers = resnet_layers(encoder_content, path)
    encoder = ResnetEncoder(num_layers, 1 if kind == "shared" else num_images)
    fill_module(encoder, encoder_content, path, complete=True)
    num_features = num_images if kind == "shared" else 1
    pose = PoseDecoder(encoder.num_ch_enc, num_features, content["net.3.weight"].shape[0] // 6)
    return PoseNetwork(kind, pose, shape, encoder=encoder)


def _kind(content: Any, folder: Path) -> tuple[str, int]:
    """The type of a pose network and how many images it reads, by the shapes of its weights."""
    path = folder / "pose.pth"
    try:
        if "pose_conv.weight" in content:
            return "posecnn", content["net.0.weight"].shape[1] // IMAGE_CHANNELS
        num_features = content["net.1.weight"].shape[1] // WIDTH
        if num_features > 1:
            return "shared", num_features
        if not (folder / "pose_encoder.pth").is_file():
            raise InputError(f"{folder} has no pose_encoder.pth, which its pose.pth was trained with; copy it from the run")
        encoder_content = read_file(folder / "pose_encoder.pth")
        num_images = encoder_content["encoder.conv1.weight"].shape[1] // IMAGE_CHANNELS
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} or its pose_encoder.pth holds no pose network; check that the files are what their names say") from error
    if num_images < 2:
        raise InputError(
            f"{folder / 'pose_encoder.pth'} reads one image; a pose encoder reads two or more: check that it is no encoder.pth"
        )
    return "separate_resnet", num_images


def _frame_ids(options: Mapping[str, Any], num_images: int, path: Path) -> tuple[int, ...]:
    if options.get("pose_model_input", "pairs") == "pairs" and num_images == len(PAIR):
        return PAIR
    # Stereo runs list the other camera as "s".
    frame_ids = tuple(frame_id for frame_id in options.get("frame_ids", USUAL_FRAME_IDS) if frame_id != "s")
    if len(frame_ids) != num_images or not all(isinstance(frame_id, int) for frame_id in frame_ids):
        raise InputError(f"{path} reads {num_images} frames at once, the run's frame_ids are {frame_ids}; put the run's opt.json beside it")
    return frame_ids


def _input_size(folder: Path, options: Mapping[str, Any], height_px: int | None, width_px: int | None) -> tuple[int, int]:
    if height_px is None or width_px is None:
        recorded = read_file(folder / "encoder.pth") if (folder / "encoder.pth").is_file() else {}
        facts = {**options, **{key: recorded[key] for key in ("height", "width") if key in recorded}}
        if "height" not in facts or "width" not in facts:
            raise InputError(f"neither an encoder.pth nor an opt.json in {folder} tells the input size; give --height and --width")
        height_px, width_px = height_px or int(facts["height"]), width_px or int(facts["width"])
    return height_px, width_px
