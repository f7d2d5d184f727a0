"""Samples a second of our loaders beside the plain one: ``python -m benchmarks.bench_loader``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

import splits
from benchmarks.harness import rates, save, time_side_by_side
from benchmarks.plain_loader import plain_loader
from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.loader import Loader, usable_workers
from dataload.split import FrameRef, parse_split

GENERATED_FRAMES = 40
NATIVE_PX = (375, 1242)


@click.command()
@click.option("--data_path", type=click.Path(path_type=Path), help="KITTI raw tree [default: the one of MD_SHARED, else a generated one].")
@click.option("--split", help="Split name or folder [default: kitti_mini of MD_SHARED].")
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=12, show_default=True)
@click.option("--num_workers", default=None, type=int, help="Workers of every loader [default: the cores].")
@click.option("--rounds", default=5, show_default=True, help="Epochs of every loader, in turn, after one to warm up.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_loader.json.")
def main(data_path: Path | None, split: str | None, num_workers: int | None, rounds: int, save_result: bool, **options: Any) -> None:
    """Times whole epochs: decode, resize to three-frame samples with flips and jitter, batches delivered."""
    shared = Path(os.environ.get("MD_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "kitti"
    workers = usable_workers(10**6) if num_workers is None else num_workers
    with TemporaryDirectory() as folder:
        if data_path is None and not shared.is_dir():
            data_path, split = generate(Path(folder)), folder
        config = DataConfig(
            data_path=data_path or shared / "raw_jpg",
            split=split or str(shared / "splits" / "kitti_mini"),
            num_workers=workers,
            **options,
        )
        refs = parse_split(splits.read_lines(config.split, "train"), source=splits.subset_source(config.split, "train"))
        report(config, refs, rounds, save_result)


def report(config: DataConfig, refs: Sequence[FrameRef], rounds: int, save_result: bool) -> None:
    """Times all loaders that run here and prints a row for each."""
    samples = len(refs) // config.batch_size * config.batch_size
    timings = time_side_by_side(loaders(config, refs), rounds=rounds)
    plain = timings["plain"]
    size = f"{config.width_px}x{config.height_px}"
    click.echo(f"{size}, {len(config.frame_ids)} frames, batch {config.batch_size}, {config.num_workers} workers, {plain.n} epochs each")
    click.echo(f"{'loader':<20}{'samples/s':>10}{'slowest':>10}{'fastest':>10}{'x plain':>10}")
    for name, timing in timings.items():
        click.echo(f"{name:<20}" + "".join(f"{value:>10.1f}" for value in rates(timing, samples, plain).values()))
    if save_result:
        setting = {"size_px": [config.height_px, config.width_px], "batch_size": config.batch_size, "num_workers": config.num_workers}
        rows = {name: {"n": timing.n, **rates(timing, samples, plain)} for name, timing in timings.items()}
        click.echo(f"wrote {save('bench_loader', {'setting': {**setting, 'samples': samples}, 'rows': rows})}")


def loaders(config: DataConfig, refs: Sequence[FrameRef]) -> dict[str, Callable[[], None]]:
    """By name: a callable that goes through one epoch."""
    dataset = open_dataset(config)
    plain = plain_loader(config, dataset, refs, num_workers=config.num_workers)
    runs: dict[str, Callable[[], None]] = {"plain": lambda: drain(iter(plain))}
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for backend in ("torch", "dali"):
            loader = Loader(_with_loader(config, backend), dataset, refs, training=True, device=device)
            runs[f"{backend} {device}"] = _epochs(loader)
    return runs


def _with_loader(config: DataConfig, backend: str) -> DataConfig:
    return DataConfig(**{**vars(config), "loader": backend})


def _epochs(loader: Loader) -> Callable[[], None]:
    epochs = count()
    return lambda: drain(loader.epoch(next(epochs)))


def drain(batches: Iterator[Any]) -> None:
    """Takes all batches; they are on their device when it returns."""
    for _ in batches:
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def generate(root: Path) -> Path:
    """A KITTI raw tree of textured frames of native size with its split files; returns the root."""
    rng = np.random.default_rng(0)
    folder = "2011_09_26/2011_09_26_drive_0001_sync"
    images = root / folder / "image_02" / "data"
    images.mkdir(parents=True)
    height, width = NATIVE_PX
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)).resize((width, height))
    for index in range(GENERATED_FRAMES):
        shifted = np.roll(np.asarray(coarse), 3 * index, axis=1).astype(np.int16) + rng.integers(-6, 7, (height, width, 3))
        Image.fromarray(np.clip(shifted, 0, 255).astype(np.uint8)).save(images / f"{index:010d}.jpg", quality=92)
    lines = [f"{folder} {index} l" for index in range(1, GENERATED_FRAMES - 1)]
    (root / "train_files.txt").write_text("\n".join(lines) + "\n")
    return root


if __name__ == "__main__":
    main()
