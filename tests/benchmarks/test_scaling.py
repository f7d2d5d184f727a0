"""The benchmark of several processes: the model by numbers computed by hand, its counts held against torch's own, the whole run small."""

import json

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from benchmarks import bench_scaling, harness
from benchmarks.bench_memory import TRAININGS
from benchmarks.bench_scaling import AFTER, DURING, cost_rows, main, speed_rows, worlds_of
from benchmarks.bench_train import last_fault
from benchmarks.scaling_counts import ASSUMPTIONS, MAIN, arrivals, buckets_of, count, gpu_step, model_rows
from benchmarks.scaling_model import (
    BETWEEN,
    COMPUTING,
    INSIDE,
    NORMS,
    STORE,
    Bucket,
    Cluster,
    Link,
    Training,
    all_reduce_s,
    exposed_s,
    levels_s,
    predict,
    ring_s,
    trees_s,
)
from benchmarks.scaling_process import ALONE, BESIDE, EXCHANGE, FORWARD, GRADIENTS, SMALL, TOGETHER, Parts
from benchmarks.step_inputs import default_config, random_batch
from benchmarks.table import TABLES, table
from engine.training.build import build_engine

LINK = Link(100.0, 0.5)
# Hops cost nothing inside, as rates are easier to compute by hand alone.
CLUSTER = Cluster(8, Link(1000.0, 0.0), Link(100.0, 0.0), 1e9)
# Two buckets, the second ready at the end of the backward pass; a step of ten seconds, six of them backward.
TRAINING = Training(12, 10.0, 6.0, (Bucket(400, 0.5), Bucket(400, 1.0)), 0, 5)
CPU = torch.device("cpu")


def test_a_ring_sends_an_nth_of_the_bytes_per_hop():
    assert ring_s(800, 8, LINK) == 14 * (1 + 0.5)
    assert ring_s(800, 2, LINK) == 2 * (4 + 0.5)
    assert ring_s(800, 1, LINK) == 0


def test_trees_send_all_bytes_up_and_down_with_few_hops():
    assert trees_s(800, 8, LINK) == 2 * (8 + 3 * 0.5)
    assert trees_s(800, 9, LINK) == 2 * (8 + 4 * 0.5)
    assert trees_s(800, 1, LINK) == 0


def test_the_faster_way_is_taken():
    assert all_reduce_s(80_000, 4, LINK) == ring_s(80_000, 4, LINK) < trees_s(80_000, 4, LINK)
    assert all_reduce_s(8, 64, LINK) == trees_s(8, 64, LINK) < ring_s(8, 64, LINK)


def test_machines_exchange_inside_and_between():
    assert levels_s(800, 8, CLUSTER) == (pytest.approx(1.4), 0)
    assert levels_s(800, 16, CLUSTER) == (pytest.approx(1.4), pytest.approx(2 * 800 / 2 / 100))
    assert levels_s(800, 4, CLUSTER) == (pytest.approx(6 * 800 / 4 / 1000), 0)
    assert levels_s(800, 1, CLUSTER) == (0, 0)


@pytest.mark.parametrize(
    ("ready", "costs_s", "waits_s"),
    [
        ((0.5, 1.0), (2.0, 3.0), 3.0),  # the first is done at 7, the second begins at 10
        ((0.5, 1.0), (8.0, 3.0), 6.0),  # the first is done at 13
        ((1.0, 1.0), (2.0, 3.0), 5.0),  # nothing is hidden
        ((0.0, 0.1), (2.0, 3.0), 0.0),
    ],
)
def test_what_comes_before_the_last_gradients_is_hidden(ready, costs_s, waits_s):
    assert exposed_s(10.0, [Bucket(1, share) for share in ready], costs_s) == waits_s


def test_sixteen_gpus_wait_for_the_network():
    found = predict(TRAINING, 16, CLUSTER)
    # Of each bucket 0.7 s inside and 4 s between; the first is hidden to 6 - 3 of its 4.7 s.
    assert found.exchange_s == pytest.approx(9.4)
    assert found.exposed_s == pytest.approx(1.7 + 4.7)
    assert found.step_s == pytest.approx(16.4)
    assert found.samples_per_s == pytest.approx(16 * 12 / 16.4)
    assert found.efficiency == pytest.approx(10 / 16.4)
    assert found.store_bytes_per_s == pytest.approx(8 * 12 * 5 / 16.4)
    assert found.bottleneck == BETWEEN


