"""The motions that a pose network sees between the frames of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dataload.system.console import console
from dataload.system.progress import progress_bar
from engine.odometry.config import PoseEvalConfig
from engine.odometry.errors import Array
from engine.parallel.ranks import ALONE, Ranks
from engine.parallel.sharing import gather_rows, share_of
from splits.errors import InputError

if TYPE_CHECKING:
    import torch

    from dataload.batch import Batch
    from dataload.config import DataConfig
    from dataload.datasets.base import Dataset
    from dataload.frames.frame_ref import FrameRef
    from engine.inference.pose_network import PoseNetwork

# Sequences whose pairs are a published list.
PUBLISHED_SEQUENCES = (9, 10)


class Pair(NamedTuple):
    """Where the motion from frame t to t + 1 comes from: the network's output at ``target``, with t = target + ``offset``."""

    target: int
    offset: int


def predict_motions(config: PoseEvalConfig, num_frames: int, ranks: Ranks = ALONE) -> Array:
    """The motions (N-1,4,4), T_next_previous up to scale, that the pose network of ``config.weights_folder`` sees; float32 values.

    Each of several processes predicts its share, and returns all.

    Raises:
        InputError: weights without a pose network, missing images, or weights that give NaN or infinity.
        FaultElsewhere: another of several processes reports such a fault.
    """
    from dataload.config import DataConfig
    from dataload.datasets.kitti_odom import KittiOdom
    from dataload.datasets.presence import require_files
    from engine.inference.pose_network import load_pose_network
    from engine.precision import pick_device

    assert config.weights_folder is not None
    device = pick_device(no_cuda=config.no_cuda)
    network = load_pose_network(config.weights_folder, device, height_px=config.height_px, width_px=config.width_px)
    data = DataConfig(
        data_path=config.data_path, dataset="kitti_odom", split=f"odom_{config.sequence}", height_px=network.height_px,
        width_px=network.width_px, frame_ids=network.frame_ids, image_ext=config.image_ext, batch_size=config.batch_size, num_levels=1,
        num_workers=config.num_workers, loader=config.loader,
    )  # fmt: skip
    dataset = KittiOdom(config.data_path, config.image_ext)
    pairs = plan_pairs(network.frame_ids, num_frames)
    refs = target_refs(config.sequence, pairs)
    folder = dataset.image_folder(refs[0].folder, "l")
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}: the images of sequence {config.sequence}; unpack KITTI odometry's data_odometry_color.zip in "
            f"{config.data_path}, or give another --data_path"
        )
    require_files(dataset, refs, frame_ids=network.frame_ids, use_stereo=False)
    share = share_of(ranks, len(refs), config.batch_size)
    transforms = gather_rows(ranks, _predict(config, network, data, dataset, [refs[index] for index in share]), share)
    if not np.isfinite(transforms).all():
        raise InputError(f"{config.weights_folder}: the pose network gives NaN or infinite motions; try --amp off, or other weights")
    return chain_pairs(transforms, network.frame_ids, pairs)


def target_refs(sequence: int, pairs: Sequence[Pair]) -> tuple[FrameRef, ...]:
    """The frames at which a network predicts: the published list where there is one and the pairs are its own."""
    from dataload.frames.frame_ref import FrameRef

    refs = tuple(FrameRef(str(sequence), target, "l") for target in sorted({pair.target for pair in pairs}))
    if sequence in PUBLISHED_SEQUENCES and all(pair.offset == 0 for pair in pairs):
        assert refs == published_refs(sequence)
    return refs


def published_refs(sequence: int) -> tuple[FrameRef, ...]:
    """The frames of a sequence in ``PUBLISHED_SEQUENCES`` at which Monodepth2 predicts."""
    from dataload.frames.frame_ref import parse_split
    from splits import read_lines, subset_source

    subset = f"test_{sequence:02d}"
    return parse_split(read_lines("odom", subset), source=subset_source("odom", subset))


def plan_pairs(frame_ids: Sequence[int], num_frames: int) -> list[Pair]:
    """How to get each of the N-1 motions from a network that sees ``frame_ids`` at once: where possible, with t as the target.

    At the ends of a sequence, where a neighbour of t is missing, the nearest target whose neighbours exist serves.

    Raises:
        InputError: a network that sees no two frames in a row, or a sequence too short for it.
    """
    shown = " ".join(map(str, frame_ids))
    offsets = sorted((offset for offset in frame_ids if offset + 1 in frame_ids), key=abs)
    if not offsets:
        raise InputError(f"the pose network sees frames {shown} at once, no two in a row; it cannot give frame-to-frame motion")
    lowest, highest = -min(frame_ids), num_frames - 1 - max(frame_ids)
    pairs = []
    for t in range(num_frames - 1):
        offset = next((offset for offset in offsets if lowest <= t - offset <= highest), None)
        if offset is None:
            raise InputError(f"the pose network sees frames {shown} at once; a sequence of {num_frames} frames is too short for it")
        pairs.append(Pair(t - offset, offset))
    return pairs


def chain_pairs(transforms: Array, frame_ids: Sequence[int], pairs: Sequence[Pair]) -> Array:
    """The motions (N-1,4,4) T_next_previous = T_next_target inv(T_previous_target), as ``pairs`` plans them.

    Args:
        transforms: (M,S,4,4) T_source_target of the M distinct targets in ascending order, sources as ``frame_ids[1:]``.
    """
    row = {target: number for number, target in enumerate(sorted({pair.target for pair in pairs}))}
    T = np.concatenate([np.broadcast_to(np.eye(4), (len(transforms), 1, 4, 4)), transforms], axis=1)
    column = {frame_id: number for number, frame_id in enumerate(frame_ids)}
    rows = np.array([row[pair.target] for pair in pairs])
    previous = T[rows, [column[pair.offset] for pair in pairs]]
    following = T[rows, [column[pair.offset + 1] for pair in pairs]]
    motions: Array = following @ np.linalg.inv(previous)
    return motions


def _predict(config: PoseEvalConfig, network: PoseNetwork, data: DataConfig, dataset: Dataset, refs: Sequence[FrameRef]) -> Array:
    """T_source_target (M,S,4,4) of the frames ``refs``."""
    from dataload.loader import Loader
    from engine.inference.predictions import inference_dtype
    from engine.precision import describe_precision

    if not refs:  # of fewer batches than processes
        return np.zeros((0, len(network.frame_ids) - 1, 4, 4))
    device = next(network.parameters()).device
    dtype = inference_dtype(config.amp, device)
    precision = describe_precision(dtype, device)
    console.info("Pose network %s at %dx%d, %s, %s", network.pose_model_type, data.width_px, data.height_px, device.type, precision)
    with Loader(data, dataset, refs, training=False, device=device) as loader:
        batches = progress_bar(loader.steps_per_epoch, "motions", "batches", items=loader.epoch(0), in_logs=True)
        return predict_transforms(network, batches, dtype)


def predict_transforms(network: PoseNetwork, batches: Iterable[Batch], autocast_dtype: torch.dtype | None = None) -> Array:
    """T_source_target (M,S,4,4), float32 values as float64, of the targets of ``batches``, in their order."""
    import torch

    parts = []
    for batch in batches:
        # Not around the loop: the loader makes its own tensors between batches.
        with torch.inference_mode(), torch.autocast(batch.K.device.type, autocast_dtype, enabled=autocast_dtype is not None):
            parts.append(network(batch.target_input / 255.0, batch.source_inputs / 255.0))
    transforms: Array = torch.cat(parts).cpu().numpy().astype(np.float64)
    return transforms
