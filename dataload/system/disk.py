"""Free space of a disk, and how sizes are written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """What is free of the disk that a folder lies on, or will."""
    return shutil.disk_usage(nearest_folder(folder)).free


def nearest_folder(folder: Path) -> Path:
    """The folder, or what there is of its parents."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.exists(parent))


def gigabytes(number: int) -> str:
    """``16.4 GB``; of small ones ``3.2 MB``."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
