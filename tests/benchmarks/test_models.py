"""The table of released models: what is measured of a kind of model, and what a row takes from where."""

import pytest

from benchmarks.bench_inference import Report
from benchmarks.bench_models import Kind, measure_kind, row_of, title_of
from benchmarks.inference_rows import depth_network
from benchmarks.table import TABLES, table
from engine.released import RELEASED


def test_a_row_shows_the_published_score_or_a_dash():
    figures = {"parameters_m": 14.8, "gflops": 16.0, "torch_ms": 70.0, "onnx_ms": 40.0}
    rows = {name: row_of(RELEASED[name], figures) for name in ("mono_640x192", "mono_resnet50_640x192")}
    where = {"cpu": "c", "gpu": None, "cores": 2, "versions": {}, "commit": "abc", "command": "x"}
    shown = table("bench_models", {"circumstances": where, "rows": rows})
    assert "| mono_640x192 | ResNet-18 | 640x192 | 14.8 | 16.0 | 70 | 40 | 0.115 |" in shown
    assert "| mono_resnet50_640x192 | ResNet-50 | 640x192 | 14.8 | 16.0 | 70 | 40 | – |" in shown
    assert set(rows["mono_640x192"]) == {column.key for column in TABLES["bench_models"][1]}


@pytest.mark.slow
def test_size_and_arithmetic_grow_with_the_encoder_and_times_are_those_of_agreeing_ways(tmp_path):
    report, kinds = Report(), [Kind(18, (64, 96)), Kind(50, (64, 96)), Kind(18, (128, 96))]
    small, deep, tall = (measure_kind(report, kind, tmp_path / title_of(kind), rounds=1) for kind in kinds)
    assert report.faults == report.missing == {}
    assert small["parameters_m"] == tall["parameters_m"] < deep["parameters_m"]
    assert small["parameters_m"] == pytest.approx(sum(p.numel() for p in depth_network((64, 96)).parameters()) / 1e6)
    assert tall["gflops"] == pytest.approx(2 * small["gflops"], rel=0.05)
    assert deep["gflops"] > small["gflops"]
    assert all(row[key] > 0 for row in (small, deep, tall) for key in ("torch_ms", "onnx_ms"))
