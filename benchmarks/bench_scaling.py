"""How much faster several processes train than one, and what many GPUs would do: ``python -m benchmarks.bench_scaling``.

Measured are md-train's own command under torchrun, with one process and with more, in turn; and among processes that torchrun starts too
(``benchmarks.scaling_process``) the parts of it: a step alone, steps beside each other, the exchange of gradients, all of it together.
From the parts the speed of several processes is also computed and held against the measured one, and ``benchmarks.scaling_model`` computes
what many GPUs would do. Every process has one thread, so that several are compared with one alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from benchmarks.bench_loader import FRAMES_PER_SAMPLE, generate
from benchmarks.bench_train import NUM_LAYERS, last_fault, options_of, train, write_lists
from benchmarks.gpu_targets import STEP
from benchmarks.harness import RESULTS, Timing, circumstances, load, save, timing_of
from benchmarks.loader_row import Row
from benchmarks.row_process import PROJECT, RowProcess, measure
from benchmarks.scaling_counts import ASSUMPTIONS, GB, SCALING, gpu_step, model_rows
from benchmarks.scaling_model import Bucket
from benchmarks.scaling_process import ALONE, BESIDE, EXCHANGE, FORWARD, GRADIENTS, SMALL, TOGETHER, Parts, Task
from benchmarks.table import table

# One per process, whatever torchrun or torch would choose.
THREADS = {"OMP_NUM_THREADS": "1"}
# Of every part in a row, per turn.
PART_STEPS, GPU_PART_STEPS = 2, 20
READING, READING_S = "reading a batch from the frame store, 1 core", 30.0
AFTER, DURING = "exchange after the backward pass", "exchange as gradients come"
Rows = dict[str, dict[str, Any]]
Runs = Mapping[int, Sequence[Mapping[str, float]]]


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=None, type=int, help="Per process. [default: 4, on GPUs 12]")
@click.option("--steps", default=None, type=int, help="Steps of every run; the second half counts. [default: 8, on GPUs 1600]")
@click.option("--rounds", default=5, show_default=True, help="Runs of md-train with each number of processes, and turns of every part.")
@click.option("--no_cuda", is_flag=True, help="One and two processes on the CPU, even if there are GPUs.")
@click.option("--save", "save_result", is_flag=True, help="Write bench_scaling.json (bench_scaling_gpu.json) and scaling_model.json.")
def main(height_px: int, width_px: int, batch_size: int | None, steps: int | None, rounds: int, no_cuda: bool, save_result: bool) -> None:
    """Times md-train with 1, 2, 4, ... processes, each on a GPU of its own, or with two on the CPU, and the parts of what they do."""
    gpus = 0 if no_cuda else torch.cuda.device_count()
    batch_size, steps = batch_size or (12 if gpus else 4), steps or (1600 if gpus else 8)
    task = Task((height_px, width_px), batch_size, GPU_PART_STEPS if gpus else PART_STEPS, rounds, no_cuda=not gpus)
    worlds = worlds_of(gpus)
    with TemporaryDirectory() as name:
        folder = generate(Path(name))
        write_lists(folder, (steps + 1) * batch_size * worlds[-1], batch_size)
        runs = train_in_turns(worlds, task, steps, folder)
        parts = {world: measure_parts(world, task, folder) for world in worlds[1:] or worlds}
        reading = read_store(task, folder)
    setting = {"size_px": [height_px, width_px], "batch_size": batch_size, "num_layers": NUM_LAYERS, "steps": steps // 2, "threads": 1}
    speeds, costs = speed_rows(runs, parts, batch_size), cost_rows(parts) | {READING: reading}
    measured = {"circumstances": circumstances(), "setting": setting, "step_s": median(parts[worlds[-1]].seconds[BESIDE])}
    click.echo(table("bench_scaling", measured | {"rows": speeds}))
    click.echo(table("scaling_parts", measured | {"rows": costs}))
    result = measured | {"rows": speeds | costs}
    if save_result:
        click.echo(f"wrote {save(SCALING if gpus else 'bench_scaling', result)}")
    step_s, source = gpu_step(result if gpus else load(SCALING, RESULTS), load(STEP, RESULTS))
    model = {"setting": {"step_ms": f"{1e3 * step_s:.1f} ({source})", **ASSUMPTIONS}, "rows": model_rows(step_s)}
    click.echo(table("scaling_model", {"circumstances": circumstances()} | model))
    if save_result:
        click.echo(f"wrote {save('scaling_model', model)}")


def worlds_of(gpus: int) -> list[int]:
    """How many processes train together: 1, 2, 4, ... and as many as there are GPUs; without GPUs 1 and 2."""
    return sorted({1, gpus, *(2**power for power in range(gpus.bit_length()))}) if gpus else [1, 2]


def torchrun(world: int) -> list[str]:
    """What starts so many processes of a command on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]


