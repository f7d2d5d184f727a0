"""Which checkpoints a run's ``models`` folder holds, by the names of folders and files alone: asking imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from dataload.system.locks import settle

WEIGHTS_FOLDER = re.compile(r"weights_(\d+)")
STEP_FOLDER = re.compile(r"step_(\d+)")
# What a checkpoint that can be resumed holds beside its weights and Adam's state.
STATE_FILE = "state.pt"


def checkpoint_folders(models_folder: Path) -> list[Path]:
    """The folders ``weights_<epoch>`` by epoch, then ``step_<n>`` by step; none where there is no such models folder.

    What a writer that was killed has left aside is put back first.
    """
    if not models_folder.is_dir():
        return []
    settle(models_folder)
    found = [(kind, int(match[1]), folder) for folder in models_folder.iterdir() for kind, match in _kinds(folder.name)]
    return [folder for _, _, folder in sorted(found)]


def _kinds(name: str) -> list[tuple[int, re.Match[str]]]:
    return [(kind, match) for kind, form in enumerate((WEIGHTS_FOLDER, STEP_FOLDER)) if (match := form.fullmatch(name))]


def resumable_folders(models_folder: Path) -> list[Path]:
    """Those of ``checkpoint_folders`` that a run can be resumed from."""
    return [folder for folder in checkpoint_folders(models_folder) if (folder / STATE_FILE).is_file()]
