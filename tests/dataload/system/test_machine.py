"""How much of the machine is ours: a container's share, not the whole."""

import os
from pathlib import Path

import psutil
import pytest

from dataload.system import machine
from dataload.system.machine import THREADS_VARIABLE, available_memory_bytes, keep_to_share, usable_cores, usable_workers

CACHED = "active_file 60\ninactive_file 40\ntotal_active_file 60\ntotal_inactive_file 40\n"


def test_workers_keep_to_the_cores() -> None:
    assert 1 <= usable_cores() <= 10**4
    assert usable_workers(10**6) == usable_cores()
    assert usable_workers(0) == 0


@pytest.mark.skipif(not Path("/proc/self/cgroup").is_file(), reason="no control groups on this system")
@pytest.mark.parametrize(("limit", "expected"), [("1000", 700), ("200", 0), ("max", None), ("9223372036854771712", None)])
def test_a_containers_share_counts_and_what_keeps_files_is_free(tmp_path: Path, monkeypatch, limit: str, expected: int | None) -> None:
    for folder, names in (
        (tmp_path, ("memory.max", "memory.current")),
        (tmp_path / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ):
        folder.mkdir(exist_ok=True)
        for name, text in zip((*names, "memory.stat"), (limit, "400", CACHED), strict=True):
            (folder / name).write_text(text)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    found = available_memory_bytes()
    if expected is None:
        assert found > 2**20
    else:
        assert found == expected


@pytest.mark.skipif(not Path("/proc/self/cgroup").is_file(), reason="no control groups on this system")
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("quota", "cores"), [(250_000, 2), (50_000, 1), (None, 64)])
def test_a_containers_share_of_the_cores_counts(tmp_path: Path, monkeypatch, first: bool, quota: int | None, cores: int) -> None:
    if first:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    else:
        (tmp_path / "cpu.max").write_text(f"{'max' if quota is None else quota} 100000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.delenv(THREADS_VARIABLE)
    keep_to_share()
    assert usable_cores() == cores
    assert os.environ.get(THREADS_VARIABLE) == (None if quota is None else str(cores))
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    keep_to_share()
    assert os.environ[THREADS_VARIABLE] == "3"


def test_without_control_groups_it_is_the_machines(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert available_memory_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
