"""The loader's benchmark: its rows are processes bound to their cores that deliver the same batches; one that fails is named."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import bench_loader
from benchmarks.bench_loader import figures, rows_that_run
from benchmarks.loader_row import LEAST_S, PILLOW_SIMD, Row
from benchmarks.row_process import PROJECT, RowFault, RowProcess, measure, memory_mib

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
LINES, BATCH_SIZE = 8, 4


@pytest.fixture(scope="module")
def config(kitti_tree, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Options of a loader over a small tree, as rows carry them."""
    root = kitti_tree()
    stores = tmp_path_factory.mktemp("stores")
    sizes = {"height_px": 64, "width_px": 96, "batch_size": BATCH_SIZE}
    return {"data_path": str(root), "split": str(root / "split"), "frame_store_dir": str(stores), **sizes}


def row(config: dict[str, object], kind: str, *, store: str = "none", **fields: object) -> Row:
    return Row(kind, sorted(os.sched_getaffinity(0)), "cpu", config | {"loader": "torch", "frame_store": store}, **fields)


def test_all_rows_deliver_the_same_samples_side_by_side(config):
    with RowProcess(row(config, "build", store="disk")) as process:
        process.ready()
        assert process.epoch()["samples"] == 12  # six frames of each camera
    rows = {
        "plain": row(config, "plain"),
        "cold": row(config, "loader")._replace(cores=[min(os.sched_getaffinity(0))]),
        "store": row(config, "loader", store="disk"),
        "gather": row(config, "gather", store="disk"),
        "broken": row(config, "loader", resizer=PILLOW_SIMD),
    }
    processes = {name: RowProcess(row) for name, row in rows.items()}
    try:
        measured, faults = measure(processes, rounds=2, seconds=60)
        affinities = {name: os.sched_getaffinity(processes[name]._process.pid) for name in measured}
    finally:
        for process in processes.values():
            process.__exit__(None, None, None)
    assert {name: value.samples for name, value in measured.items()} == dict.fromkeys(["plain", "cold", "store", "gather"], LINES)
    assert all(value.timing.n == 2 and 10 < value.peak_mib < 5000 for value in measured.values())
    assert measured["gather"].timing.median_s < measured["plain"].timing.median_s
    assert affinities == {name: set(rows[name].cores) for name in measured}
    assert "not pillow-simd" in faults["broken"]
    assert list(faults) == ["broken"]
    assert figures(measured["plain"], measured["plain"])["times_plain"] == 1


def test_a_short_epoch_is_gone_through_until_the_clock_can_tell(config):
    with RowProcess(row(config, "gather", store="disk")) as process:
        process.ready()
        answer = process.epoch()
    assert answer["seconds"] >= LEAST_S
    assert answer["epochs"] > 1
    assert answer["samples"] == answer["epochs"] * LINES


def test_a_process_that_ends_is_a_fault_with_its_last_line(config):
    broken = row(config | {"split": "no such split"}, "loader")
    with RowProcess(broken) as process, pytest.raises(RowFault, match="neither a folder nor a known name"):
        process.ready()


def test_rows_that_cannot_run_here_are_named_with_the_reason(config, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_loader, "has_dali", lambda: False)
    rows, left_out = rows_that_run(config, gpu=False, simd=None)
    assert not any("DALI" in name for name in rows)
    assert {why for name, why in left_out.items() if "DALI" in name} == {"NVIDIA DALI is not installed"}
    assert {why for name, why in left_out.items() if "simd" in name} == {"no folder of pillow-simd is given (--simd)"}
    rows, left_out = rows_that_run(config, gpu=True, simd=None)
    assert {name.rpartition(", ")[0] for name in rows} == {
        "making the frame store, PyTorch",
        "plain",
        "from files, PyTorch",
        "frame store on disk",
        "frame store on the GPU",
    }
    assert all(r.device == "cuda" and r.repeats * LINES >= bench_loader.LEAST_GPU_BATCHES * BATCH_SIZE for r in rows.values())
    (tmp_path / "PIL").mkdir()
    monkeypatch.setattr(bench_loader, "has_dali", lambda: True)
    assert rows_that_run(config, gpu=False, simd=tmp_path)[1] == {}


def test_memory_counts_a_process_and_its_children():
    code = (
        "import subprocess, sys; held = bytearray(64 << 20); held[::4096] = bytes(len(held[::4096])); print(flush=True); sys.stdin.read()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held_mib = memory_mib(process.pid)
        process.communicate()
    assert 64 < held_mib < 200
    assert memory_mib(process.pid) == 0


def test_generated_frames_are_what_their_lines_need(tmp_path, monkeypatch):
    from dataload.datasets.kitti import KittiRaw
    from dataload.datasets.presence import require_files
    from dataload.frames.frame_ref import parse_split
    from splits import read_lines

    monkeypatch.setattr(bench_loader, "GENERATED_FRAMES", 4)
    root = bench_loader.generate(tmp_path)
    refs = parse_split(read_lines(str(root), "train"), source="generated")
    require_files(KittiRaw(root, ".jpg"), refs, frame_ids=(0, -1, 1), use_stereo=False)
    assert len(refs) == 2


@NO_CUDA
@pytest.mark.parametrize("benchmark", ["bench_loader", "bench_step", "bench_train"])
def test_without_a_gpu_its_rows_end_with_one_line(benchmark):
    done = CliRunner().invoke(import_module(f"benchmarks.{benchmark}").main, ["--gpu"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: no CUDA device")
    assert done.output.count("\n") == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["bench", "gpu-proof", "test-gpu"])
def test_with_an_interpreter_given_nothing_is_installed(target):
    given = subprocess.run(["make", "-n", target, f"RUN={sys.executable}"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "pip" not in given.stdout
    assert sys.executable in given.stdout
    assert Path(PROJECT / ".venv/bin/python").as_posix() not in given.stdout.replace(sys.executable, "")
