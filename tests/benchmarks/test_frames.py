"""Which frames the benchmarks of data work on, and that evaluation is measured without KITTI's, saying so."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import bench_eval, harness
from benchmarks.frames import Frames, demo_frames, kitti_frames
from benchmarks.table import table
from splits import read_lines

OTHERS = Frames(Path("others"), "split", "others")


def test_the_reference_frames_are_taken_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("MD_SHARED", str(tmp_path))
    assert kitti_frames(lambda: OTHERS) == OTHERS
    (tmp_path / "kitti").mkdir()
    found = kitti_frames(lambda: OTHERS)
    assert found == (tmp_path / "kitti" / "raw_jpg", str(tmp_path / "kitti" / "splits" / "kitti_mini"), "KITTI")


def test_every_test_frame_of_the_demo_has_a_scan():
    frames = demo_frames()
    lines = [line.split() for line in read_lines(frames.split, "test")]
    scans = [frames.data_path / folder / "velodyne_points" / "data" / f"{int(index):010d}.bin" for folder, index, _ in lines]
    assert len(scans) > 10
    assert all(scan.is_file() for scan in scans)


@pytest.mark.slow
def test_evaluation_is_measured_without_kittis_scans_and_its_table_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MD_SHARED", str(tmp_path / "none"))
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    options = ["--images", "4", "--rounds", "1", "--height", "64", "--width", "96", "--save"]
    done = CliRunner().invoke(bench_eval.main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "bench_eval.json").read_text())
    assert result["rows"]["ground truth, md-data gt"]["n"] == 2
    assert "*scans the demo world's, 640x192, images 4," in table("bench_eval", result)
