"""``--target hub``: a folder ready to upload to a model hub, with weights as safetensors, the ONNX file, their facts and a model card."""

from __future__ import annotations

import html
import importlib.util
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from dataload.system.json_text import json_text
from engine.evaluation.metrics import HIGHER_IS_BETTER, METRICS
from engine.fetching.hub import SAFETENSORS_FILE
from engine.networks.encoder import IMAGE_MEAN, IMAGE_STD
from engine.run_options import run_options
from engine.sums import SUMS_FILE, digest_of_file, sums_text
from engine.weights import InputSize, size_entries, weights_folder
from splits.errors import InputError, one_line
from splits.version import DISTRIBUTION

if TYPE_CHECKING:
    from engine.inference.depth_network import DepthNetwork
    from export.config import ExportConfig
    from export.runtime.model_facts import ModelFacts
    from export.targets.exported import Export

IS_FOLDER = True
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
ONNX_FILES = ("model.onnx", "pose.onnx")
LARGE_FILES = ("*.onnx", "*.safetensors")
# Of a safetensors file: its first bytes give the size of its header, whose facts other than tensors lie under this key.
SIZE_BYTES, METADATA = 8, "__metadata__"
# The options that the card shows; opt.json has all of them.
CARD_OPTIONS = (
    "dataset", "split", "frame_ids", "use_stereo", "height", "width", "weights_init", "num_epochs", "batch_size", "learning_rate",
    "scheduler_step_size", "disparity_smoothness", "amp", "seed",
)  # fmt: skip
# What means something within a line of Markdown; the signs of HTML are escaped before.
SIGNS, LINK = re.compile(r"[\\`*_{}\[\]|~!#$@:]"), re.compile(r"www\.", re.IGNORECASE)
UNITS = {
    "inv_depth": "inverse depth, 1 over the network's unit",
    "depth": "depth in the network's unit",
    "depth_m": "depth in metres",
}


