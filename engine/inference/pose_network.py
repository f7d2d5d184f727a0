"""The pose network as evaluation uses it: built from a folder of weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.geometry import disp_to_depth, transform_from_axisangle
from engine.inference.depth_network import DepthNetwork, input_size, load_depth_network, resnet_layers
from engine.networks.encoder import IMAGE_CHANNELS, ResnetEncoder, stack_images
from engine.networks.pose import WIDTH, Motion, PoseCNN, PoseDecoder
from engine.run_options import run_options
from engine.saved_forms import SavedNetwork
from engine.weights import fill_module, has_weights, network_file, read_network, weights_folder
from splits.errors import InputError
from splits.faults import parsing

PAIR = (0, 1)
# The frame_ids of a network of three images where no options give them.
USUAL_FRAME_IDS = (0, -1, 1)
# Far above what anybody trains with: a file's tensor may claim millions, and the network is made before it is compared with the file.
MOST_FRAMES = 64


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

    The architecture is read from the weights; which frames a network of all frames reads, from the run's ``opt.json``. The input size is
    ``height_px`` and ``width_px`` where given, else what ``encoder.pth`` or ``opt.json`` records.

    Raises:
        InputError: no pose network there, a corrupt file, an architecture that is not known, or an input size that no file gives.
    """
    folder = pose_folder(path)
    options = run_options(folder)
    saved = read_network(folder, "pose")
    encoder = read_network(folder, "pose_encoder") if has_weights(folder, "pose_encoder") else None
    kind, num_images, num_motions = _kind(saved, encoder)
    height, width = _input_size(folder, options, height_px, width_px)
    shape = InputShape(_frame_ids(options, num_images, saved.path), height, width)
    network = _build(kind, num_images, num_motions, encoder, folder, shape)
    fill_module(network.pose, saved, complete=True)
    return network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def pose_folder(path: Path) -> Path:
    """The folder or file of weights with a pose network that ``path`` means, itself or a run's last; ``InputError`` where it has none."""
    folder = path if path.is_dir() and has_weights(path, "pose") else weights_folder(path)
    if not has_weights(folder, "pose"):
        stereo = read_network(folder, "encoder").use_stereo
        why = "a model trained on stereo pairs alone has no pose network" if stereo else "copy it from the run the weights are of"
        raise InputError(f"{folder} has no pose.pth: {why}; ego-motion needs a model trained with neighbouring frames")
    return folder


def _build(kind: str, num_images: int, num_motions: int, encoder: SavedNetwork | None, folder: Path, shape: InputShape) -> PoseNetwork:
    if kind == "posecnn":
        return PoseNetwork(kind, PoseCNN(num_images), shape, depth=load_depth_network(folder, size_px=shape[1:]))
    encoder = read_network(folder, "encoder") if kind == "shared" or encoder is None else encoder
    built = ResnetEncoder(resnet_layers(encoder), 1 if kind == "shared" else num_images)
    fill_module(built, encoder, complete=True)
    num_features = num_images if kind == "shared" else 1
    pose = PoseDecoder(built.num_ch_enc, num_features, num_motions)
    return PoseNetwork(kind, pose, shape, encoder=built)


def _kind(saved: SavedNetwork, encoder: SavedNetwork | None) -> tuple[str, int, int]:
    """The type of a pose network, how many images it reads and how many motions it gives, by the shapes of its weights."""
    what, remedy = "of a pose network, with its pose_encoder.pth", "check that the files are what their names say"
    with parsing(saved.path, what, remedy):
        if "pose_conv.weight" in saved.tensors:
            kind, num_images = "posecnn", saved.tensors["net.0.weight"].shape[1] // IMAGE_CHANNELS
            num_motions = num_images - 1
        else:
            num_motions = saved.tensors["net.3.weight"].shape[0] // 6
            kind, num_images = "shared", saved.tensors["net.1.weight"].shape[1] // WIDTH
            if num_images == 1:
                if encoder is None:
                    folder = saved.path.parent
                    raise InputError(f"{folder} has no pose_encoder.pth, which its pose.pth was trained with; copy it from the run")
                kind, num_images = "separate_resnet", encoder.tensors["encoder.conv1.weight"].shape[1] // IMAGE_CHANNELS
                if num_images < 2:
                    raise InputError(f"{encoder.path} reads one image; a pose encoder reads two or more: check that it is no encoder.pth")
        if not (2 <= num_images <= MOST_FRAMES and 1 <= num_motions <= MOST_FRAMES):
            raise ValueError(f"it reads {num_images} images and gives {num_motions} motions")
    return kind, num_images, num_motions


def _frame_ids(options: Mapping[str, Any], num_images: int, path: Path) -> tuple[int, ...]:
    if options.get("pose_model_input", "pairs") == "pairs" and num_images == len(PAIR):
        return PAIR
    # Stereo runs list the other camera as "s".
    given = options.get("frame_ids", USUAL_FRAME_IDS)
    frame_ids = tuple(frame_id for frame_id in given if frame_id != "s") if isinstance(given, list | tuple) else given
    if not isinstance(frame_ids, tuple) or len(frame_ids) != num_images or not all(type(frame_id) is int for frame_id in frame_ids):
        raise InputError(f"{path} reads {num_images} frames at once, the run's frame_ids are {frame_ids}; put the run's opt.json beside it")
    return frame_ids


def _input_size(folder: Path, options: Mapping[str, Any], height_px: int | None, width_px: int | None) -> tuple[int, int]:
    if height_px is not None and width_px is not None:
        return height_px, width_px
    if network_file(folder, "encoder") is None and not {"height", "width"} <= options.keys():
        raise InputError(f"neither an encoder.pth nor an opt.json in {folder} records the input size; give --height and --width")
    saved = read_network(folder, "encoder") if has_weights(folder, "encoder") else SavedNetwork(folder / "opt.json", {}, dict(options))
    height, width = input_size(saved, options, None)
    return height_px or height, width_px or width
