"""The cores and the memory that this process may use, and the commit that it runs."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dataload.system.launch import launch

CGROUP = Path("/sys/fs/cgroup")
# Follows a commit where the code that runs is not what was committed.
CHANGED = " + changes"
# Of a control group's memory: its limit, what is used, and what of that only keeps copies of files; in the first version, and since.
FIRST_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
MEMORY = ("memory.max", "memory.current", ("active_file", "inactive_file"))
THREADS_VARIABLE = "OMP_NUM_THREADS"
# What a core does that is neither waiting nor part of another of these (psutil's names; systems count some of them). Stolen is what a
# virtual machine's host gave to others.
BUSY_TIMES = ("user", "nice", "system", "irq", "softirq", "steal")
# The system counts in hundredths of a second.
LEAST_SPAN_S = 1.0


def usable_cores() -> int:
    """The cores that this process may use: of a shared machine often fewer than it has, of a container no more than its share of their
    time; of several processes that work together, its part."""
    return max(1, int(min([len(_cores()), *_shares_of_cores()])) // launch().local_world)


def keep_to_share() -> None:
    """Let PyTorch compute in a container with as many threads as its share of the cores: OpenMP knows nothing of shares, and threads beyond
    them are stopped in turn while the others wait.

    Called before torch is imported; a number that the environment gives stays.
    """
    if min(_shares_of_cores(), default=math.inf) < len(_cores()):
        os.environ.setdefault(THREADS_VARIABLE, str(usable_cores()))


def _cores() -> set[int]:
    """The numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


class CoreTimes(NamedTuple):
    """The clock, how long the cores of this process have been busy, and how long with itself, in seconds; how many cores there are."""

    time_s: float
    busy_s: float
    own_s: float
    cores: int


def core_times() -> CoreTimes | None:
    """The times of this moment; None where the system does not tell."""
    import psutil

    try:
        of_each = psutil.cpu_times(percpu=True)
    except (OSError, RuntimeError, psutil.Error):
        return None
    cores = _cores()
    if max(cores) >= len(of_each):
        return None
    busy_s = sum(getattr(of_each[core], name, 0.0) for core in cores for name in BUSY_TIMES)
    return CoreTimes(time.monotonic(), busy_s, time.process_time(), len(cores))


class OtherPrograms:
    """How many of the cores that this process may use are taken by other programs, from one look to the next.

    Args:
        look: takes the times; another one in tests.
    """

    def __init__(self, look: Callable[[], CoreTimes | None] = core_times) -> None:
        self._look = look
        self._before = look()

    def cores_taken(self) -> tuple[float, int] | None:
        """Cores that others took, a mean since the look before, and cores that there are; None where that is too short a time to tell."""
        before, now = self._before, self._look()
        if before is None or now is None or now.cores != before.cores or now.time_s - before.time_s < LEAST_SPAN_S:
            return None
        self._before = now
        others_s = now.busy_s - before.busy_s - (now.own_s - before.own_s)
        return min(max(others_s / (now.time_s - before.time_s), 0.0), float(now.cores)), now.cores


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
    """What is left of the memory of each control group that this process belongs to, bytes, 0 or more."""
    for folder, is_first in _groups("memory"):
        limit, used, kept = FIRST_MEMORY if is_first else MEMORY
        with suppress(OSError, ValueError):
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = sum(int(statistics.get(name, 0)) for name in kept)
            # Without a limit: "max", or in version 1 a number beyond any memory.
            yield max(0, int((folder / limit).read_text()) - int((folder / used).read_text()) + cached)


def _shares_of_cores() -> Iterator[float]:
    """How many cores' time each control group that this process belongs to may take, as Kubernetes and Docker limit it."""
    for folder, is_first in _groups("cpu"):
        with suppress(OSError, ValueError):
            texts = [(folder / name).read_text() for name in (("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_first else ("cpu.max",))]
            quota, period = map(int, " ".join(texts).split())  # without a limit "max", or in version 1 -1
            if quota > 0 and period > 0:
                yield quota / period


def _groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups (Linux) that this process belongs to, and whether a folder is of their first version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP / controller if controllers else CGROUP
        # A container sees its own group at the root, whatever the line says.
        group = PurePosixPath(place.lstrip("/"))
        for folder in {root / part for part in (group, *group.parents)}:
            yield folder, bool(controllers)
