"""Samples per second of our loaders beside the plain one, each row in a process of its own: ``python -m benchmarks.bench_loader``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.frames import Frames, kitti_frames
from benchmarks.harness import IS_REHEARSAL, gpu_device, rates, save
from benchmarks.loader_row import PILLOW_SIMD, Row
from benchmarks.row_process import Measurement, RowFault, RowProcess, measure
from dataload.pipeline.backend import has_dali
from splits import read_lines

# As many lines as the list of real frames has; in a rehearsal, as few as do.
GENERATED_FRAMES = 12 if IS_REHEARSAL else 137
NATIVE_PX = (375, 1242)
# On a GPU an epoch of a short list would be over before it has begun: its lines are repeated to fill so many batches.
LEAST_GPU_BATCHES = 1 if IS_REHEARSAL else 100
FRAMES_PER_SAMPLE = 3
# Of the frames, what the GPU's JPEG engine takes, beside none, as in training: what would be gained by pixels that depend on the batch.
HARDWARE_SHARES = (0.5, 0.65, 0.8, 1.0)
BACKENDS = {"PyTorch": "torch", "DALI": "dali"}
NUMBERS = {"samples/s": "samples_per_s", "frames/s": "frames_per_s", "x plain": "times_plain", "MiB": "peak_mib"}


@click.command()
@click.option("--data_path", type=click.Path(path_type=Path), help="KITTI raw tree [default: the one of MD_SHARED, else a generated one].")
@click.option("--split", help="Split name or folder [default: kitti_mini of MD_SHARED].")
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=12, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Epochs of every row, in turn, after one to warm up.")
@click.option("--seconds", default=300, show_default=True, help="Begin no further round after so long.")
@click.option("--simd", type=click.Path(path_type=Path), help="Folder into which pillow-simd was installed (pip install --target).")
@click.option("--gpu", is_flag=True, help="Rows on the GPU.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_loader.json, or bench_loader_gpu.json.")
def main(
    data_path: Path | None,
    split: str | None,
    rounds: int,
    seconds: float,
    simd: Path | None,
    gpu: bool,
    save_result: bool,
    **options: Any,
) -> None:
    """Times whole epochs: three-frame samples with flips and jitter, in batches, delivered; from files (cold) and from a frame store."""
    if gpu:
        gpu_device()
    with TemporaryDirectory() as folder:
        frames = kitti_frames(otherwise=lambda: Frames(generate(Path(folder)), folder, "generated, of KITTI's size"))
        if data_path is not None or split is not None:
            frames = Frames(data_path or frames.data_path, split or frames.split, "your own")
        config = options | {
            "data_path": str(frames.data_path),
            "split": frames.split,
            "frame_store_dir": str(Path(folder) / "stores"),
        }
        rows, left_out = rows_that_run(config, gpu=gpu, simd=simd)
        values, faults = run_rows(rows, rounds=rounds, seconds=seconds, simd=simd)
    show(values, left_out | faults)
    if save_result:
        setting = {"frames": frames.what, "size_px": [options["height_px"], options["width_px"]], "batch_size": options["batch_size"]}
        setting |= {"epochs": next(iter(values.values()))["n"]}
        click.echo(f"wrote {save('bench_loader_gpu' if gpu else 'bench_loader', {'setting': setting, 'rows': values})}")
    if faults:
        raise SystemExit(1)


def rows_that_run(config: dict[str, Any], *, gpu: bool, simd: Path | None) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows by name, those that build the stores first, and why others are left out."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    rows, left_out = {}, {}
    lines = len(read_lines(config["split"], "train"))
    repeats = max(1, -(-LEAST_GPU_BATCHES * config["batch_size"] // lines)) if gpu else 1
    counts = [len(cores)] if gpu else sorted({1, min(2, len(cores)), len(cores)})
    for name, row in all_rows(config, cores, counts, gpu=gpu).items():
        if row.config.get("loader") == "dali" and not has_dali():
            left_out[name] = "NVIDIA DALI is not installed"
        elif row.resizer == PILLOW_SIMD and not (simd and (simd / "PIL").is_dir()):
            left_out[name] = f"no pillow-simd in {simd}" if simd else "no folder of pillow-simd is given (--simd)"
        else:
            rows[name] = row._replace(repeats=repeats)
    return rows, left_out


def all_rows(config: dict[str, Any], cores: list[int], counts: list[int], *, gpu: bool) -> dict[str, Row]:
    """Every row by name, with all numbers of cores."""
    device = "cuda" if gpu and not IS_REHEARSAL else "cpu"
    # In a rehearsal the CPU stands in for the GPU, whose memory it lacks.
    on_gpu = {"frame store on the GPU": "gpu"} if device == "cuda" else {}
    stores = {"frame store on disk": "disk", **on_gpu} if gpu else {"frame store": "disk"}

    def row(kind: str, count: int, loader: str = "torch", store: str = "none", resizer: str | None = None) -> Row:
        return Row(kind, cores[:count], device, config | {"loader": loader, "frame_store": store}, resizer=resizer)

    rows = {
        f"making the frame store, {backend}, {_cores(len(cores))}": row("build", len(cores), BACKENDS[backend], "disk")
        for backend in BACKENDS
    }
    for count in counts:
        these = {"plain": row("plain", count)}
        these |= {f"from files, {backend}": row("loader", count, loader) for backend, loader in BACKENDS.items()}
        if gpu:
            these |= {
                f"from files, DALI, {share:.0%} in hardware": row("loader", count, "dali")._replace(hardware_share=share)
                for share in HARDWARE_SHARES
            }
        else:
            these["from files, PyTorch with pillow-simd"] = row("loader", count, resizer=PILLOW_SIMD)
        # Of stored frames, both backends make batches in the same way.
        these |= {place: row("loader", count, store=store) for place, store in stores.items()}
        if not gpu:
            these["frame store, reading alone"] = row("gather", count, store="disk")
        rows |= {f"{name}, {_cores(count)}": values for name, values in these.items()}
    return rows


def run_rows(rows: dict[str, Row], *, rounds: int, seconds: float, simd: Path | None) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The rows' figures by name, and the faults of those that failed."""
    stores = {name: build(row) for name, row in rows.items() if row.kind == "build"}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(RowProcess(row, simd=simd)) for name, row in rows.items() if row.kind != "build"}
        measured, faults = measure(processes, rounds=rounds, seconds=seconds)
    for name in [name for name in faults if name.startswith("plain")]:
        raise click.ClickException(f"{name}: {faults[name]}")
    found = {name: figures(value, measured[f"plain, {name.rpartition(', ')[2]}"]) for name, value in measured.items()}
    return found | {name: made for name, (made, fault) in stores.items() if not fault}, faults | {n: f for n, (_, f) in stores.items() if f}


