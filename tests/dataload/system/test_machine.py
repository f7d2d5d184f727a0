"""How much of the machine is ours: a container's share, not the whole."""

from pathlib import Path

import psutil
import pytest

from dataload.system import machine
from dataload.system.machine import available_memory_bytes, usable_cores, usable_workers

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


def test_without_control_groups_it_is_the_machines(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert available_memory_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