def test_the_bottleneck_is_what_a_step_waits_for():
    assert predict(TRAINING, 1, CLUSTER).efficiency == 1
    assert predict(TRAINING, 1, CLUSTER).bottleneck == COMPUTING
    assert predict(TRAINING, 8, CLUSTER).bottleneck == INSIDE  # 0.7 of 10 s
    assert predict(TRAINING._replace(step_s=20.0), 8, CLUSTER).bottleneck == COMPUTING
    # 480 bytes per step at 24 per second.
    slow = predict(TRAINING, 16, CLUSTER._replace(store_bytes_per_s=24.0))
    assert (slow.step_s, slow.bottleneck, slow.store_bytes_per_s) == (20.0, STORE, 24.0)
    norms = predict(TRAINING._replace(norm_exchanges=120), 8, CLUSTER._replace(inside=Link(1e12, 0.01)))
    assert norms.bottleneck == NORMS
    assert norms.step_s == pytest.approx(10 + 120 * 6 * 0.01 + 6 * 0.01, rel=1e-6)  # trees of three levels


RATES, LATENCIES = st.floats(1e8, 1e12), st.floats(0.0, 1e-4)


@given(RATES, LATENCIES, RATES, LATENCIES, RATES, st.floats(1.0, 10.0), st.sampled_from([2, 8, 9, 64, 512]))
def test_more_of_anything_is_never_slower(inside, inside_s, between, between_s, store, factor, gpus):
    cluster = Cluster(8, Link(inside, inside_s), Link(between, between_s), store)
    training = Training(12, 7e-3, 4e-3, (Bucket(25_000_000, 0.4), Bucket(25_000_000, 1.0)), 120, 1_105_920)
    step_s = predict(training, gpus, cluster).step_s
    better = [
        cluster._replace(inside=Link(inside * factor, inside_s)),
        cluster._replace(inside=Link(inside, inside_s / factor)),
        cluster._replace(between=Link(between * factor, between_s)),
        cluster._replace(between=Link(between, between_s / factor)),
        cluster._replace(store_bytes_per_s=store * factor),
    ]
    assert all(predict(training, gpus, each).step_s <= step_s * (1 + 1e-12) for each in better)
    assert predict(training._replace(norm_exchanges=0), gpus, cluster).step_s <= step_s
    assert training.step_s <= step_s


def test_gradients_and_norms_are_counted():
    mono = count(18, TRAININGS["M"])
    # 26.8 million weights in fp32; 20 BatchNorms in each encoder, and the pose encoder runs once per neighbour.
    assert sum(bucket.size for bucket in mono.buckets) == 107_318_912
    assert mono.norm_calls == 60
    assert mono.sample_bytes == 3 * 192 * 640 * 3
    assert 0.5 < mono.backward_moved / mono.moved < 0.6
    stereo = count(18, TRAININGS["S"])
    assert sum(bucket.size for bucket in stereo.buckets) == 57_316_944
    assert stereo.norm_calls == 20
    assert stereo.moved < mono.moved


@pytest.fixture
def alone_in_a_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_buckets_are_those_of_torch(alone_in_a_group):
    engine = build_engine(default_config(height_px=64, width_px=96, batch_size=2, no_cuda=True), CPU, metric_factor=1.0)
    batch = random_batch(2, (64, 96))
    counted = buckets_of(arrivals(engine.networks, engine.step(batch).loss.backward, lambda: 1.0), 1.0)
    engine.optimizer.zero_grad(set_to_none=True)
    parallel = DistributedDataParallel(engine.step, gradient_as_bucket_view=True, static_graph=True)
    for _ in range(3):
        parallel(batch).loss.backward()
    parallel.logger.set_runtime_stats_and_log()
    sizes = parallel._get_ddp_logging_data()["rebuilt_bucket_sizes"]
    assert [bucket.size for bucket in counted] == [int(size) for size in sizes.split(",")]


def test_the_models_rows_say_what_is_exchanged_and_where_it_ends():
    rows = model_rows(7e-3)
    assert len(rows) == 18
    assert set(rows[f"{MAIN}: 8 GPUs"]) == {column.key for column in TABLES["scaling_model"][1]}
    assert rows[f"{MAIN}: 512 GPUs"]["efficiency"] < rows[f"{MAIN}: 64 GPUs"]["efficiency"] < rows[f"{MAIN}: 8 GPUs"]["efficiency"]
    assert rows[f"{MAIN}, frames from NVMe: 8 GPUs"]["bottleneck"] == STORE
    assert rows[f"{MAIN}, `--sync_bn`: 512 GPUs"]["bottleneck"] == NORMS
    assert ASSUMPTIONS["NVLink"] == "450 GB/s and 2 us per hop"
    assert ASSUMPTIONS["network per machine"] == "400 Gb/s and 5 us per hop"
    # Eight GPUs' 12 samples of three frames in 7 GB/s.
    assert rows[f"{MAIN}, frames from NVMe: 8 GPUs"]["ms"] == pytest.approx(8 * 12 * 3 * 368_640 / 7e6)