def build(row: Row) -> tuple[dict[str, float], str]:
    """Makes a store; returns frames per second and memory, and the fault that came in between."""
    try:
        with RowProcess(row) as process:
            process.ready()
            answer = process.epoch(watch=True)
    except RowFault as fault:
        return {}, str(fault)
    return {"n": 1, "frames_per_s": answer["samples"] / answer["seconds"], "peak_mib": process.peak_mib}, ""


def figures(measured: Measurement, plain: Measurement) -> dict[str, float]:
    """A row's figures; the ratio is to the plain loader with as many cores."""
    assert measured.samples == plain.samples, "a row delivered another number of samples than the plain loader"
    found = rates(measured.timing, measured.samples, plain.timing)
    return {"n": measured.timing.n, **found, "frames_per_s": FRAMES_PER_SAMPLE * found["samples_per_s"], "peak_mib": measured.peak_mib}


def show(rows: dict[str, dict[str, float]], left_out: dict[str, str]) -> None:
    """Prints a line for each row."""
    click.echo(f"{'loader':<40}" + "".join(f"{heading:>12}" for heading in NUMBERS))
    for name, values in rows.items():
        click.echo(f"{name:<40}" + "".join(f"{values[key]:>12.1f}" if key in values else f"{'':>12}" for key in NUMBERS.values()))
    click.echo("MiB: the most seen while a row warmed up, of its process and those it started, without the code of libraries")
    for name, why in left_out.items():
        click.echo(f"left out: {name}: {why}")


def _cores(count: int) -> str:
    return f"{count} core{'s' if count > 1 else ''}"


def generate(root: Path) -> Path:
    """A KITTI raw tree of textured frames of native size with its split files; returns the root."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = "2011_09_26/2011_09_26_drive_0001_sync"
    images = root / folder / "image_02" / "data"
    images.mkdir(parents=True)
    height, width = NATIVE_PX
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)).resize((width, height))
    for index in range(GENERATED_FRAMES):
        shifted = np.roll(np.asarray(coarse), 3 * index, axis=1).astype(np.int16) + rng.integers(-6, 7, (height, width, 3), np.int16)
        Image.fromarray(np.clip(shifted, 0, 255).astype(np.uint8)).save(images / f"{index:010d}.jpg", quality=92)
    lines = [f"{folder} {index} l" for index in range(1, GENERATED_FRAMES - 1)]
    (root / "train_files.txt").write_text("\n".join(lines) + "\n")
    return root


if __name__ == "__main__":
    main()
