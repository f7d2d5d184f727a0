"""Where things lie: the checkout, its rooms, the reference data."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("splits", "dataload", "engine", "export")


def shared_folder() -> Path:
    """Where the reference data would lie on this machine."""
    return Path(os.environ.get("MD_SHARED") or PROJECT.parent / "shared")
