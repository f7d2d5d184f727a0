"""Parity of an exported network with the one it was made of: compared image by image, shown as a table, refused beyond a tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from dataload.config import SIZE_MULTIPLE_PX
from engine.inference.depth_network import DepthNetwork
from engine.inference.pose_network import PoseNetwork
from export.prediction.torch_predictor import torch_inv_depth
from export.runtime.fitting import resize_image
from export.session import DepthSession
from splits.errors import InputError

# The largest relative difference of depth, in the mean and at the 99th percentile over an image set: several times what trained networks
# show. fp32 differs by the order of sums and, with the resize in the graph, by single grey levels; fp16 by 11 bits, int8 by 256 steps.
TOLERANCES: Mapping[str, tuple[float, float]] = {"fp32": (1e-4, 1e-3), "fp16": (2e-3, 1e-2), "int8": (0.05, 0.2)}
# Of a motion's numbers, relative to the largest of them.
POSE_TOLERANCE = 1e-3
RANDOM_IMAGES = 2
# A graph of open size is also tested this much higher and wider.
OTHER_SIZE_PX = (SIZE_MULTIPLE_PX, 2 * SIZE_MULTIPLE_PX)
REAL, RANDOM = "real", "random"


class Difference(NamedTuple):
    """How far an export is from torch on some images: inverse depth in 1 over the network's unit, depth relative to torch's."""

    images: str
    inv_depth_mean: float
    inv_depth_max: float
    depth_mean: float
    depth_p99: float
    depth_max: float


def compare_depth(network: DepthNetwork, model: Path, images: Sequence[Image.Image]) -> list[Difference]:
    """The differences between ``network`` in torch and the file ``model`` in onnxruntime on the CPU.

    On ``images`` and on noise, each prepared for torch as md-predict prepares it and handed to a graph with preprocessing as it is; with an
    open size on ``images`` at another size too.
    """
    session = DepthSession(model, "cpu")
    noise = np.random.default_rng(0)
    random = [Image.fromarray(noise.integers(0, 256, (*network.size_px, 3), np.uint8)) for _ in range(RANDOM_IMAGES)]
    sets = [(REAL, images, network.size_px), (RANDOM, random, network.size_px)]
    if session.facts.dynamic_size:
        other = (network.height_px + OTHER_SIZE_PX[0], network.width_px + OTHER_SIZE_PX[1])
        sets.insert(1, (f"{REAL}, {other[1]}x{other[0]}", images, other))
    return [_difference(f"{len(some)} {name}", list(_predict_both(network, session, some, size_px))) for name, some, size_px in sets]


def _predict_both(
    network: DepthNetwork, session: DepthSession, images: Sequence[Image.Image], size_px: tuple[int, int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Inverse depth (h,w) by torch and by the session, of each image."""
    for image in images:
        resized = resize_image(image, size_px)[None]
        given = np.asarray(image)[None] if session.facts.preprocessing else resized
        yield torch_inv_depth(network, resized.copy())[0], session.inv_depth(given)[0]


def _difference(name: str, pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Difference:
    ours, theirs = (np.stack(side).astype(np.float64) for side in zip(*pairs, strict=True))
    absolute, relative = np.abs(theirs - ours), np.abs(ours / theirs - 1)
    shares = float(np.mean(relative)), float(np.percentile(relative, 99)), float(np.max(relative))
    return Difference(name, float(np.mean(absolute)), float(np.max(absolute)), *shares)


def parity_table(differences: Sequence[Difference]) -> str:
    """The differences as rows below a header."""
    width = max(len(row.images) for row in differences)
    lines = [
        f"{'':{width}}   inverse depth       depth, relative",
        f"{'images':{width}}   {'mean':>8} {'max':>8}   {'mean':>8} {'99 %':>8} {'max':>8}",
    ]
    for row in differences:
        shares = " ".join(f"{f'{100 * value:.2g}%':>8}" for value in row[3:])
        lines.append(f"{row.images:{width}}   {row.inv_depth_mean:>8.1e} {row.inv_depth_max:>8.1e}   {shares}")
    return "\n".join(lines)


def require_parity(differences: Sequence[Difference], precision: str) -> None:
    """Raise InputError where a set is beyond its tolerance; noise does not count for int8, whose scales are made for real images."""
    mean, p99 = TOLERANCES[precision]
    for row in differences:
        counts = precision != "int8" or not row.images.endswith(RANDOM)
        # Not a comparison that NaN would pass.
        if counts and not (row.depth_mean <= mean and row.depth_p99 <= p99):
            remedy = "calibrate with --images of the kind that the model will see, or choose fp16" if precision == "int8" else "choose fp32"
            raise InputError(
                f"the exported network differs from torch by {row.depth_mean:.3%} of depth in the mean and {row.depth_p99:.3%} at the 99th "
                f"percentile ({row.images} images); {precision} may differ by {mean:.2%} and {p99:.2%}: {remedy}. Nothing was written"
            )


def require_pose_parity(network: PoseNetwork, model: Path) -> float:
    """The largest difference of a motion's numbers from torch's on random images, relative to the largest of them.

    Raises:
        InputError: beyond ``POSE_TOLERANCE``.
    """
    noise = np.random.default_rng(0)
    frames = noise.random((RANDOM_IMAGES, len(network.frame_ids), 3, *network.size_px), np.float32)
    target, sources = frames[:, 0], frames[:, 1:]
    with torch.inference_mode():
        expected = network(torch.from_numpy(target.copy()), torch.from_numpy(sources.copy())).numpy()
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answered = np.concatenate([session.run(None, {"target": t, "sources": s})[0] for t, s in _batches(session, target, sources)])
    moved = expected - np.eye(4, dtype=np.float32)
    difference = float(np.max(np.abs(answered[: len(expected)] - expected)) / np.max(np.abs(moved)))
    if not difference <= POSE_TOLERANCE:
        raise InputError(f"the exported pose network differs from torch by {difference:.2%} of its motion, more than {POSE_TOLERANCE:.2%}")
    return difference


def _batches(session: onnxruntime.InferenceSession, *frames: NDArray[np.float32]) -> Iterator[list[NDArray[np.float32]]]:
    """The frames in batches of the graph's size, one at a time where that is open; the last repeats its last frame until it is full."""
    size = session.get_inputs()[0].shape[0]
    size = size if isinstance(size, int) else 1
    for start in range(0, len(frames[0]), size):
        some = [part[start : start + size] for part in frames]
        yield [np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)]) for part in some]
