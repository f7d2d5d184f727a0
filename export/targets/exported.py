"""The contract of targets: what each is given (``Export``) and what it offers (``Target``, which every module of TARGETS follows)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from export.config import TARGETS, ExportConfig

if TYPE_CHECKING:
    from engine.inference.depth_network import DepthNetwork
    from export.runtime.model_facts import ModelFacts


class Export(NamedTuple):
    """A finished export, in a temporary place from which a target takes what it needs.

    Attributes:
        network: as loaded, fp32, of the size that was exported. facts: what the file records of itself.
        model: the ONNX file, compared with torch. pose: the pose network's, where it was asked for.
        parity: the table of that comparison. scores: what md-eval wrote of the weights, where it was given.
    """

    config: ExportConfig
    network: DepthNetwork
    facts: ModelFacts
    model: Path
    pose: Path | None
    parity: str
    scores: dict[str, Any] | None


class Target(Protocol):
    """The module of a target.

    Attributes:
        IS_FOLDER: ``--out`` names a new folder, not a file.
    """

    IS_FOLDER: bool

    def require(self, config: ExportConfig, /) -> None:
        """Check what ``pack`` needs, before the minutes of work.

        Raises:
            InputError: something is missing.
        """

    def outputs(self, config: ExportConfig, /) -> list[Path]:
        """The files or the folder that ``pack`` writes, to be held until then."""

    def pack(self, exported: Export, out: Path, /) -> None:
        """Write to ``out``: the file of ``--out``, or an empty folder that takes its place.

        Raises:
            OSError: the disk is full or not writable.
        """


def find_target(name: str) -> Target:
    """The module of a target's name, which is of ``TARGETS``."""
    return cast(Target, import_module(TARGETS[name].module))
