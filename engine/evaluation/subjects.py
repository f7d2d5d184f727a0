"""What is evaluated: folders of weights, and files of inverse depths made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.evaluation.config import EvalConfig

if TYPE_CHECKING:
    from engine.inference.depth_network import DepthNetwork


class Subject(NamedTuple):
    """What is evaluated: a folder of weights, or a file of inverse depths made elsewhere.

    Attributes:
        epoch: of the weights, where their folder's name has it.
        network: as ``prepare`` has loaded it; None of a file, and where the networks may be too many to be held at once.
    """

    name: str
    weights: Path | None = None
    ext_disp: Path | None = None
    epoch: int | None = None
    network: DepthNetwork | None = None


def find_subjects(config: EvalConfig) -> list[Subject]:
    """Everything to be evaluated, in the order given; with ``all_weights`` every epoch of each run folder.

    Raises:
        InputError: a folder without weights.
    """
    # Imported here: scoring disparities made elsewhere needs no torch.
    if config.weights_folders:
        from engine.weights import epoch_folders, epoch_of, weights_folder
    subjects = []
    for path in config.weights_folders:
        folders = epoch_folders(path) if config.all_weights else [weights_folder(path)]
        subjects += [Subject(str(folder) if config.all_weights else str(path), folder, epoch=epoch_of(folder)) for folder in folders]
    return subjects + [Subject(str(path), ext_disp=path) for path in config.ext_disps]