def test_a_gpus_step_is_taken_from_results_and_else_assumed():
    where = {"circumstances": {"gpu": "NVIDIA H200"}, "setting": {"size_px": [192, 640], "batch_size": 12, "num_layers": 18}}
    alone = where | {"rows": {"plain fp32": {"ms": 30.0}, "ours as md-train runs it, bfloat16": {"ms": 6.5}}}
    scaling = where | {"rows": {}, "step_s": 0.008}
    assert gpu_step(scaling, alone) == (0.008, "measured on NVIDIA H200")
    assert gpu_step(None, alone) == (0.0065, "measured on NVIDIA H200, in a CUDA graph")
    small = scaling | {"setting": where["setting"] | {"batch_size": 2}}
    assert gpu_step(small, None) == (0.007, "not measured: the goal for an H200")


def parts(**changes: float) -> Parts:
    seconds = {ALONE: 1.0, BESIDE: 1.5, FORWARD: 0.5, GRADIENTS: 1.3, TOGETHER: 1.8, EXCHANGE: 0.4, SMALL: 0.001} | changes
    return Parts({name: [value, value / 2, value * 2] for name, value in seconds.items()}, (Bucket(300, 0.5), Bucket(100, 1.0)))


def test_several_processes_are_computed_from_the_parts():
    logged = {"wait_share": 0.01}
    runs = {world: [logged | {"samples_per_s": rate} for rate in rates] for world, rates in ((1, (4.0, 3.0, 5.0)), (2, (5.0, 4.0, 4.5)))}
    rows = speed_rows(runs, {2: parts()}, batch_size=4)
    one, two = rows["md-train, 1 process"], rows["md-train, 2 processes"]
    assert (one["samples_per_s"], one["ms"], one["slowest_samples_per_s"], one["fastest_samples_per_s"]) == (4, 1000, 3, 5)
    assert (two["samples_per_s"], two["times_one"]) == (4.5, 4.5 / 4)
    # A step of 1 s takes 1.5 s beside another, and waits for 0.4 s of exchange, or for the last bucket's 0.1 s alone.
    after, during = (rows[f"md-train, 2 processes, computed: {way}"] for way in (AFTER, DURING))
    assert after["ms"] == pytest.approx(1900)
    assert after["samples_per_s"] == pytest.approx(8 / 1.9)
    assert after["over_measured"] == pytest.approx(8 / 1.9 / 4.5)
    assert during["ms"] == pytest.approx(1600)


def test_the_parts_are_shown_with_what_was_hidden():
    rows = cost_rows({2: parts()})
    together = rows["steps of 2 processes, with exchange"]
    assert (together["ms"], together["fastest_ms"], together["slowest_ms"]) == (1800, 900, 3600)
    # Of 0.4 s, 0.3 were waited for in the first turn, 0.15 and 0.6 in the others.
    assert [together[key] for key in ("hidden_share", "least_hidden_share", "most_hidden_share")] == pytest.approx([0.25, -0.5, 0.625])
    assert rows["exchange of gradients alone, 2 processes"]["gb_per_s"] == pytest.approx(400 / 0.4 / 1e9)
    assert cost_rows({1: Parts({ALONE: [1.0], BESIDE: [2.0]}, (Bucket(4, 1.0),))}).keys() == {
        "step of 1 process", "steps of 1 process, no exchange"
    }  # fmt: skip


def test_worlds_are_powers_of_two_and_all_gpus():
    assert worlds_of(0) == [1, 2]
    assert worlds_of(1) == [1]
    assert worlds_of(6) == [1, 2, 4, 6]
    assert worlds_of(8) == [1, 2, 4, 8]


def test_a_fault_under_torchrun_is_named_not_its_summary():
    summary = "\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n=====\nRoot Cause (first observed failure):\n====="
    assert last_fault("W1130 torch: warning\nError: no such folder; make it" + summary) == "Error: no such folder; make it"
    assert last_fault("[rank1]: RuntimeError: out of memory" + summary) == "[rank1]: RuntimeError: out of memory"
    assert last_fault("killed") == "killed"


@pytest.mark.slow
def test_the_whole_benchmark_measures_two_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_scaling, "RESULTS", tmp_path)
    small = ["--no_cuda", "--height", "64", "--width", "96", "--batch_size", "2", "--steps", "2", "--rounds", "1", "--save"]
    done = CliRunner().invoke(main, small, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result, model = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("bench_scaling", "scaling_model"))
    rows = result["rows"]
    assert [name for name in rows if name.startswith("md-train")] == [
        "md-train, 1 process",
        "md-train, 2 processes",
        f"md-train, 2 processes, computed: {AFTER}",
        f"md-train, 2 processes, computed: {DURING}",
    ]
    assert all(rows[f"md-train, {words}"]["samples_per_s"] > 0 for words in ("1 process", "2 processes"))
    exchange = rows["exchange of gradients alone, 2 processes"]
    assert exchange["mb"] == pytest.approx(107.318912)
    assert exchange["ms"] > 0
    assert rows[bench_scaling.READING]["mb"] == pytest.approx(2 * 3 * 64 * 96 * 3 / 1e6)
    assert "not measured" in model["setting"]["step_ms"]
    assert all(name in done.output for name in (*rows, *model["rows"]))
    assert table("scaling_model", model) in done.output
