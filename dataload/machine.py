"""How much of the machine is this process's."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The cores that this process may use: of a shared machine often fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_workers(num_workers: int) -> int:
    """``num_workers``, but no more than the cores that this process may use."""
    return min(num_workers, usable_cores())


def available_memory_bytes() -> int:
    """What can be taken of the machine's memory without swapping, or of a container's share; what only keeps copies of files counts."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return available
    return available if limit == "max" else max(0, min(available, int(limit) - used + int(cached.get("file", 0))))
