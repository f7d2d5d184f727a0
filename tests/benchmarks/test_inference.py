"""The benchmark of inference: every row gives the plain network's answer before it is timed; one that cannot run here is named."""

import json
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import bench_inference, harness, inference_rows
from benchmarks.bench_inference import COLD, HEADINGS, Report, Setting, figures, main, measure, measure_starts
from benchmarks.harness import Timing
from benchmarks.inference_process import PROFILE, check_way, serve
from benchmarks.inference_rows import PLAIN, Models, Way, cpu_ways, depth_network, distance, gpu_ways, missing_ways, random_inputs
from splits.errors import InputError

SIZE_PX = (64, 96)
RANDOM = np.random.default_rng(0).random((1, 1, *SIZE_PX), np.float32)


def fails(*_args, **_kwargs):
    raise RuntimeError("no compiler here\nand much more")


@pytest.mark.slow
def test_rows_and_starts_are_timed_and_kept_where_the_compiler_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    # Without a C++ compiler, in the rows' processes too.
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    done = CliRunner().invoke(main, ["--sizes", "96x64", "--batch_sizes", "2", "--rounds", "2", "--starts", "1", "--save"])
    assert done.exit_code == 1, done.output
    result = json.loads((tmp_path / "bench_inference.json").read_text())
    assert result["setting"]["onnxruntime"]
    prefix = "96x64, batch 2: "
    rows = {name.removeprefix(prefix): row for name, row in result["rows"].items() if name.startswith(prefix)}
    assert next(iter(rows)) == PLAIN
    assert {"onnxruntime, fp32", "onnxruntime, fp16", "onnxruntime, int8"} < set(rows)
    assert "onnxruntime, fp32, from camera frames (DepthSession)" in rows
    for row in rows.values():
        assert row["n"] == 2
        assert row["fastest_ms"] <= row["ms"] <= row["slowest_ms"]
        assert row["samples_per_s"] == pytest.approx(1e3 * 2 / row["ms"])
        assert row["times_plain"] == pytest.approx(rows[PLAIN]["ms"] / row["ms"])
    (compiled,) = [line for line in done.output.split("not timed:")[1].splitlines() if line.startswith(prefix)]
    assert ", compiled: " in compiled
    assert result["rows"][COLD + "ONNX file"]["times_plain"] > 1
    assert result["rows"][COLD + "checkpoint"]["n"] == 1


def measured(folder: Path, ways: Mapping[str, Way], *, rounds: int, gpu: bool = False) -> Report:
    """The report of ways that are served by threads instead of processes."""

    def start(name: str) -> Connection:
        ours, theirs = Pipe()
        kind = {"is_plain": name == PLAIN}
        Thread(target=serve, args=(ways[name], folder / "plain.npy", theirs), kwargs=kind, daemon=True).start()
        return ours

    report = Report()
    measure(report, Setting("here: ", SIZE_PX, 1, gpu, list(ways), start), rounds=rounds)
    return report


def test_what_fails_disagrees_or_is_missing_is_named_and_the_others_are_timed(tmp_path):
    def absent():
        raise InputError("provider=cuda is not available")

    ways = {
        PLAIN: Way(lambda: lambda: RANDOM, 0, np.asarray),
        "close": Way(lambda: lambda: RANDOM + 1e-4, 1e-3, np.asarray),
        "off": Way(lambda: lambda: RANDOM + 1e-2, 1e-3, np.asarray),
        "nan": Way(lambda: lambda: RANDOM * np.nan, 1e-3, np.asarray),
        "small": Way(lambda: lambda: RANDOM[..., :32], 1e-3, np.asarray),
        "broken": Way(fails, 1e-3, np.asarray),
        "absent": Way(absent, 1e-3, np.asarray),
    }
    report = measured(tmp_path, ways, rounds=3)
    assert list(report.rows) == [f"here: {PLAIN}", "here: close", "here: absent"]
    assert report.rows["here: close"]["n"] == 3
    assert report.rows["here: absent"] == {}
    assert report.missing == {"here: absent": "provider=cuda is not available"}
    assert report.faults["here: off"].startswith("its answer is off by 3.")
    assert "nan" in report.faults["here: nan"]
    assert "instead of" in report.faults["here: small"]
    assert report.faults["here: broken"] == "no compiler here"


def test_answers_spread_enough_for_a_difference_to_show():
    network, inputs = depth_network(SIZE_PX), random_inputs(2, SIZE_PX)
    with torch.inference_mode():
        disp = network(torch.from_numpy(inputs.images)).numpy()
    assert np.std(disp) > 0.05
    assert inputs.frames.dtype == np.uint8
    assert inputs.images.shape == (2, 3, *SIZE_PX)
    assert distance(disp[::-1], disp) > 0.5


