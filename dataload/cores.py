"""How many of the machine's cores are this process's."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may use: of a shared machine often fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
