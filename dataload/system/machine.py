"""The cores and the memory that this process may use, and the commit that it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dataload.system.launch import launch

CGROUP = Path("/sys/fs/cgroup")
# Follows a commit where the code that runs is not what was committed.
CHANGED = " + changes"
TOTAL_FILES = ("total_active_file", "total_inactive_file")


def usable_cores() -> int:
    """The cores that this process may use: of a shared machine often fewer than it has; of several that work together, its part."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // launch().local_world)


def source_commit() -> str | None:
    """The commit, abbreviated, of the source that runs, with ``CHANGED`` where Python files differ from it or are new.

    None where it is installed rather than run from its repository, or without git.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # else git would answer for whatever repository the environment lies in
        return None
    commit = _git(root, "rev-parse", "--short", "HEAD")
    # Of Python files alone: benchmarks themselves change results and tables.
    return f"{commit}{CHANGED}" if commit and _git(root, "status", "--porcelain", "--", "*.py") else commit


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers about the repository; None where it says nothing, or is missing."""
    try:
        done = subprocess.run(["git", "--no-optional-locks", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def usable_workers(num_workers: int) -> int:
    """``num_workers``, but no more than the cores that this process may use."""
    return min(num_workers, usable_cores())


def available_memory_bytes() -> int:
    """What can be taken of the machine's memory without swapping, or of a container's share; what only keeps copies of files counts."""
    import psutil

    available = int(psutil.virtual_memory().available)
    return min([available, *_left_of_shares()])


def _left_of_shares() -> Iterator[int]:
    """What is left to each control group that this process belongs to (Linux; version 1 or 2), 0 or more."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, limit, used, kept = CGROUP, "memory.max", "memory.current", ("active_file", "inactive_file")
        elif "memory" in controllers.split(","):
            root, limit, used, kept = CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", TOTAL_FILES
        else:
            continue
        # A container sees its own group at the root, whatever the line says.
        group = PurePosixPath(place.lstrip("/"))
        for folder in {root / part for part in (group, *group.parents)}:
            with suppress(OSError, ValueError):
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = sum(int(statistics.get(name, 0)) for name in kept)
                # Without a limit: "max", or in version 1 a number beyond any memory.
                yield max(0, int((folder / limit).read_text()) - int((folder / used).read_text()) + cached)
