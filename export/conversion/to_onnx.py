"""Networks as ONNX files, by torch's exporter of captured graphs, with their facts as metadata."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim

from dataload.config import SIZE_MULTIPLE_PX
from engine.inference.depth_network import DepthNetwork
from engine.inference.pose_network import PoseNetwork
from export.conversion.deployed import DeployedDepth, to_fp16, transpose_head
from export.runtime.model_facts import ModelFacts
from splits.errors import InputError
from splits.version import DISTRIBUTION

# What the exporter writes of itself, without converting to it; onnxruntime reads it since 1.14, and so do browsers and TensorRT.
OPSET = 18
# An axis of length 1 in the example would be taken for one that never changes.
EXAMPLE_BATCH = 2
EXAMPLE_FRAME_PX = (375, 1242)


def depth_onnx(network: DepthNetwork, facts: ModelFacts, path: Path, *, batch_size: int | None = None) -> None:
    """Write the depth network between image and ``facts.output`` to ``path``, in fp32 or fp16; ``batch_size`` None leaves it open."""
    computed = transpose_head(to_fp16(network) if facts.precision == "fp16" else network)
    deployed = DeployedDepth(computed, facts.output, preprocessing=facts.preprocessing, metric_factor=facts.metric_factor)
    batch = EXAMPLE_BATCH if batch_size is None else batch_size
    axes: dict[int, Any] = {} if batch_size is not None else {0: Dim("batch")}
    if facts.preprocessing:
        example = torch.zeros(batch, *EXAMPLE_FRAME_PX, 3, dtype=torch.uint8)
        axes |= {1: Dim("frame_height"), 2: Dim("frame_width")}
    else:
        example = torch.zeros(batch, 3, *facts.size_px)
        axes |= {2: SIZE_MULTIPLE_PX * Dim("h"), 3: SIZE_MULTIPLE_PX * Dim("w")} if facts.dynamic_size else {}
    _write(deployed, {"image": example}, {"image": axes}, facts, path)


def pose_onnx(network: PoseNetwork, facts: ModelFacts, path: Path, *, batch_size: int | None = None) -> None:
    """Write the pose network, ``target`` (B,3,h,w) and ``sources`` (B,S,3,h,w) in 0..1 to ``T_source_target`` (B,S,4,4), to ``path``."""
    batch = EXAMPLE_BATCH if batch_size is None else batch_size
    axes = {} if batch_size is not None else {0: Dim("batch")}
    target = torch.zeros(batch, 3, *facts.size_px)
    sources = torch.zeros(batch, len(facts.frame_ids) - 1, 3, *facts.size_px)
    _write(network, {"target": target, "sources": sources}, {"target": axes, "sources": axes}, facts, path)


def _write(module: nn.Module, inputs: Mapping[str, torch.Tensor], axes: Mapping[str, Any], facts: ModelFacts, path: Path) -> None:
    if find_spec("onnxscript") is None:  # torch has its exporter, but not what that is written in
        raise InputError("exporting needs onnxscript: pip install onnxscript")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), (), kwargs=dict(inputs), dynamic_shapes=dict(axes), input_names=list(inputs), output_names=[facts.output],
            dynamo=True, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in this machine's files each operator comes from
    model.producer_name, model.producer_version = DISTRIBUTION, facts.source
    onnx.helper.set_model_props(model, facts.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    for value in model.graph.input:
        # The exporter silently fixes an axis that the capture could not leave open.
        assert all(value.type.tensor_type.shape.dim[axis].dim_param for axis in axes[value.name]), f"{value.name} has lost an open axis"
    onnx.save_model(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, hide the exporter's warnings about names of axes and about operators that are not used here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
