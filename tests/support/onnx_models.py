"""Small ONNX files whose output can be computed by hand: 0.1 plus the mean of the colours of each pixel, in 0..1."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.conversion.to_onnx import OPSET
from export.runtime.model_facts import ModelFacts

SIZE_PX = (32, 64)
OFFSET = np.float32(0.1)


def facts(**changes: object) -> ModelFacts:
    """Facts of a network of ``SIZE_PX``."""
    return ModelFacts(**{"height_px": SIZE_PX[0], "width_px": SIZE_PX[1], "opset": OPSET, **changes})  # type: ignore[arg-type]


def save_onnx(
    path: Path,
    known: ModelFacts | None,
    *,
    size_px: tuple[int | str, int | str] = SIZE_PX,
    batch: int | str = "batch",
    takes_bytes: bool = False,
    more_outputs: int = 0,
    opset: int = OPSET,
) -> Path:
    """Write the file; ``known`` becomes its metadata. With ``more_outputs``, coarser maps stand before the real one, as Monodepth2's do."""
    channels = 3 if takes_bytes else 1
    shape = [batch, *size_px, 3] if takes_bytes else [batch, 3, *size_px]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8 if takes_bytes else TensorProto.FLOAT, shape)
    constants = {"axes": np.array([channels]), "offset": OFFSET, "white": np.float32(255)}
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], ["scaled"]) if takes_bytes else helper.make_node("Identity", ["image"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"]),
        helper.make_node("Transpose", ["mean"], ["plane"], perm=[0, 3, 1, 2] if takes_bytes else [0, 1, 2, 3]),
        helper.make_node("Add", ["plane", "offset"], ["result"]),
    ]
    result_px: tuple[int | str, int | str] = size_px
    if known is not None and known.preprocessing:
        result_px = known.size_px
        constants["sizes"] = np.array([1, 1, *result_px])
        nodes[-1] = helper.make_node("Add", ["plane", "offset"], ["large"])
        nodes.append(helper.make_node("Resize", ["large", "", "", "sizes"], ["result"], mode="nearest"))
    outputs = [helper.make_tensor_value_info("result", TensorProto.FLOAT, [batch, 1, *result_px])]
    for number in range(more_outputs):
        nodes.append(helper.make_node("AveragePool", ["result"], [f"coarse{number}"], kernel_shape=[2, 2], strides=[2, 2]))
        outputs.insert(0, helper.make_tensor_value_info(f"coarse{number}", TensorProto.FLOAT, [batch, 1, f"h{number}", f"w{number}"]))
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "mean", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, {} if known is None else known.to_metadata())
    onnx.save_model(model, str(path))
    return path


def result_of(images: np.ndarray) -> np.ndarray:
    """What such a file gives for uint8 images (B,H,W,3)."""
    return (images.astype(np.float64) / 255).mean(axis=-1) + 0.1


def images_of(count: int, size_px: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """Random ones."""
    return np.random.default_rng(count).integers(0, 256, (count, *size_px, 3), dtype=np.uint8)
