"""A depth network's ONNX file in 8 bits: onnxruntime's tools calibrate and quantise it, then bytes are kept bytes between convolutions.

Figures are of ResNet-18 at 640x192 on two cores with VNNI, where plain quantisation takes 23.6 ms and this 14.8 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator

from export.conversion.byte_graph import (
    MAX_BYTE,
    Levels,
    double_by_rows,
    drop_unused,
    move_bytes,
    rewrite_elus,
    store_in_bytes,
)
from export.runtime.providers import version_of
from splits.errors import InputError

# The first onnxruntime that has Max of bytes; for Python 3.10 there is none.
RUNS_SINCE = (1, 24)
OP_TYPES = ("Conv", "Relu", "MaxPool", "Add", "Pad", "Elu", "Resize", "Concat")


def require_runtime() -> None:
    """Raise InputError where onnxruntime is too old to run what ``quantize`` writes."""
    if version_of(onnxruntime) < RUNS_SINCE:
        least = ".".join(map(str, RUNS_SINCE))
        raise InputError(
            f"precision=int8 needs onnxruntime {least} or later, and {onnxruntime.__version__} is installed: pip install -U "
            "onnxruntime, on Python 3.11 or later; or choose fp16"
        )


def quantize(source: Path, destination: Path, batches: Iterable[NDArray[Any]]) -> tuple[str, ...]:
    """Write the fp32 file ``source`` to ``destination`` with int8 weights, a scale per channel, and uint8 activations.

    Everything before the first convolution and after the last one stays in float, and so do two convolutions: the decoder's first, whose
    output has the widest range of all (in float it takes 1 ms more and two thirds of the cost in accuracy away), and the disparity head,
    at which onnxruntime is quicker in float.

    Args:
        batches: at least one; each as the graph's input ``image`` takes it, asked for one at a time. What activations are between is
            calibrated on them: the mean over the batches of their least and of their largest value.

    Returns:
        The names of the convolutions that stay in float.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    graph = model.graph
    first, head = _decoder_first(graph), next(node for node in graph.node if node.op_type == "ConvTranspose")
    kept = tuple(node.input[1].removeprefix("network.").removesuffix(".weight") for node in (first, head))
    ranges = _ranges(model, batches)
    nodes = _nodes_between(graph, first, head)
    sizes_px = {node.name: _size_px(graph, node.input[0]) for node in graph.node if node.op_type == "Resize" and node.name in nodes}
    elus = [node for node in graph.node if node.op_type == "Elu" and node.name in nodes]
    levels = {node.name: Levels.for_elu(*(float(np.squeeze(end)) for end in ranges[node.input[0]].range_value)) for node in elus}
    overrides = {name: [_override(found)] for name, found in _shared_levels(graph, levels, ranges).items()}
    metadata, producer = list(model.metadata_props), (model.producer_name, model.producer_version)
    options = {"TensorQuantOverrides": overrides, "ForceQuantizeNoInputCheck": True}
    quantizer = QDQQuantizer(
        model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8, tensors_range=ranges,
        nodes_to_quantize=nodes, nodes_to_exclude=[], op_types_to_quantize=list(OP_TYPES), extra_options=options,
    )  # fmt: skip
    model = quantizer.quantize_model()
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    model.producer_name, model.producer_version = producer
    rewrite_elus(model.graph)
    move_bytes(model.graph)
    double_by_rows(model.graph, sizes_px)
    store_in_bytes(model.graph, first.input[1])
    drop_unused(model.graph)
    quantizer.model.topological_sort()
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(destination))
    return kept


def _override(levels: Levels) -> dict[str, Any]:
    """Levels as onnxruntime's tools want them."""
    scale, zero_point = np.array(levels.scale, np.float32), np.array(levels.zero_point, np.uint8)
    return {"quant_type": QuantType.QUInt8, "scale": scale, "zero_point": zero_point}


def _ranges(model: ModelProto, batches: Iterable[NDArray[Any]]) -> Any:
    """onnxruntime's ``TensorsData`` of what OP_TYPES read and write; only two numbers per tensor and batch are kept."""
    feeds = ({"image": batch} for batch in batches)
    with TemporaryDirectory(prefix="md-calibrate-") as folder:
        path = Path(folder) / "float.onnx"
        onnx.save_model(model, str(path))
        calibrator = create_calibrator(
            path, OP_TYPES, str(path.with_name("ranges.onnx")), CalibrationMethod.MinMax, extra_options={"moving_average": True}
        )
        calibrator.collect_data(_Reader(feeds))
        return calibrator.compute_data()


class _Reader:
    """Feeds as onnxruntime's calibration asks for them."""

    def __init__(self, feeds: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next feed; None after the last."""
        return next(self._feeds, None)


def _convolutions(graph: GraphProto) -> list[NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]


def _decoder_first(graph: GraphProto) -> NodeProto:
    """The decoder's first convolution: the first that reads a reflected border."""
    bordered = {node.output[0] for node in graph.node if node.op_type == "Pad"}
    return next(node for node in _convolutions(graph) if node.input[0] in bordered)


def _nodes_between(graph: GraphProto, left_out: NodeProto, head: NodeProto) -> list[str]:
    """The names of the nodes to quantise: from the first convolution up to the head, but for ``left_out`` and the ELU behind it."""
    first = _convolutions(graph)[0]
    reached, names = set(first.output), [first.name]
    for node in graph.node:
        if node.name == head.name:
            break
        if reached.intersection(node.input):
            reached.update(node.output)
            if node.name != left_out.name and left_out.output[0] not in node.input:
                names.append(node.name)
    return names


def _size_px(graph: GraphProto, name: str) -> tuple[int, int] | None:
    """(height, width) of a tensor (B,C,h,w), None where it is open."""
    info = next(info for info in graph.value_info if info.name == name)
    height, width = (axis.dim_value for axis in info.type.tensor_type.shape.dim[2:])
    return (height, width) if height and width else None


def _shared_levels(graph: GraphProto, levels: dict[str, Levels], ranges: Any) -> dict[str, Levels]:
    """The levels of the tensors around each ELU of ``levels``: its input and output, and what it is joined to further on if they hold that.

    Joined on levels of its own, an ELU's output would be rounded twice.
    """
    shared: dict[str, Levels] = {}
    joined: dict[str, Levels] = {}
    for node in graph.node:
        if node.name in levels:
            shared |= dict.fromkeys((node.input[0], node.output[0]), levels[node.name])
        elif node.op_type == "Resize" and node.input[0] in shared:
            joined[node.output[0]] = shared[node.input[0]]
        elif node.op_type == "Concat" and node.input[0] in joined:
            found = joined[node.input[0]]
            if float(np.squeeze(ranges[node.output[0]].range_value[1])) <= found.scale * (MAX_BYTE - found.zero_point + 1):
                shared[node.output[0]] = found
    return shared
