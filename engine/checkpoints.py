"""Which checkpoints a run's ``models`` folder holds, by the names of folders and files alone: asking imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

WEIGHTS_FOLDER = re.compile(r"weights_(\d+)")
STEP_FOLDER = re.compile(r"step_(\d+)")
# What a checkpoint that can be resumed holds beside its weights and Adam's state.
STATE_FILE = "state.pt"


def checkpoint_folders(models_folder: Path) -> list[Path]:
    """The folders ``weights_<epoch>`` and ``step_<n>``, sorted by name; none where there is no such models folder."""
    if not models_folder.is_dir():
        return []
    return sorted(f for f in models_folder.iterdir() if WEIGHTS_FOLDER.fullmatch(f.name) or STEP_FOLDER.fullmatch(f.name))


def resumable_folders(models_folder: Path) -> list[Path]:
    """Those of ``checkpoint_folders`` that a run can be resumed from."""
    return [folder for folder in checkpoint_folders(models_folder) if (folder / STATE_FILE).is_file()]