def train_in_turns(worlds: Sequence[int], task: Task, steps: int, folder: Path) -> Runs:
    """What md-train logs with each number of processes: a run of each per round."""
    options = options_of(task.size_px, task.batch_size, steps, no_cuda=task.no_cuda)
    runs: dict[int, list[dict[str, float]]] = {world: [] for world in worlds}
    for number in range(task.rounds):
        for world in worlds:
            launcher = [*torchrun(world), "--no_python"]
            runs[world].append(train(folder, "disk", options, name=f"{world}_{number}", launcher=launcher, variables=THREADS))
    return runs


def measure_parts(world: int, task: Task, folder: Path) -> Parts:
    """The parts among so many processes."""
    answer = folder / f"parts_{world}.json"
    command = [*torchrun(world), "-m", "benchmarks.scaling_process", json.dumps(task._asdict()), str(answer)]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, **THREADS}, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"the parts of {world} processes ended with {done.returncode}: {last_fault(done.stderr)}")
    said = json.loads(answer.read_text(encoding="utf-8"))
    return Parts(said["seconds"], tuple(Bucket(*bucket) for bucket in said["buckets"]))


def read_store(task: Task, folder: Path) -> dict[str, float]:
    """The row of reading frames from the store that md-train has made."""
    height_px, width_px = task.size_px
    places = {"data_path": str(folder), "split": str(folder), "frame_store_dir": str(folder / "stores")}
    config = places | {"height_px": height_px, "width_px": width_px, "batch_size": task.batch_size, "frame_store": "disk"}
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    with RowProcess(Row("gather", [core], "cpu", config)) as process:
        measured, faults = measure({READING: process}, rounds=task.rounds, seconds=READING_S)
    if faults:
        raise click.ClickException(f"{READING}: {faults[READING]}")
    n, *seconds = measured[READING].timing
    batches = measured[READING].samples / task.batch_size
    return cost_row(Timing(n, *(value / batches for value in seconds)), FRAMES_PER_SAMPLE * 3 * height_px * width_px * task.batch_size)


def speed_rows(runs: Runs, parts: Mapping[int, Parts], batch_size: int) -> Rows:
    """md-train with each number of processes, and what follows for it from one process and the parts."""
    rows: Rows = {}
    one_s = median(batch_size / run["samples_per_s"] for run in runs[1])
    for world, logged in runs.items():
        name, samples = f"md-train, {processes(world)}", world * batch_size
        timing = timing_of([samples / run["samples_per_s"] for run in logged])
        rows[name] = _speed(samples, timing.median_s, one_s / batch_size) | {
            "n": timing.n,
            "slowest_samples_per_s": samples / timing.slowest_s,
            "fastest_samples_per_s": samples / timing.fastest_s,
            "wait_share": median(run["wait_share"] for run in logged),
        }
        if world == 1:
            continue
        of = parts[world]
        for way, waits_s in {AFTER: of.median_s(EXCHANGE), DURING: of.exposed_s()}.items():
            computed_s = one_s * of.contention() + waits_s
            row = _speed(samples, computed_s, one_s / batch_size)
            rows[f"{name}, computed: {way}"] = row | {"over_measured": timing.median_s / computed_s}
    return rows


def _speed(samples: int, step_s: float, one_sample_s: float) -> dict[str, float]:
    return {"samples_per_s": samples / step_s, "ms": 1e3 * step_s, "times_one": samples * one_sample_s / step_s}


def cost_rows(parts: Mapping[int, Parts]) -> Rows:
    """The parts among each number of processes, per step."""
    rows: Rows = {}
    for world, of in parts.items():
        words = {
            ALONE: "step of 1 process, the others wait" if world > 1 else "step of 1 process",
            BESIDE: f"steps of {processes(world)}, no exchange",
            FORWARD: "forward pass of these",
            GRADIENTS: "forward and backward pass of these",
            TOGETHER: f"steps of {processes(world)}, with exchange",
            EXCHANGE: f"exchange of gradients alone, {processes(world)}",
            SMALL: f"exchange of BatchNorm's statistics of a layer, {processes(world)}",
        }
        sizes = {EXCHANGE: of.gradient_bytes()}
        rows |= {words[part]: cost_row(timing_of(seconds), sizes.get(part)) for part, seconds in of.seconds.items()}
        if world > 1:
            shares = of.hidden_shares()
            hidden = {"hidden_share": median(shares), "least_hidden_share": min(shares), "most_hidden_share": max(shares)}
            rows[words[TOGETHER]] |= hidden
    return rows


def cost_row(timing: Timing, size: int | None = None) -> dict[str, float]:
    """A part's milliseconds, and of ``size`` bytes that it moves the rate."""
    moved = {} if size is None else {"mb": size / 1e6, "gb_per_s": size / GB / timing.median_s}
    return {"n": timing.n, "ms": 1e3 * timing.median_s, "fastest_ms": 1e3 * timing.fastest_s, "slowest_ms": 1e3 * timing.slowest_s} | moved


def processes(world: int) -> str:
    """So many processes, in words."""
    return f"{world} process{'es' if world > 1 else ''}"


if __name__ == "__main__":
    main()
