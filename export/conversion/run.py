"""An export from its config: the network, its ONNX file, the comparison with torch, and the target that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.system.files import require_writable_folder, whole_folder
from dataload.system.locks import hold
from engine.inference.depth_network import DepthNetwork, load_depth_network
from engine.inference.pose_network import PoseNetwork, load_pose_network
from export.choices import is_onnx
from export.config import ExportConfig
from export.conversion import accuracy
from export.conversion.facts import depth_facts, pose_facts, read_scores
from export.conversion.images import ExportImages, find_images
from export.conversion.parity import compare_depth, parity_table, require_parity, require_pose_parity
from export.conversion.quantize import quantize, require_runtime
from export.conversion.to_onnx import depth_onnx, pose_onnx
from export.prediction.models import find_model
from export.runtime.fitting import fit_to_model
from export.runtime.model_facts import ModelFacts
from export.targets.exported import Export, Target, find_target
from splits.errors import InputError

# Fewer images give ranges of activations that vary too much.
FEW_IMAGES = 16


def export_model(config: ExportConfig, show: Callable[[str], object] = lambda _: None) -> Path:
    """Export, compare with torch, and write; returns what is written, ``config.out``. ``show`` is given the lines of the report.

    Args:
        config: what is exported, how, and where to.
        show: called with each line of the report.

    Raises:
        InputError: bad input, all of it found before the minutes of work where it can be; or an export that differs from torch too much.
            Nothing is written then.
    """
    target = find_target(config.target)
    with ExitStack() as stack:
        for path in target.outputs(config):
            stack.enter_context(hold(path, "wait until it has ended, or give another --out", folder=target.IS_FOLDER))
        _export(config, target, show)
    return config.out


def _export(config: ExportConfig, target: Target, show: Callable[[str], object]) -> None:
    if target.IS_FOLDER:
        _require_folder(config)
    target.require(config)
    if config.precision == "int8":
        require_runtime()
    config = replace(config, weights=_find_weights(config.weights))
    network = load_depth_network(config.weights, size_px=_size_given(config))
    evaluation = accuracy.prepare_evaluation(config, network)
    pose = load_pose_network(config.weights, height_px=network.height_px, width_px=network.width_px) if config.with_pose else None
    scores = None if config.scores is None else read_scores(config.scores)
    images = find_images(config)
    with TemporaryDirectory(prefix="md-export-") as name:
        exported = _export_networks(config, _resize(network, config), pose, scores, images, Path(name), show)
        if evaluation is not None:
            show(accuracy.compare(evaluation, exported.model))
        _publish(target, exported)
    show(f"{config.out}: {_describe(exported.facts)}")


def _find_weights(given: Path) -> Path:
    if is_onnx(given):
        raise InputError(f"{given} is an ONNX file already; give the weights folder that it was made of")
    return find_model(given)


def _size_given(config: ExportConfig) -> tuple[int, int] | None:
    return None if config.height_px is None or config.width_px is None else (config.height_px, config.width_px)


def _resize(network: DepthNetwork, config: ExportConfig) -> DepthNetwork:
    """The network at the size to export, with the same weights; the one given keeps the size of its training, at which it is scored."""
    network = copy(network)
    network.height_px, network.width_px = config.height_px or network.height_px, config.width_px or network.width_px
    return network


def _export_networks(
    config: ExportConfig,
    network: DepthNetwork,
    pose: PoseNetwork | None,
    scores: dict[str, Any] | None,
    images: ExportImages,
    folder: Path,
    show: Callable[[str], object],
) -> Export:
    """The ONNX files in ``folder``, compared with torch."""
    facts = depth_facts(network, config, scores)
    show(f"Exporting {config.weights}, ResNet-{network.num_layers} at {network.width_px}x{network.height_px}, in {config.precision}")
    model, pose_model = folder / "model.onnx", folder / "pose.onnx"
    depth_onnx(network, facts, model, batch_size=config.batch_size)
    if config.precision == "int8":
        plain = model.replace(folder / "float.onnx")
        few = "; about a hundred would be better" if len(images.for_calibration) < FEW_IMAGES else ""
        show(f"int8: calibrating on {len(images.for_calibration)} images of {config.images}{few}")
        kept = quantize(plain, model, _feeds(images.for_calibration, facts, config.batch_size))
        show(f"int8: kept in float: {', '.join(kept)}")
    differences = compare_depth(network, model, [read() for read in images.for_parity])
    table = parity_table(differences)
    show(f"Differences between onnxruntime and torch ({images.origin}):\n{table}")
    require_parity(differences, config.precision)
    if pose is not None:
        pose_onnx(pose, pose_facts(pose, facts), pose_model, batch_size=config.batch_size)
        show(f"Pose network: largest difference from torch {require_pose_parity(pose, pose_model):.4%} of the motion")
    return Export(config, network, facts, model, None if pose is None else pose_model, table, scores)


def _feeds(images: Sequence[Callable[[], Image.Image]], facts: ModelFacts, batch_size: int | None) -> Iterator[NDArray[Any]]:
    """Images as the graph takes them, read one at a time; one of a fixed batch has as many of each as it asks for."""
    for read in images:
        image = fit_to_model(read(), facts)
        frame = image if facts.preprocessing else image.transpose(2, 0, 1) / np.float32(255.0)
        yield np.repeat(frame[None], batch_size or 1, axis=0)


def _require_folder(config: ExportConfig) -> None:
    """``InputError`` where ``config.out`` cannot be made, or exists already."""
    out = config.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists already; --target {config.target} makes a folder: name a new one, or remove that")
    require_writable_folder(out.absolute().parent, "give another one with --out")


def _publish(target: Target, exported: Export) -> None:
    out = exported.config.out
    try:
        if target.IS_FOLDER:
            with whole_folder(out.absolute(), is_new=True) as folder:
                target.pack(exported, folder)
        else:
            target.pack(exported, out)
    except OSError as error:  # it names what was copied, or a temporary file
        raise InputError(f"--out {out} cannot be written ({error.strerror or error}); make room, or name another place") from error


def _describe(facts: ModelFacts) -> str:
    size = f"{facts.width_px}x{facts.height_px}"
    if facts.preprocessing:
        size = f"uint8 images of any size, network at {size}"
    elif facts.dynamic_size:
        size = f"any size of multiples of 32 (trained at {size})"
    parts = [f"ResNet-{facts.num_layers}", facts.precision, size, f"gives {facts.output}", f"opset {facts.opset}"]
    return ", ".join([*parts, f"trained with {facts.training}", f"licence of the weights: {facts.licence}"])
