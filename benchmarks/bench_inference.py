"""Predicting depth by torch and by onnxruntime, side by side: ``python -m benchmarks.bench_inference``.

One network of random weights, the same images for every row, and on a CPU as many threads as there are cores for torch and onnxruntime
alike. Every row is a process of its own, and they take turns; its answer is compared with the plain one's before it is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import click
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import Timing, fp32_convolutions, gpu_device, gpu_model, rates, save, time_side_by_side, timing_of
from benchmarks.inference_process import PROFILE, Fault, Task, start
from benchmarks.inference_rows import (
    CALIBRATION_IMAGES,
    NUM_LAYERS,
    PLAIN,
    Models,
    cpu_ways,
    depth_network,
    distance,
    gpu_ways,
    missing_ways,
    random_inputs,
)
from benchmarks.profiles import Kernel
from benchmarks.row_process import PROJECT
from dataload.system.machine import usable_cores
from engine.inference.depth_network import DepthNetwork
from engine.weights import InputSize, save_weights
from splits.errors import InputError

# Microseconds that a pass of ResNet-18 takes on an H200 at least, computed from its FLOPs and from the bytes that are left when all that
# is elementwise is fused, in bf16; by (height, width) and batch size.
FLOORS_US = {((192, 640), 1): 36, ((192, 640), 16): 539, ((320, 1024), 1): 90, ((320, 1024), 16): 1430}
# Passes over more pixels are timed in fewer rounds, so that all is done within minutes.
PIXELS_OF_A_ROUND = 192 * 640
LEAST_ROUNDS = 3
# onnxruntime's threads spin for more work before they sleep; the next row must not share the cores with them.
REST_S = 0.05
# Passes, each waited for, that are timed together, as a stream of frames is predicted: on a GPU one alone is too short, and on a CPU the
# first one finds another row's data in the caches.
GPU_PASSES_A_RUN, CPU_PASSES_A_RUN = 10, 5
MD_PREDICT = "from export.commands.md_predict import md_predict; md_predict()"
COLD = "md-predict of one image, cold: "
# Mean difference of inverse depth, as a share of its spread.
COLD_AGREEMENT = 1e-2
HEADINGS = {
    "ms": "ms",
    "fastest_ms": "fastest",
    "slowest_ms": "slowest",
    "samples_per_s": "images/s",
    "times_plain": "x plain",
    "floor_share": "of floor",
}


@dataclass
class Report:
    """Figures by row, and why rows have none: ``missing`` what is not installed here, ``faults`` what is wrong.

    ``profiles`` holds the kernels of the fastest row of each setting on a GPU.
    """

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, list[Kernel]] = field(default_factory=dict)


class Setting(NamedTuple):
    """A size and batch size: the names of its ways, the plain one first, what starts the process of one, and which are missing, and why."""

    title: str
    size_px: tuple[int, int]
    batch_size: int
    gpu: bool
    ways: Sequence[str]
    start: Callable[[str], Connection]
    missing: Mapping[str, str] = MappingProxyType({})


@click.command()
@click.option("--sizes", default="640x192 1024x320", show_default=True, metavar="WxH...", help="Of the network's input, pixels.")
@click.option("--batch_sizes", default="1 16", show_default=True, metavar="N...")
@click.option(
    "--rounds", default=15, show_default=True, help="Rounds of every row, in turn, at 640x192 and batch 1; fewer for larger passes."
)
@click.option("--starts", default=5, show_default=True, help="Processes of md-predict, in turn, after one to warm up; none with --gpu.")
@click.option("--gpu", is_flag=True, help="On the GPU.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_inference.json, or bench_inference_gpu.json.")
def main(sizes: str, batch_sizes: str, rounds: int, starts: int, gpu: bool, save_result: bool) -> None:
    """Times a pass of the network alone and from camera frames, and md-predict from its start to its end.

    A provider that is missing is named; so is a way that fails or answers otherwise, and the exit status is 1 then. The others are timed.
    """
    setting: dict[str, Any] = {"num_layers": NUM_LAYERS, "threads": usable_cores(), "onnxruntime": onnxruntime.__version__}
    if gpu:
        setting["fp32_convolutions"] = fp32_convolutions(gpu_device())
    report, batches = Report(), [int(number) for number in batch_sizes.split()]
    with TemporaryDirectory() as name:
        for number, size in enumerate(sizes.split()):
            width_px, height_px = map(int, size.split("x"))
            folder = Path(name) / size
            network = depth_network((height_px, width_px))
            models = Models(network, random_inputs(CALIBRATION_IMAGES, (height_px, width_px)), folder)
            # Where it cannot export, torch's rows are timed all the same, and the others say why not.
            with suppress(InputError):
                models.make_all(gpu=gpu)
            for batch_size in batches:
                measure(report, setting_of((height_px, width_px), batch_size, folder, gpu=gpu), rounds=rounds)
                if save_result:
                    keep(report, setting, gpu=gpu)
            if number == 0 and starts and not gpu:
                measure_starts(report, network, models, Path(name), starts)
                if save_result:
                    keep(report, setting, gpu=gpu)
    if report.faults:
        raise click.ClickException("not timed:\n" + "\n".join(f"{way}: {fault}" for way, fault in report.faults.items()))


def keep(report: Report, setting: Mapping[str, Any], *, gpu: bool) -> None:
    """Saves what has been measured so far."""
    result = {"setting": setting, "rows": report.rows} | ({"profiles": report.profiles} if gpu else {})
    click.echo(f"wrote {save('bench_inference_gpu' if gpu else 'bench_inference', result)}")


def setting_of(size_px: tuple[int, int], batch_size: int, folder: Path, *, gpu: bool) -> Setting:
    """The ways of this machine's CPU or GPU."""
    network, inputs = depth_network(size_px), random_inputs(batch_size, size_px)
    ways = list((gpu_ways if gpu else cpu_ways)(network, Models(network, inputs, folder), inputs))
    missing = missing_ways(ways) if gpu else {}
    title = f"{size_px[1]}x{size_px[0]}, batch {batch_size}: "
    return Setting(title, size_px, batch_size, gpu, ways, lambda name: start(Task(name, size_px, batch_size, folder, gpu)), missing)


