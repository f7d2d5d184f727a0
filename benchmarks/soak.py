"""A long training on the demo, watched from outside: memory, handles, threads, pace and logs. ``make soak`` runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import psutil

from benchmarks.bench_train import MD_TRAIN, last_fault
from benchmarks.harness import save
from dataload.system.interrupts import exit_status

LOG_FREQUENCY = 10
# Small images, so that an hour holds tens of thousands of steps and hundreds of validations, and a checkpoint every half minute. One
# thread, so that the time that a step takes of a core says the same whatever else the machine does.
OPTIONS = (
    "--dataset demo --frame_ids 0 --use_stereo --weights_init scratch --initial_depth 11 --height 64 --width 96 --batch_size 8 --no_cuda "
    f"--threads 1 --num_epochs 1000000 --save_frequency 1000000 --save_minutes 0.5 --log_frequency {LOG_FREQUENCY} --model_name soak"
)
LOOK_EVERY_S = 1.0
# What a run may take to start, to save and to end.
START_S, END_S = 300.0, 300.0
# Lines of the lists: epochs are so short that a validation comes every few seconds. So many of them are needed to compare two halves.
TRAIN_LINES, VAL_LINES, LEAST_VALIDATIONS = 128, 16, 12
# How many times longer than asked for a slow machine may take to come to them.
LONGER = 4
# Of the samples; in it a run still fills its buffers and torch its caches.
WARM_UP_SHARE = 1 / 3
# What may lie between the halves of the rest: MiB beyond a share, numbers, and a factor on the core's time per step.
MEMORY_MIB, MEMORY_SHARE, HANDLES, THREADS, SLOWER = 16.0, 0.02, 2, 1, 1.25
ROWS = {
    "memory_mib": "resident memory, MiB",
    "handles": "open handles",
    "threads": "threads",
    "children": "processes started and alive",
    "core_ms": "ms of a core per step",
    "steps_per_s": "steps/s, with validation and checkpoints",
}


class Look(NamedTuple):
    """A moment of the run: seconds of the clock and of cores, MiB in memory, handles, threads, child processes, steps of whole epochs."""

    time_s: float
    core_s: float
    memory_mib: float
    handles: int
    threads: int
    children: int
    steps: int


@click.command()
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(min=0.5), help="How long it trains.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/soak.json.")
def main(minutes: float, save_result: bool) -> None:
    """Trains on the demo for so long; fails if memory, handles or threads grow, steps slow down, or a log record is not there once."""
    with TemporaryDirectory() as folder:
        run_folder = Path(folder) / "soak"
        looks, done_steps = watched(Path(folder), run_folder, minutes)
        steps_per_epoch = first_validation(run_folder)
        records = read_records(run_folder)
        faults = log_faults(records, logged_scalars(run_folder), done_steps, steps_per_epoch)
    rows = halves(looks)
    faults += growth_faults(rows)
    counts = Counter(mode for mode, _ in records)
    setting = {"minutes": minutes, "steps": done_steps, "validations": counts["val"], "log records": len(records), "looks": len(looks)}
    click.echo(", ".join(f"{name} {value}" for name, value in setting.items()))
    for name, values in rows.items():
        click.echo(f"{name:<44}{values['first']:>12.1f}{values['second']:>12.1f}{values['most']:>12.1f}")
    if save_result:
        click.echo(f"wrote {save('soak', {'setting': setting, 'rows': rows})}")
    if faults:
        raise click.ClickException("\n".join(faults))
    click.echo("flat: memory, handles, threads and pace; every log record once")


def watched(folder: Path, run_folder: Path, minutes: float) -> tuple[list[Look], int]:
    """What was seen of a run while it trained for so long, from its first validation on; the steps that it made until its end."""
    write_lists(folder)
    log = folder / "output.txt"
    with log.open("w") as output:
        command = [*MD_TRAIN, *OPTIONS.split(), f"--split={folder}", f"--log_dir={folder}"]
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "TQDM_DISABLE": "1"})
        try:
            deadline = time.monotonic() + START_S + LONGER * 60 * minutes
            looks: list[Look] = []
            while time.monotonic() < deadline and not is_enough(looks, minutes):
                time.sleep(LOOK_EVERY_S)
                if process.poll() is not None:
                    raise click.ClickException(f"md-train ended with {process.returncode}: {last_fault(log.read_text())}")
                looks += look_at(psutil.Process(process.pid), run_folder)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):  # then it is killed, which its status shows
                process.wait(END_S)
        finally:
            process.kill()
            process.wait()
    if process.returncode != exit_status(signal.SIGTERM):
        raise click.ClickException(f"md-train ended with {process.returncode} when it was to stop: {last_fault(log.read_text())}")
    (stopped,) = (run_folder / "models").glob("step_*")
    return looks, int(stopped.name.removeprefix("step_"))


def is_enough(looks: Sequence[Look], minutes: float) -> bool:
    """Whether the run was watched for so long, and came to so many validations that its halves can be compared."""
    return bool(looks) and looks[-1].time_s - looks[0].time_s >= 60 * minutes and len({look.steps for look in looks}) >= LEAST_VALIDATIONS


def write_lists(folder: Path) -> None:
    """The first lines of the demo's lists."""
    from dataload.demo.world import ensure, split_folder

    lists = split_folder(ensure())
    for name, number in (("train_files.txt", TRAIN_LINES), ("val_files.txt", VAL_LINES)):
        lines = (lists / name).read_text(encoding="utf-8").splitlines()[:number]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def look_at(process: psutil.Process, run_folder: Path) -> Iterator[Look]:
    """The run as it is now; nothing before its first validation."""
    records = read_records(run_folder)
    steps = max((step for mode, step in records if mode == "val"), default=0)
    if steps:
        times = process.cpu_times()
        handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        memory_mib, children = process.memory_info().rss / 2**20, len(process.children(recursive=True))
        yield Look(time.monotonic(), times.user + times.system, memory_mib, handles, process.num_threads(), children, steps)


