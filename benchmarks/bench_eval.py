"""Ground truth and scoring beside the plain way: ``python -m benchmarks.bench_eval``; needs OpenCV (the extra ``bench``)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.frames import demo_frames, kitti_frames
from benchmarks.harness import Timing, rates, save, time_side_by_side
from benchmarks.plain_eval import plain_scores, read_plain_truths
from benchmarks.plain_ground_truth import write_plain_ground_truth
from dataload.datasets.kitti import KittiRaw
from dataload.frames.frame_ref import FrameRef, parse_split
from dataload.ground_truth import FILE_NAME, read_ground_truth, write_ground_truth
from engine.evaluation.disp_files import read_blocks
from engine.evaluation.metrics import METRICS
from engine.evaluation.scoring import score
from splits import read_lines

# The Eigen test list is as long.
IMAGES = 697
# Prints the most memory the process ever held, counted from its own start (its parent's would else be in it).
EVAL = (
    "from engine.commands.md_eval import md_eval; md_eval(standalone_mode=False); "
    "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
)


class BenchFiles(NamedTuple):
    """Where the benchmark's files lie: a split folder of ``refs`` with ground truth, plain ground truth, and predictions."""

    folder: Path
    dataset: KittiRaw
    refs: tuple[FrameRef, ...]

    @property
    def truths(self) -> Path:
        """Ground truth as ``md-data gt`` writes it, where ``md-eval`` looks for it."""
        return self.folder / FILE_NAME

    @property
    def plain_truths(self) -> Path:
        """Ground truth as the reference writes it."""
        return self.folder / "plain_gt_depths.npz"

    @property
    def disps(self) -> Path:
        """Predictions (N,h,w), float32."""
        return self.folder / "disps.npy"


@click.command()
@click.option("--height", "height_px", default=320, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=1024, show_default=True, metavar="PX")
@click.option("--images", default=IMAGES, show_default=True, help="Length of the list; scans are repeated to fill it.")
@click.option(
    "--rounds", default=5, show_default=True, help="Rounds of scoring, in turn, after one to warm up; ground truth is made twice."
)
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_eval.json.")
def main(height_px: int, width_px: int, images: int, rounds: int, save_result: bool) -> None:
    """Times making the ground truth of a list, and scoring predictions of it; then measures md-eval's memory. Takes KITTI's
    laser scans where the reference data lie, else the demo world's."""
    frames = kitti_frames(otherwise=demo_frames)
    lines = read_lines(frames.split, "test")
    lines = [lines[number % len(lines)] for number in range(images)]
    with TemporaryDirectory() as name:
        files = BenchFiles(Path(name), KittiRaw(frames.data_path, ".jpg"), parse_split(lines, source="test"))
        (files.folder / "test_files.txt").write_text("\n".join(lines) + "\n")
        write_disps(files.disps, images, (height_px, width_px))
        timings = time_side_by_side(truth_ways(files), rounds=2, warmup_rounds=0) | time_scoring(files, rounds)
        size_px = height_px, width_px
        sources = {"of a file": ["--ext_disp_to_eval", files.disps], "of a network": network_arguments(files, size_px)}
        peaks_mib = {source: peak_memory_mib(files, arguments) for source, arguments in sources.items()}
    rows = {name: {"n": timing.n, **rates(timing, images, timings[plain_of(name)])} for name, timing in timings.items()}
    for name, row in rows.items():
        click.echo(f"{name:<64}{row['samples_per_s']:>10.0f} images/s{row['times_plain']:>8.1f} x plain")
    for source, peak_mib in peaks_mib.items():
        click.echo(f"md-eval {source}, {images} images at {width_px}x{height_px}: {peak_mib:.0f} MiB at most")
    if save_result:
        setting: dict[str, Any] = {"scans": frames.what, "images": images, "size_px": [height_px, width_px]}
        setting |= {f"peak MiB {source}": round(peak_mib) for source, peak_mib in peaks_mib.items()}
        click.echo(f"wrote {save('bench_eval', {'setting': setting, 'rows': rows})}")


def plain_of(name: str) -> str:
    """The row that a row is compared with: ``scoring, plain`` for ``scoring, md-eval``."""
    return f"{name.partition(',')[0]}, plain"


def write_disps(path: Path, images: int, size_px: tuple[int, int]) -> None:
    """Smooth predictions (N,h,w) that differ from image to image."""
    height, width = size_px
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    disps = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(images, height, width))
    for number in range(images):
        disps[number] = 0.02 + 0.25 * (y / height) ** 2 + 0.02 * (1 + np.sin(0.05 * x + 0.7 * number))
    disps.flush()


def truth_ways(files: BenchFiles) -> dict[str, Callable[[], object]]:
    """Ground truth of the whole list, from scans to file."""
    return {
        "ground truth, plain": lambda: write_plain_ground_truth(files.plain_truths, files.dataset.data_path, files.refs),
        "ground truth, md-data gt": lambda: write_ground_truth(files.truths, files.dataset, files.refs, progress=False),
    }


def time_scoring(files: BenchFiles, rounds: int) -> dict[str, Timing]:
    """Scoring of the whole list, its predictions in memory: with its ground truth read from the file, as both do, and without."""
    inv_depths, gts_m = np.load(files.disps), read_plain_truths(files.plain_truths)
    blocks = partial(read_blocks, inv_depths, range(len(files.refs)))
    truths = read_ground_truth(files.truths)
    expected, found = plain_scores(inv_depths, gts_m), np.array(list(score(blocks(), truths).means.values()))
    assert np.allclose(found, expected, rtol=1e-5), dict(zip(METRICS, zip(found, expected, strict=True), strict=True))
    whole = {
        "scoring, plain": lambda: plain_scores(inv_depths, read_plain_truths(files.plain_truths)),
        "scoring, md-eval": lambda: score(blocks(), read_ground_truth(files.truths)),
    }
    without_reading = {
        "scoring with truth in memory, plain": lambda: plain_scores(inv_depths, gts_m),
        "scoring with truth in memory, md-eval": lambda: score(blocks(), truths),
        "scoring with truth in memory, md-eval with errors by distance": lambda: score(blocks(), truths, details=True),
    }
    return time_side_by_side(whole, rounds=2) | time_side_by_side(without_reading, rounds=rounds)


def network_arguments(files: BenchFiles, size_px: tuple[int, int]) -> list[str | Path]:
    """What makes md-eval predict by an untrained network of that size."""
    from benchmarks.step_inputs import default_config
    from engine.training.build import make_networks
    from engine.weights import InputSize, save_weights

    weights = files.folder / "weights_0"
    save_weights(weights, make_networks(default_config(frame_ids=(0,), use_stereo=True)), InputSize(*size_px, True))
    return ["--load_weights_folder", weights, "--no_cuda"]


def peak_memory_mib(files: BenchFiles, arguments: Sequence[str | Path]) -> float:
    """The most memory that ``md-eval`` holds, in a process of its own; files it maps count too. Linux only."""
    where = ["--eval_split", files.folder, "--data_path", files.dataset.data_path, "--eval_mono"]
    done = subprocess.run([sys.executable, "-c", EVAL, *map(str, [*where, *arguments])], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-2]) / 1024


if __name__ == "__main__":
    main()
