"""The cost of starting on the whole published split, in time and memory: ``python -m benchmarks.bench_startup``.

The tree has the published split's folders and files, each a tiny image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.harness import save
from benchmarks.row_process import PROJECT, memory_mib
from splits import read_lines

SPLIT = "eigen_zhou"
SUBSETS = ("train", "val")
# The smallest that a loader takes.
SIZE_PX = (64, 64)
NUM_BATCHES = 50
CHILD = "import sys; from benchmarks.bench_startup import start; start(*sys.argv[1:])"


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Processes of each length of the split, in turn, after one to warm up.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_startup.json.")
def main(rounds: int, save_result: bool) -> None:
    """Times the stages of a start, and measures their memory, with the whole split and with a tenth of it."""
    lines = {subset: read_lines(SPLIT, subset) for subset in SUBSETS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_tree(folder, lines)
        write_tenth(folder / "tenth", lines)
        # The first pair makes the stores, and warms the directory cache.
        starts = [[measure_start(folder, split) for split in (SPLIT, str(folder / "tenth"))] for _ in range(1 + rounds)]
    whole, tenth = zip(*starts[1:], strict=True)
    rows = {stage: stage_row([s[stage] for s in whole], [s[stage] for s in tenth]) for stage in whole[0]}
    click.echo(f"{'stage':<36}{'ms':>8}{'slowest':>10}{'MiB':>8}{'MiB, a tenth':>14}")
    for stage, row in rows.items():
        click.echo(f"{stage:<36}{row['ms']:>8.0f}{row['slowest_ms']:>10.0f}{row['mib']:>8.1f}{row['tenth_mib']:>14.1f}")
    if save_result:
        setting = {"lines": sum(map(len, lines.values())), "size_px": list(SIZE_PX), "processes": rounds}
        click.echo(f"wrote {save('bench_startup', {'setting': setting, 'rows': rows})}")


def stage_row(whole: Sequence[Sequence[float]], tenth: Sequence[Sequence[float]]) -> dict[str, float]:
    """Medians of (ms, MiB) measured with the whole split, and the MiB with a tenth of it."""
    ms, mib = zip(*whole, strict=True)
    return {
        "n": len(ms),
        "ms": median(ms),
        "fastest_ms": min(ms),
        "slowest_ms": max(ms),
        "mib": median(mib),
        "tenth_mib": median(mib for _, mib in tenth),
    }


def make_tree(root: Path, lines: dict[str, list[str]]) -> None:
    """Every file that the lines need."""
    from PIL import Image

    from dataload.datasets.frame_table import wanted_frames
    from dataload.datasets.kitti import KittiRaw
    from dataload.frames.frame_ref import parse_split

    dataset, refs = KittiRaw(root, ".jpg"), parse_split(lines["train"] + lines["val"], source=SPLIT)
    small = BytesIO()
    Image.effect_noise((8, 8), 50).convert("RGB").save(small, "JPEG")
    for folder, names in wanted_frames(dataset, refs, frame_ids=(0, -1, 1), use_stereo=False).items():
        folder.mkdir(parents=True)
        for name in names.values():
            (folder / name).write_bytes(small.getvalue())


def write_tenth(folder: Path, lines: dict[str, list[str]]) -> None:
    """A split folder with a tenth of the lines; of neighbouring ones, so that they use a tenth of the files."""
    folder.mkdir()
    for subset, all_lines in lines.items():
        (folder / f"{subset}_files.txt").write_text("\n".join(sorted(all_lines)[: len(all_lines) // 10]) + "\n")


def measure_start(root: Path, split: str) -> dict[str, tuple[float, float]]:
    """(ms, MiB) of each stage of a start, in a process of its own."""
    command, quiet = [sys.executable, "-c", CHILD, str(root), split], {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=quiet)
    stages: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return stages


def start(root: str, split: str) -> None:
    """Starts as ``md-train`` does, up to the first batches, and prints the (ms, MiB) of each stage; imports are not counted."""
    import torch

    from dataload.config import DataConfig
    from dataload.datasets import open_dataset
    from dataload.datasets.presence import require_files
    from dataload.loader import Loader
    from dataload.pipeline.decoders import decoder_of
    from dataload.store.choice import open_store

    height_px, width_px = SIZE_PX
    device = torch.device("cpu")
    config = DataConfig(
        data_path=Path(root),
        split=split,
        height_px=height_px,
        width_px=width_px,
        loader="torch",
        frame_store="disk",
        frame_store_dir=Path(root) / "stores",
    )
    dataset, stages = open_dataset(config), Stages()
    refs = stages.take("reading the lists", lambda: [dataset.read(split, subset) for subset in SUBSETS])
    check = partial(require_files, dataset, frame_ids=config.frame_ids, use_stereo=False)
    stages.take("checking that all files are there", lambda: [check(part) for part in refs])
    every = [ref for part in refs for ref in part]
    opened = partial(open_store, decoder=decoder_of(config, device), device=device, frames_to_load=len(every))
    store = stages.take("finding the frame store", lambda: opened(config, dataset, every))
    loader = partial(Loader, config, dataset, store=store)
    loaders = stages.take("making the loaders", lambda: [loader(part, training=part is refs[0]) for part in refs])
    stages["together"] = tuple(map(sum, zip(*stages.values(), strict=True)))
    stages.take(f"the first {NUM_BATCHES} batches", lambda: sum(1 for _ in islice(loaders[0].epoch(0), NUM_BATCHES)))
    print(json.dumps(stages))


class Stages(dict[str, tuple[float, ...]]):
    """Wall time in ms and growth of memory in MiB by stage."""

    def take(self, name: str, run: Callable[[], Any]) -> Any:
        """What ``run`` returns."""
        before_mib, begin = memory_mib(os.getpid()), time.perf_counter()
        result = run()
        ms = 1e3 * (time.perf_counter() - begin)
        self[name] = ms, memory_mib(os.getpid()) - before_mib
        return result


if __name__ == "__main__":
    main()
