"""Whole training by ``md-train``, from files and from a frame store: its speed, and how much of the time it waits for data:
``python -m benchmarks.bench_train``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.bench_loader import generate
from benchmarks.harness import STEP_FLOOR_MS, gpu_device, has_floor, save

MD_TRAIN = [sys.executable, "-c", "from engine.commands.md_train import md_train; md_train()"]
ROWS = {"from files": "none", "frame store on disk": "disk"}
# A GPU waits for files, and bench_loader says how long; a run of this length would take minutes.
GPU_ROWS = {"frame store on disk": "disk", "frame store on the GPU": "gpu"}
# md-train's default.
NUM_LAYERS = 18
FAULT = re.compile(r"(\[rank\d+\]: )?[\w.]*Error: \S")


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=None, type=int, help="[default: 4, on a GPU 12]")
@click.option("--steps", default=24, show_default=True, help="Steps of every row; the second half counts.")
@click.option("--gpu", is_flag=True, help="On the GPU.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_train.json, or bench_train_gpu.json.")
def main(height_px: int, width_px: int, batch_size: int | None, steps: int, gpu: bool, save_result: bool) -> None:
    """Trains on generated frames of KITTI's size with md-train's own choices, from files and from stores.

    The fastest way comes first, each is kept at once, and where md-train fails, that is said and the others are measured (exit status 1).
    """
    device = gpu_device().type if gpu else "cpu"
    stores = GPU_ROWS if gpu else ROWS
    batch_size = batch_size or (12 if gpu else 4)
    with TemporaryDirectory() as name:
        folder = generate(Path(name))
        write_lists(folder, (steps + 1) * batch_size, batch_size)
        options = options_of((height_px, width_px), batch_size, steps, no_cuda=device != "cuda")
        setting = {"size_px": [height_px, width_px], "batch_size": batch_size, "steps": steps // 2}
        rows: dict[str, dict[str, float]] = {}
        faults = []
        click.echo(f"{'md-train':<24}{'samples/s':>12}{'waiting':>10}{'of floor' if gpu else '':>10}")
        for row, store in reversed(stores.items()):
            if store == "gpu" and device != "cuda":
                click.echo(f"left out: {row}: there is no GPU")
                continue
            try:
                values = train(folder, store, options)
            except click.ClickException as fault:
                faults.append(fault.message)
                continue
            if has_floor((height_px, width_px), batch_size, NUM_LAYERS):
                values["floor_share"] = values["samples_per_s"] * STEP_FLOOR_MS / 1e3 / batch_size
            of_floor = f"{values['floor_share']:>10.0%}" if "floor_share" in values else ""
            click.echo(f"{row:<24}{values['samples_per_s']:>12.1f}{values['wait_share']:>10.1%}{of_floor}")
            rows = {row: values} | rows
            if save_result:
                click.echo(f"wrote {save('bench_train_gpu' if gpu else 'bench_train', {'setting': setting, 'rows': rows})}")
    if faults:
        raise click.ClickException("\n".join(faults))


def write_lists(folder: Path, samples: int, val_samples: int) -> None:
    """Repeat the training list, so that one epoch holds so many samples: an epoch's end is no part of what is measured."""
    lines = (folder / "train_files.txt").read_text().splitlines()
    repeated = lines * -(-samples // len(lines))
    (folder / "train_files.txt").write_text("\n".join(repeated) + "\n")
    (folder / "val_files.txt").write_text("\n".join(lines[:val_samples]) + "\n")


def options_of(size_px: tuple[int, int], batch_size: int, steps: int, *, no_cuda: bool) -> list[str]:
    """md-train's, for a run whose second half of ``steps`` is logged as one."""
    height_px, width_px = size_px
    options = [f"--height={height_px}", f"--width={width_px}", f"--batch_size={batch_size}", f"--max_steps={steps + 1}"]
    return [*options, f"--log_frequency={steps // 2}", "--weights_init=scratch", *(["--no_cuda"] if no_cuda else [])]


def train(
    folder: Path,
    store: str,
    options: Sequence[str],
    *,
    name: str | None = None,
    launcher: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Samples per second and the share of time spent waiting, over the second half of a run's steps.

    Args:
        name: of the run; by default the store's.
        launcher: what starts md-train's command.
        variables: of its environment, beside this process's.
    """
    name = name or store
    places = [f"--data_path={folder}", f"--split={folder}", f"--log_dir={folder / 'runs'}", f"--frame_store_dir={folder / 'stores'}"]
    command = [*launcher, *MD_TRAIN, *places, f"--model_name={name}", f"--frame_store={store}", *options]
    environ = {**os.environ, "TQDM_DISABLE": "1", **(variables or {})}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environ, check=False)
    if done.returncode:
        raise click.ClickException(f"md-train --frame_store {store} ended with {done.returncode}: {last_fault(done.stderr)}")
    logged = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in logged if line["mode"] == "train"][-1]
    return {"samples_per_s": last["time/samples_per_s"], "wait_share": last["time/data_wait"]}


def last_fault(output: str) -> str:
    """The last line that names an error, else the last one: torchrun adds a summary of its own."""
    lines = output.strip().splitlines()
    return next((line for line in reversed(lines) if FAULT.match(line)), lines[-1])


if __name__ == "__main__":
    main()
