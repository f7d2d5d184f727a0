"""The facts that an exported model holds as ONNX metadata: all that a program needs to use it, and its origin. Standard library alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from splits.errors import InputError

PREFIX = "md_engine."
FORMAT = 1
# What a file's first number can be: the sigmoid output, 1 over the network's unit, the network's unit, metres.
OUTPUTS = ("disp", "inv_depth", "depth", "depth_m")
TRAININGS = ("mono", "stereo", "mono+stereo")
MAX_SIDE_PX = 2**14


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of one exported network.

    Attributes:
        kind: ``depth`` or ``pose``.
        output: of ``OUTPUTS``, also the name of the graph's output; ``T_source_target`` of a pose network.
        height_px, width_px: size of the network's input, which is that of its training.
        dynamic_size: the graph takes other sizes too, multiples of 32. preprocessing: it takes uint8 images (B,H,W,3) of any size and
            resizes them itself, else float images (B,3,H,W) in 0..1.
        min_depth, max_depth: range of the depth, in the network's unit.
        training: of ``TRAININGS``.
        metric_factor: metres in the network's unit, None where a single moving camera left it unknown.
        median_ratio: the median of truth over prediction that an evaluation found (for mono models, metres in the unit there), or None.
        frame_ids: frames that a pose network reads, the target first; empty for depth.
        precision: of the weights. num_layers: of the ResNet. opset: of the graph.
        source: version and commit of the engine that exported it. licence: a note on the weights.
    """

    kind: str = "depth"
    output: str = "inv_depth"
    height_px: int
    width_px: int
    dynamic_size: bool = False
    preprocessing: bool = False
    min_depth: float = 0.1
    max_depth: float = 100.0
    training: str = "mono"
    metric_factor: float | None = None
    median_ratio: float | None = None
    frame_ids: tuple[int, ...] = ()
    precision: str = "fp32"
    num_layers: int = 18
    opset: int = 0
    source: str = ""
    licence: str = ""

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.height_px, self.width_px

    def check(self) -> None:
        """Raise ValueError, naming the fact, where one cannot be true."""
        if self.kind == "depth" and self.output not in OUTPUTS:
            raise ValueError(f"output {self.output!r}")
        for name in ("height_px", "width_px"):
            if not 0 < getattr(self, name) <= MAX_SIDE_PX:
                raise ValueError(f"{name} {getattr(self, name)}")
        for name in ("min_depth", "max_depth", "metric_factor", "median_ratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} {value}")
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} is not below max_depth {self.max_depth}")

    def to_metadata(self) -> dict[str, str]:
        """Keys with ``PREFIX`` and values as text: numbers in full, sequences separated by blanks, what is not known as empty text."""
        return {PREFIX + "format": str(FORMAT)} | {PREFIX + name: _text(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> ModelFacts | None:
        """The facts in a file's metadata; None where ``path`` was not made by md-export.

        Args:
            metadata: the keys and values of an ONNX file.
            path: the file, for messages.

        Raises:
            InputError: made by a later version, or damaged by hand.
        """
        version = metadata.get(PREFIX + "format")
        if version is None:
            return None
        if version != str(FORMAT):
            raise InputError(
                f"{path} was exported by another version (metadata format {version}, this one reads {FORMAT}); update monodepth-engine"
            )
        try:
            facts = cls(**{f.name: _parse(str(f.type), metadata[PREFIX + f.name]) for f in fields(cls)})
            facts.check()
        except (KeyError, ValueError) as error:
            raise InputError(f"{path} has damaged metadata ({error}); export it again") from error
        return facts


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parse(kind: str, text: str) -> Any:
    """The value of a field from its text, by the field's annotation."""
    if kind == "bool":
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    if kind == "float | None":
        return float(text) if text else None
    if kind == "tuple[int, ...]":
        return tuple(map(int, text.split()))
    types = {"int": int, "float": float, "str": str}
    return types[kind](text)