def test_rows_on_a_gpu_are_missing_without_one(tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    network, inputs = depth_network(SIZE_PX), random_inputs(1, SIZE_PX)
    models = Models(network, inputs, tmp_path)
    monkeypatch.setattr(inference_rows, "gpu_device", lambda: torch.device("cpu"))
    on_gpu = {name: way for name, way in gpu_ways(network, models, inputs).items() if name.startswith("onnxruntime")}
    ways = {PLAIN: cpu_ways(network, models, inputs)[PLAIN]} | on_gpu
    report = measured(tmp_path, ways, rounds=1)
    assert set(report.missing) == {f"here: {name}" for name in on_gpu}
    assert any("tensorrt" in name for name in on_gpu)
    assert all("is not available" in why for why in report.missing.values())
    assert not report.faults
    # Known before a process is started for each, and before anything is exported for them.
    assert missing_ways([PLAIN, *on_gpu]) == {name: report.missing[f"here: {name}"] for name in on_gpu}
    with pytest.raises(InputError, match="is not available"):
        models.make_all(gpu=True)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_missing_way_gets_no_process_and_one_that_dies_no_figures(tmp_path):
    started = []

    def start(name: str) -> Connection:
        ours, theirs = Pipe()
        started.append(name)

        def serve_once() -> None:
            with theirs:
                theirs.send(None)
                if name == "dies":
                    return
                while True:
                    try:
                        asked = theirs.recv()
                    except EOFError:
                        return
                    theirs.send([("kernel", 1.0, 2.0, 1.0)] if asked == PROFILE else 1e-3 * asked)

        Thread(target=serve_once, daemon=True).start()
        return ours

    report = Report()
    setting = Setting("here: ", SIZE_PX, 1, True, [PLAIN, "dies", "absent"], start, {"absent": "no such provider"})
    measure(report, setting, rounds=1)
    assert started == [PLAIN, "dies"]
    assert report.missing == {"here: absent": "no such provider"}
    assert report.faults == {"here: dies": "its process ended while it was timed"}
    assert list(report.rows) == [f"here: {PLAIN}", "here: absent"]
    assert report.profiles == {f"here: {PLAIN}": [("kernel", 1.0, 2.0, 1.0)]}


def test_the_plain_answer_is_exact_whatever_the_plain_way_is_timed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    used = []

    def build():
        return lambda: used.append(torch.backends.cudnn.allow_tf32) or RANDOM

    for is_plain in (True, False):
        run = check_way(Way(build, np.inf, np.asarray), tmp_path / "plain.npy", is_plain=is_plain)
        assert callable(run)
    assert used == [False, True]
    assert torch.backends.cudnn.allow_tf32


def test_a_pass_of_ten_and_its_floor(tmp_path):
    runs = []
    report = measured(tmp_path, {PLAIN: Way(lambda: lambda: runs.append(1), np.inf, lambda _: RANDOM)}, rounds=2, gpu=True)
    assert len(runs) == 1 + 10 * 4  # made ready, then a round that is not counted, two that are, and a profile
    assert report.rows[f"here: {PLAIN}"]["n"] == 2
    row = figures(Timing(2, 72e-6, 60e-6, 90e-6), Timing(2, 144e-6, 1.0, 2.0), 1, 36)
    assert row["floor_share"] == pytest.approx(0.5)
    assert row["times_plain"] == pytest.approx(2)
    assert set(row) - {"n", "slowest_samples_per_s", "fastest_samples_per_s"} == set(HEADINGS)


def test_a_command_that_fails_is_told_by_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_inference, "MD_PREDICT", "raise SystemExit('cannot predict')")
    network, inputs, report = depth_network(SIZE_PX), random_inputs(1, SIZE_PX), Report()
    models = Models(network, inputs, tmp_path)
    (tmp_path / "fp32.onnx").touch()
    measure_starts(report, network, models, tmp_path, 1)
    assert report.faults == {COLD + "both": "cannot predict"}
    assert not report.rows


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_every_row_gives_the_plain_answer(tmp_path):
    network, inputs = depth_network(SIZE_PX), random_inputs(2, SIZE_PX)
    report = measured(tmp_path, gpu_ways(network, Models(network, inputs, tmp_path), inputs), rounds=2, gpu=True)
    assert not report.faults
    # What a provider lacks may be missing; torch's rows may not.
    timed_rows = [name for name, row in report.rows.items() if row]
    assert sum(name.startswith("here: torch") for name in timed_rows) == 3
    assert "here: onnxruntime, cuda, fp32" in report.rows