def measure(report: Report, setting: Setting, *, rounds: int) -> None:
    """Adds the figures of every way that can run and answers as the first, the plain one, does; each in a process of its own."""
    report.missing |= {setting.title + name: why for name, why in setting.missing.items()}
    with ExitStack() as stack:
        connections: dict[str, Connection] = {}
        for name in setting.ways:
            if name in setting.missing:
                continue
            # One after the other, so that the first has left its answer and no two are prepared at the same time.
            connection = stack.enter_context(setting.start(name))
            fault = receive(connection)
            if fault is None:
                connections[name] = connection
            elif fault.missing:
                report.missing[setting.title + name] = fault.why
            else:
                report.faults[setting.title + name] = fault.why
        pixels = setting.batch_size * setting.size_px[0] * setting.size_px[1]
        fewer = max(LEAST_ROUNDS, rounds * PIXELS_OF_A_ROUND // pixels)
        passes = GPU_PASSES_A_RUN if setting.gpu else max(1, CPU_PASSES_A_RUN * PIXELS_OF_A_ROUND // pixels)
        timings, lost = time_passes(connections, min(rounds, fewer), passes=passes)
        report.faults |= {setting.title + name: why for name, why in lost.items()}
        if setting.gpu and timings:
            fastest = min(timings, key=lambda name: timings[name].median_s)
            connections[fastest].send(PROFILE)
            profile = receive(connections[fastest])
            report.profiles |= {} if isinstance(profile, Fault) else {setting.title + fastest: profile}
    floor_us = FLOORS_US.get((setting.size_px, setting.batch_size)) if setting.gpu and "H200" in (gpu_model() or "") else None
    for name in setting.ways:
        if name in timings and PLAIN in timings:
            report.rows[setting.title + name] = figures(timings[name], timings[PLAIN], setting.batch_size, floor_us)
        elif setting.title + name in report.missing:
            report.rows[setting.title + name] = {}
        show(report, setting.title + name)


def receive(connection: Connection) -> Any:
    """Read what a way's process answers; a ``Fault`` where it has ended."""
    try:
        return connection.recv()
    except EOFError:
        return Fault("its process ended; is there memory enough?")


def time_passes(connections: Mapping[str, Connection], rounds: int, *, passes: int) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time a pass of each, in turn, every row after a rest; a first round is not counted. Also why those have none whose process ended."""
    seconds: dict[str, list[float]] = {name: [] for name in connections}
    lost: dict[str, str] = {}
    for round_number in range(1 + rounds):
        for name in [name for name in connections if name not in lost]:
            time.sleep(REST_S)
            try:
                connections[name].send(passes)
                taken = connections[name].recv() / passes
            except (EOFError, OSError):
                lost[name] = "its process ended while it was timed"
                continue
            if round_number > 0:
                seconds[name].append(taken)
    return {name: timing_of(s) for name, s in seconds.items() if name not in lost}, lost


def figures(timing: Timing, plain: Timing, batch_size: int, floor_us: float | None) -> dict[str, float]:
    """What one row is worth, by the keys of ``HEADINGS`` that apply."""
    ms = {"ms": timing.median_s, "fastest_ms": timing.fastest_s, "slowest_ms": timing.slowest_s}
    row = {"n": timing.n, **{key: 1e3 * seconds for key, seconds in ms.items()}, **rates(timing, batch_size, plain)}
    return row if floor_us is None else row | {"floor_share": floor_us / (1e6 * timing.median_s)}


def show(report: Report, name: str) -> None:
    """One row, or why there is none."""
    row = report.rows.get(name)
    if row:
        text = "".join(f"{HEADINGS[key]:>10} {row[key]:<8.4g}" for key in HEADINGS if key in row)
    else:
        text = f" {report.faults.get(name, 'the plain way, to compare with, was not timed')}"
    click.echo(f"left out: {name}: {report.missing[name]}" if name in report.missing else f"{name:<72}{text}")


def measure_starts(report: Report, network: DepthNetwork, models: Models, folder: Path, starts: int) -> None:
    """Adds whole processes of md-predict, with a checkpoint and with an ONNX file, on a CPU."""
    save_weights(folder / "weights_0", network, InputSize(*network.size_px, network.use_stereo))
    Image.fromarray(models.inputs.frames[0]).save(folder / "photo.jpg")
    commands = {COLD + "checkpoint": folder / "weights_0", COLD + "ONNX file": models.path("fp32")}
    photo = folder / "photo.jpg"
    runs = {name: partial(run_md_predict, photo, model, folder / model.name.partition(".")[0]) for name, model in commands.items()}
    try:
        plain, ours = (run() for run in runs.values())
    except subprocess.CalledProcessError as error:
        report.faults[COLD + "both"] = error.stderr.strip().splitlines()[-1]
        return
    apart = distance(ours, plain)
    if not apart <= COLD_AGREEMENT:
        report.faults[COLD + "ONNX file"] = f"its answer is off by {apart:.2%} of the spread of the checkpoint's"
        return
    timings = time_side_by_side(runs, rounds=starts, warmup_rounds=0)
    for name, timing in timings.items():
        report.rows[name] = figures(timing, timings[COLD + "checkpoint"], 1, None)
        show(report, name)


def run_md_predict(image: Path, model: Path, out: Path) -> NDArray[np.float32]:
    """Predict an image in a new process of md-predict and read the result."""
    command = [sys.executable, "-c", MD_PREDICT, "--image", image, "--model", model, "--out", out]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(list(map(str, command)), check=True, cwd=PROJECT, env=hidden, capture_output=True, text=True)
    answer: NDArray[np.float32] = np.load(out / f"{image.stem}_disp.npy")
    return answer


if __name__ == "__main__":
    main()