def require(config: ExportConfig) -> None:
    """Raise InputError where a package is missing that ``pack`` needs."""
    for package in ("safetensors", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--target hub needs the package {package}: pip install {package}")


def outputs(config: ExportConfig) -> list[Path]:
    """The folder that ``pack`` fills."""
    return [config.out]


def pack(exported: Export, folder: Path) -> None:
    """Fill ``folder``: what ``load_depth_network`` reads, what onnxruntime runs, and the card that describes both."""
    options = training_options(run_options(weights_folder(exported.config.weights)), exported.network)
    save_safetensors(folder / SAFETENSORS_FILE, exported.network)
    copyfile(exported.model, folder / ONNX_FILES[0])
    if exported.pose is not None:
        copyfile(exported.pose, folder / ONNX_FILES[1])
    large = {name: digest_of_file(folder / name) for name in (SAFETENSORS_FILE, *ONNX_FILES) if (folder / name).is_file()}
    texts = {
        SUMS_FILE: sums_text(large),
        "config.json": _json(model_config(exported)),
        "opt.json": _json(options),
        "LICENSE": f"{exported.facts.licence}\n",
        ".gitattributes": "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_FILES),
        "README.md": model_card(exported, options),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def save_safetensors(path: Path, network: DepthNetwork) -> None:
    """Write the network's own state dict, fp32 as trained, and the input size as metadata; the same bytes whenever these are the same."""
    from safetensors.torch import save

    size = size_entries(InputSize(*network.size_px, network.use_stereo))
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    path.write_bytes(_ordered(save(tensors, {"format": "pt", **{key: json.dumps(value) for key, value in size.items()}})))


def _ordered(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: safetensors writes them in another order each time."""
    start = SIZE_BYTES + int.from_bytes(content[:SIZE_BYTES], "little")
    header = json.loads(content[SIZE_BYTES:start])
    header[METADATA] = dict(sorted(header[METADATA].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % SIZE_BYTES)  # tensors begin at a multiple of it
    return len(text).to_bytes(SIZE_BYTES, "little") + text + content[start:]


def training_options(options: Mapping[str, Any], network: DepthNetwork) -> dict[str, Any]:
    """The run's options, and the depth range; without options that hold paths, which mean nothing elsewhere and reveal the machine."""
    kept = {key: value for key, value in options.items() if not _holds_path(value)}
    return {**kept, "min_depth": network.min_depth, "max_depth": network.max_depth}


def _holds_path(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_path, value))
    return isinstance(value, str) and ("/" in value or "\\" in value)


def model_config(exported: Export) -> dict[str, Any]:
    """The facts of network and graph for programs."""
    facts, network = exported.facts, exported.network
    return {
        "library_name": DISTRIBUTION,
        "architecture": {"encoder": f"resnet{facts.num_layers}", "decoder": "monodepth2", "scales": list(network.depth.scales)},
        "height_px": facts.height_px,
        "width_px": facts.width_px,
        "min_depth": facts.min_depth,
        "max_depth": facts.max_depth,
        "training": facts.training,
        "metric_factor": facts.metric_factor,
        "median_ratio": facts.median_ratio,
        # Applied inside the networks: their input is in 0..1, or uint8.
        "normalisation": {"mean": IMAGE_MEAN, "std": IMAGE_STD, "inside_the_network": True},
        "weights": {"file": SAFETENSORS_FILE, "precision": "fp32"},
        "onnx": {
            "file": "model.onnx",
            "precision": facts.precision,
            "opset": facts.opset,
            "input": input_of(exported),
            "output": {"name": facts.output, "dtype": "float32", "layout": "B1HW", "meaning": UNITS[facts.output]},
            "pose_file": None if exported.pose is None else "pose.onnx",
        },
        "source": facts.source,
        "licence": facts.licence,
    }


def input_of(exported: Export) -> dict[str, Any]:
    """What the graph is given: type, order of the axes, and which of them are fixed."""
    facts, batch_size = exported.facts, exported.config.batch_size
    if facts.preprocessing:
        kind = {"dtype": "uint8", "layout": "BHWC", "range": [0, 255], "size_px": "any"}
    else:
        size: Any = "multiples of 32" if facts.dynamic_size else list(facts.size_px)
        kind = {"dtype": "float32", "layout": "BCHW", "range": [0, 1], "size_px": size}
    return {"name": "image", **kind, "channels": "RGB", "batch_size": "any" if batch_size is None else batch_size}


def model_card(exported: Export, options: Mapping[str, Any]) -> str:
    """The card: Markdown below a front matter that hubs read."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"yaml": yaml_value, "text": markdown_text}
    facts, config, scores = exported.facts, exported.config, exported.scores
    training = {key: options[key] for key in CARD_OPTIONS if options.get(key) is not None}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=config.out.absolute().name, library=DISTRIBUTION, facts=facts, unit=UNITS[facts.output], options=training,
        parity=exported.parity, metres=_metres(facts), batch_size=config.batch_size or 1, pose=exported.pose is not None,
        metrics=_metrics(scores), evaluation=None if scores is None else _evaluation(scores),
    )  # fmt: skip


def yaml_value(value: Any) -> str:
    """A value as YAML has it: a JSON text is YAML too, whatever signs are in it."""
    return json.dumps(one_line(value) if isinstance(value, str) else value, ensure_ascii=False)


def markdown_text(value: Any) -> str:
    """A value of unknown origin as words in Markdown: one line that makes no markup, link, formula, table or HTML; a list by its values."""
    words = one_line(" ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
    return LINK.sub(r"www\\.", SIGNS.sub(r"\\\g<0>", html.escape(" ".join(words.split()), quote=False)))


def _metres(facts: ModelFacts) -> str:
    """How to get metres from the output, where that is possible."""
    if facts.output == "depth_m":
        return "The output is metres already."
    if facts.metric_factor is not None:
        return f"Metres are {facts.metric_factor:g} over the output: that is the factor of the stereo pairs it was trained on."
    known = f"; where it was evaluated, a unit was {facts.median_ratio:.3f} metres in the median" if facts.median_ratio else ""
    return f"It learned from a single moving camera: its unit is unknown, and need not be the same in every image{known}."


def _metrics(scores: Mapping[str, Any] | None) -> list[tuple[str, float, str]]:
    """Name, value and better direction of every finite score."""
    model = {} if scores is None else scores["models"][0]
    values = [(name, model.get(name)) for name in METRICS]
    return [(n, v, "higher" if n in HIGHER_IS_BETTER else "lower") for n, v in values if isinstance(v, float) and math.isfinite(v)]


def _evaluation(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation, a split folder by its name alone, and how many images it saw."""
    settings = {key: value for key, value in scores["settings"].items() if value is not None and not _holds_path(value)}
    split = scores["settings"]["eval_split"].replace("\\", "/").rstrip("/").rpartition("/")[2]
    return {"split": split, "images": scores["models"][0].get("num_images"), "settings": settings | {"eval_split": split}}


def _json(content: Mapping[str, Any]) -> str:
    return json_text(content, 2) + "\n"
