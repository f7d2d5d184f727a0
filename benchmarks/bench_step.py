"""Training steps per second, ours beside plain ones on the same weights and samples: ``python -m benchmarks.bench_step``.

Every row's loss is compared with the plain fp32 one's, before it is timed and after. fp32 rows compute in the same arithmetic, torch's
default, which the result names: on most GPUs it is TF32 in convolutions. As in our training, cuDNN seeks the fastest way of each
convolution, for the plain rows too. On a GPU the kernels that take longest are kept with the figures.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import click
import torch
from torch import Tensor

from benchmarks.harness import (
    LOSS_FLOOR_MS,
    STEP_FLOOR_MS,
    Timing,
    fp32_convolutions,
    gpu_device,
    has_floor,
    rates,
    save,
    time_side_by_side,
)
from benchmarks.profiles import Kernel, top_kernels
from benchmarks.step_inputs import default_config, random_batch, to_device
from benchmarks.step_rows import Row, Way, losses, whole_steps
from engine.training.build import make_networks

Figures = dict[str, dict[str, float]]
HEADINGS = {
    "samples_per_s": "samples/s",
    "slowest_samples_per_s": "slowest",
    "fastest_samples_per_s": "fastest",
    "times_plain": "x plain",
    "ms": "ms",
    "floor_share": "of floor",
    "peak_gib": "peak GiB",
    "ready_s": "ready in s",
}


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=None, type=int, help="[default: 4, on a GPU 12]")
@click.option("--num_layers", default=18, show_default=True, help="ResNet of the depth and pose encoders.")
@click.option("--threads", default=None, type=int, help="CPU threads [default: torch's choice].")
@click.option(
    "--rounds", default=7, show_default=True, help="Rounds of every row, in turn, after it is warmed up: one step each, on a GPU ten."
)
@click.option("--compile", "compiled", is_flag=True, help="Add the compiled plain rows on a CPU, where they take minutes to compile.")
@click.option("--gpu", is_flag=True, help="On the GPU.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_step.json, or bench_step_gpu.json.")
def main(
    height_px: int,
    width_px: int,
    batch_size: int | None,
    num_layers: int,
    threads: int | None,
    rounds: int,
    compiled: bool,
    gpu: bool,
    save_result: bool,
) -> None:
    """Times whole updates (forward, backward, Adam) of the default mono objective and its loss alone, inputs on the device.

    A way that cannot run here, or gives another loss, is named, and the others are timed all the same (exit status 1).
    """
    device, size_px = gpu_device() if gpu else torch.device("cpu"), (height_px, width_px)
    torch.backends.cudnn.benchmark = True
    batch_size = batch_size or (12 if gpu else 4)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    networks = make_networks(default_config(num_layers=num_layers)).to(device)
    batch = to_device(random_batch(batch_size, size_px), device)
    floor = has_floor(size_px, batch_size, num_layers)
    click.echo(f"{width_px}x{height_px}, 3 frames, batch {batch_size}, ResNet-{num_layers}, {torch.get_num_threads()} threads")
    compiled = compiled or gpu
    setting = {"size_px": list(size_px), "batch_size": batch_size, "num_layers": num_layers, "threads": torch.get_num_threads()}
    setting |= {"fp32_convolutions": fp32_convolutions(device)} if gpu else {}
    faults: dict[str, str] = {}
    figures: Figures = {}
    profiles: dict[str, list[Kernel]] = {}

    def keep() -> None:
        result = {"setting": setting, "rows": figures} | ({"profiles": profiles} if gpu else {})
        if save_result:
            click.echo(f"wrote {save('bench_step_gpu' if gpu else 'bench_step', result)}")

    # The losses first: they compile in less time, and are kept should the whole steps take too long.
    alone = losses(networks, batch, size_px, compiled=compiled)
    steps = whole_steps(networks, batch, size_px, num_layers, compiled=compiled)
    for heading, ways, floor_ms in (("loss alone", alone, LOSS_FLOOR_MS), ("training step", steps, STEP_FLOOR_MS)):
        rows, timings = measure(ways, device, rounds=rounds, faults=faults)
        plain = timings[next(iter(ways))]
        found = {name: figures_of(row, timings[name], plain, batch_size, floor_ms if floor else None) for name, row in rows.items()}
        show(heading, found)
        figures = found | figures
        keep()
        if gpu:
            name, row = list(rows.items())[-1]
            profiles[name] = top_kernels(row, runs=row.steps, device=device)
            keep()
    if faults:
        raise click.ClickException("not timed:\n" + "\n".join(f"{name}: {fault}" for name, fault in faults.items()))


def measure(
    ways: Mapping[str, Way], device: torch.device, *, rounds: int, faults: dict[str, str]
) -> tuple[dict[str, Row], dict[str, Timing]]:
    """The rows, and the timings, of every way whose loss is the first's, the plain one's; what is wrong with the others: ``faults``."""
    (plain, way), *others = ways.items()
    made = make_row(way, device)
    if isinstance(made, str):
        raise click.ClickException(f"{plain}: {made}")
    rows = {plain: made}
    for name, way in others:
        row = make_row(way, device, rows[plain])
        if isinstance(row, str):
            faults[name] = row
        else:
            rows[name] = row
    timings = time_side_by_side(rows, rounds=rounds, warmup_rounds=0)
    for name in timings:
        fault = disagreement(rows[name].loss, rows[plain].loss, ways[name].agreement)
        if fault:
            faults[name] = f"{fault} after {rounds} rounds"
            del rows[name]
    return rows, timings


def make_row(way: Way, device: torch.device, plain: Row | None = None) -> Row | str:
    """The row, its loss and its arithmetic the plain row's; or what is wrong with it, in a line."""
    # Compilers fail in many ways, and none of them keeps the other rows from being timed.
    try:
        row = Row(way, device)
    except Exception as error:
        traceback.print_exc()
        return (str(error).strip() or repr(error)).splitlines()[0]
    if plain is None:
        return row
    if row.convolutions != plain.convolutions:
        return f"it has set fp32 convolutions to {row.convolutions}, the plain ones are in {plain.convolutions}"
    return disagreement(row.loss, plain.loss, way.agreement) or row


def disagreement(ours: Tensor, plain: Tensor, agreement: float) -> str | None:
    """What to say unless both losses are the same but for the share ``agreement``; a loss that is no number never is."""
    if abs(ours.item() - plain.item()) <= agreement * plain.item():
        return None
    return f"its loss is {ours.item():.7f}, the plain fp32 one {plain.item():.7f}"


def figures_of(row: Row, timing: Timing, plain: Timing, batch_size: int, floor_ms: float | None) -> dict[str, float]:
    """What one row is worth, by the keys of ``HEADINGS`` that apply."""
    ms = 1e3 * timing.median_s / row.steps
    result = {"n": timing.n * row.steps, **rates(timing, batch_size * row.steps, plain), "ms": ms}
    if floor_ms is not None:
        result["floor_share"] = floor_ms / ms
    if row.peak_gib is not None:
        result["peak_gib"] = row.peak_gib
    return result | {"ready_s": row.ready_s}


def show(heading: str, rows: Figures) -> None:
    """The rows as a table."""
    shown = [key for key in HEADINGS if any(key in values for values in rows.values())]
    click.echo(f"{heading:<44}" + "".join(f"{HEADINGS[key]:>11}" for key in shown))
    for name, values in rows.items():
        click.echo(f"{name:<44}" + "".join(f"{values[key]:>11.2f}" for key in shown))


if __name__ == "__main__":
    main()
