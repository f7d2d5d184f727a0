"""The facts of an export, from the weights, the run they are of, and the scores they were given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from dataload.system.machine import source_commit
from dataload.system.shell import quoted
from engine.inference.depth_network import DepthNetwork
from engine.inference.pose_network import PoseNetwork
from engine.released import LICENCE, RELEASED
from engine.run_options import run_options
from engine.weights import has_weights, weights_folder
from export.config import ExportConfig
from export.conversion.to_onnx import OPSET
from export.runtime.model_facts import ModelFacts
from splits.errors import InputError
from splits.faults import parsing
from splits.reading import read_json
from splits.version import DISTRIBUTION, version

KITTI_LICENCE = "trained on KITTI, which is CC BY-NC-SA 3.0: non-commercial use only"
DEMO_LICENCE = "trained on images rendered by this engine"
UNKNOWN_LICENCE = "not stated; the licence of the training data may bind the weights"


def depth_facts(network: DepthNetwork, config: ExportConfig, scores: Mapping[str, Any] | None) -> ModelFacts:
    """The facts of an export of ``network`` under ``config``."""
    folder = weights_folder(config.weights)
    options = run_options(folder)
    factor = network.metric_factor
    stereo = "mono+stereo" if has_weights(folder, "pose") else "stereo"
    ratio = None if scores is None else scores["models"][0]["median_ratio"]
    return ModelFacts(
        output="depth_m" if config.output == "depth" and factor is not None else config.output,
        height_px=network.height_px, width_px=network.width_px, dynamic_size=config.dynamic_size, preprocessing=config.preprocessing,
        min_depth=network.min_depth, max_depth=network.max_depth,
        training="mono" if factor is None else stereo,
        metric_factor=factor, median_ratio=ratio, precision=config.precision, num_layers=network.num_layers, opset=OPSET,
        source=_source(), licence=config.licence or _licence(folder, options),
    )  # fmt: skip


def pose_facts(network: PoseNetwork, depth: ModelFacts) -> ModelFacts:
    """The facts of the pose network beside a depth network with facts ``depth``; its translations are in the same unit."""
    return ModelFacts(
        kind="pose", output="T_source_target", height_px=network.height_px, width_px=network.width_px, min_depth=depth.min_depth,
        max_depth=depth.max_depth, training=depth.training, metric_factor=depth.metric_factor, median_ratio=depth.median_ratio,
        frame_ids=network.frame_ids, num_layers=depth.num_layers, opset=OPSET, source=depth.source, licence=depth.licence,
    )  # fmt: skip


def read_scores(path: Path) -> dict[str, Any]:
    """The JSON that md-eval wrote of one model.

    Raises:
        InputError: missing, damaged, or of another number of models.
    """
    what, remedy = "what md-eval --json writes", f"write it with md-eval --json {quoted(path)}"
    scores: dict[str, Any] = read_json(path, what, remedy)
    with parsing(path, what, remedy):
        models = scores["models"]
        abs_rel, ratio, split = models[0]["abs_rel"], models[0]["median_ratio"], scores["settings"]["eval_split"]
        known = _is_finite(abs_rel) and isinstance(split, str) and (ratio is None or (_is_finite(ratio) and ratio > 0))
        known = known and isinstance(models, list) and all(isinstance(part, Mapping) for part in (scores["settings"], models[0]))
    if not known:
        raise InputError(f"--scores {path} holds values that md-eval --json does not write; write it again")
    if len(models) != 1:
        raise InputError(f"--scores {path} holds {len(models)} models; evaluate only the one that is exported")
    return scores


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _source() -> str:
    commit = source_commit()
    try:
        release = f"{DISTRIBUTION} {version()}"
    except PackageNotFoundError:  # run from a folder that nobody installed
        release = DISTRIBUTION
    return f"{release}, commit {commit}" if commit else release


def _licence(folder: Path, options: Mapping[str, Any]) -> str:
    if folder.name in RELEASED or folder.parent.name in RELEASED:
        return LICENCE
    dataset = str(options.get("dataset", ""))
    if dataset == "demo":
        return DEMO_LICENCE
    return KITTI_LICENCE if dataset.startswith("kitti") else UNKNOWN_LICENCE