def read_records(run_folder: Path) -> list[tuple[str, int]]:
    """Mode and step of each whole line of ``metrics.jsonl``."""
    path = run_folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [(line["mode"], line["step"]) for line in map(json.loads, (text for text in lines if text.endswith("\n")))]


def first_validation(run_folder: Path) -> int:
    """Steps of an epoch: those before the first validation."""
    steps = [step for mode, step in read_records(run_folder) if mode == "val"]
    if not steps:
        raise click.ClickException("the run came to no validation; give it more --minutes")
    return min(steps)


def logged_scalars(run_folder: Path) -> list[tuple[str, int]]:
    """Mode and step of each loss in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: list[tuple[str, int]] = []
    for mode in ("train", "val"):
        events = EventAccumulator(str(run_folder / mode), size_guidance={"scalars": 0, "images": 1}).Reload()
        found += [(mode, event.step) for event in events.Scalars("loss")]
    return found


def log_faults(records: Sequence[tuple[str, int]], scalars: Sequence[tuple[str, int]], done_steps: int, steps_per_epoch: int) -> list[str]:
    """What the logs lack or hold twice of a run of so many steps."""
    from engine.training.log import is_log_step

    train = [("train", step) for step in range(done_steps) if is_log_step(step % steps_per_epoch, step, log_frequency=LOG_FREQUENCY)]
    ends = [("val", step) for step in range(steps_per_epoch, done_steps, steps_per_epoch)]
    # A stop in the last step of an epoch, or while that is validated, leaves the validation out; one right after it does not.
    perhaps = [("val", done_steps)] if done_steps % steps_per_epoch == 0 else []
    faults = []
    for name, found in (("metrics.jsonl", records), ("TensorBoard's files", scalars)):
        counts = Counter(found)
        lacks = [key for key in train + ends if not counts[key]]
        twice = [key for key, count in counts.items() if count > 1]
        alien = counts.keys() - {*train, *ends, *perhaps}
        for what, keys in (("lack", lacks), ("hold twice", twice), ("hold, of no step that is logged,", sorted(alien))):
            if keys:
                faults.append(f"{name} {what} {len(keys)} records, such as {keys[0][0]} {keys[0][1]}")
    return faults


def halves(looks: Sequence[Look]) -> dict[str, dict[str, float]]:
    """Each row's value in both halves of the time after the warm-up, and the most that was seen in it."""
    kept = looks[int(len(looks) * WARM_UP_SHARE) :]
    middle = len(kept) // 2
    parts = kept[:middle], kept[middle:]
    if any(len({look.steps for look in part}) < 3 for part in parts):
        raise click.ClickException("too few epochs were seen to compare; give it more --minutes")
    rows = {}
    for field in ("memory_mib", "handles", "threads", "children"):
        first, second = (median(getattr(look, field) for look in part) for part in parts)
        rows[ROWS[field]] = {"first": first, "second": second, "most": max(getattr(look, field) for look in kept)}
    of_core, of_clock = zip(*(_pace(part) for part in parts), strict=True)
    rows[ROWS["core_ms"]] = {"first": of_core[0], "second": of_core[1], "most": max(of_core)}
    rows[ROWS["steps_per_s"]] = {"first": of_clock[0], "second": of_clock[1], "most": max(of_clock)}
    return rows


def _pace(part: Sequence[Look]) -> tuple[float, float]:
    """Milliseconds of a core per step, and steps per second, from the first end of an epoch that was seen to the last."""
    ends = [now for before, now in pairwise(part) if now.steps > before.steps]
    first, last = ends[0], ends[-1]
    steps = last.steps - first.steps
    return 1e3 * (last.core_s - first.core_s) / steps, steps / (last.time_s - first.time_s)


def growth_faults(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The rows that grew beyond their limits; steps per second depend on what else the machine does, and have none."""

    def allowed(name: str, first: float) -> float:
        if name == ROWS["memory_mib"]:
            return first * (1 + MEMORY_SHARE) + MEMORY_MIB
        more = {ROWS["handles"]: HANDLES, ROWS["threads"]: THREADS, ROWS["children"]: 0}
        return first + more[name] if name in more else first * SLOWER

    return [
        f"{name}: from {values['first']:.1f} to {values['second']:.1f}, at most {allowed(name, values['first']):.1f} is allowed"
        for name, values in rows.items()
        if name != ROWS["steps_per_s"] and values["second"] > allowed(name, values["first"])
    ]


if __name__ == "__main__":
    main()
