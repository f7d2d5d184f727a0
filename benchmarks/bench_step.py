"""Training steps a second, ours beside a plain one on the same weights and samples: ``python -m benchmarks.bench_step``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import click
import torch
from torch import nn

from benchmarks.harness import rates, require_cuda, save, time_side_by_side
from benchmarks.plain_step import PlainInputs, PlainStep, plain_inputs
from dataload.batch import Batch
from engine.networks import Networks, build_networks
from engine.precision import autocast_dtype, grad_scaler
from engine.step import TrainStep

LEARNING_RATE = 1e-4
# The two losses are the same sums in another order.
AGREEMENT = 1e-4


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=None, type=int, help="[default: 4, on a GPU 12]")
@click.option("--num_layers", default=18, show_default=True, help="ResNet of the depth and pose encoders.")
@click.option("--threads", default=None, type=int, help="CPU threads [default: torch's choice].")
@click.option("--rounds", default=7, show_default=True, help="Steps of every row, in turn, after one to warm up.")
@click.option("--compile", "with_compiled", is_flag=True, help="Add a row for the compiled step.")
@click.option("--gpu", is_flag=True, help="On the GPU.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_step.json, or bench_step_gpu.json.")
def main(
    height_px: int,
    width_px: int,
    batch_size: int | None,
    num_layers: int,
    threads: int | None,
    rounds: int,
    with_compiled: bool,
    gpu: bool,
    save_result: bool,
) -> None:
    """Times whole updates (forward, backward, Adam) of the default mono objective, inputs on the device."""
    if gpu:
        require_cuda()
    batch_size = batch_size or (12 if gpu else 4)
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if gpu else "cpu")
    torch.manual_seed(0)
    networks = build_networks(num_layers=num_layers).to(device)
    batch = to_device(random_batch(batch_size, (height_px, width_px)), device)
    check_agreement(networks, batch, (height_px, width_px))
    runs = updates(networks, batch, (height_px, width_px), with_compiled=with_compiled)
    timings = time_side_by_side(runs, rounds=rounds)
    plain = timings["plain fp32"]
    click.echo(
        f"{width_px}x{height_px}, 3 frames, batch {batch_size}, ResNet-{num_layers}, {torch.get_num_threads()} threads, {plain.n} steps"
    )
    click.echo(f"{'step':<24}{'samples/s':>10}{'slowest':>10}{'fastest':>10}{'x plain':>10}")
    rows = {name: rates(timing, batch_size, plain) for name, timing in timings.items()}
    for name, values in rows.items():
        click.echo(f"{name:<24}" + "".join(f"{value:>10.2f}" for value in values.values()))
    if save_result:
        setting = {"size_px": [height_px, width_px], "batch_size": batch_size, "num_layers": num_layers, "threads": torch.get_num_threads()}
        result = {"setting": setting, "rows": {name: {"n": timings[name].n, **values} for name, values in rows.items()}}
        click.echo(f"wrote {save('bench_step_gpu' if gpu else 'bench_step', result)}")


def random_batch(batch_size: int, size_px: tuple[int, int]) -> Batch:
    """Smooth random frames of a scene that slides sideways, channels last in memory as the loader ships them."""
    height_px, width_px = size_px
    noise = torch.rand(batch_size, 3, height_px // 8, width_px // 8 + 2)
    scene = nn.functional.interpolate(noise, scale_factor=8, mode="bilinear")

    def frame(offset_px: int, level: int = 0) -> torch.Tensor:
        view = scene[..., 8 + offset_px : 8 + offset_px + width_px]
        scaled = nn.functional.interpolate(view, (height_px >> level, width_px >> level), mode="area")
        return (255 * scaled).to(torch.uint8).contiguous(memory_format=torch.channels_last)

    K = torch.tensor([[0.58 * width_px, 0, 0.5 * width_px], [0, 1.92 * height_px, 0.5 * height_px], [0, 0, 1]])
    sources = torch.stack([frame(-3), frame(3)], dim=1)
    return Batch(
        target=tuple(frame(0, level) for level in range(4)),
        sources=(sources,),
        target_input=frame(0),
        source_inputs=sources.clone(),
        K=K.repeat(batch_size, 1, 1),
        T_stereo=torch.eye(4).repeat(batch_size, 1, 1),
        indices=torch.arange(batch_size),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    moved = [tuple(p.to(device) for p in part) if isinstance(part, tuple) else part.to(device) for part in batch]
    return Batch._make(moved)


def check_agreement(networks: Networks, batch: Batch, size_px: tuple[int, int]) -> None:
    """Raise unless both steps give the same loss on the same weights."""
    with torch.no_grad():
        ours = TrainStep(copy.deepcopy(networks), frame_ids=(0, -1, 1), use_stereo=False, noise=0.0)(batch).loss.item()
        plain = PlainStep(copy.deepcopy(networks), batch_size=len(batch.K), size_px=size_px, noise=0.0).to(batch.K.device)
        theirs = plain(plain_inputs(batch)).item()
    if abs(ours - theirs) > AGREEMENT * theirs:
        raise AssertionError(f"the steps disagree: ours {ours:.7f}, plain {theirs:.7f}")


def updates(networks: Networks, batch: Batch, size_px: tuple[int, int], *, with_compiled: bool) -> dict[str, Callable[[], None]]:
    """By name: a callable that makes one update, each on its own copy of the networks."""
    device = batch.K.device
    dtype = autocast_dtype("auto", device)
    best = f"ours {'fp32' if dtype is None else str(dtype).removeprefix('torch.')} --amp auto"
    runs = {
        "plain fp32": _plain_update(copy.deepcopy(networks), plain_inputs(batch), size_px),
        "ours fp32": _our_update(copy.deepcopy(networks), batch, None, compiled=False),
        best: _our_update(copy.deepcopy(networks), batch, dtype, compiled=False),
    }
    if with_compiled:
        runs[f"{best}, compiled"] = _our_update(copy.deepcopy(networks), batch, dtype, compiled=True)
    return runs


def _plain_update(networks: Networks, inputs: PlainInputs, size_px: tuple[int, int]) -> Callable[[], None]:
    step = PlainStep(networks, batch_size=len(inputs.target_input), size_px=size_px).to(inputs.target_input.device)
    optimizer = torch.optim.Adam(networks.parameters(), LEARNING_RATE)

    def update() -> None:
        optimizer.zero_grad()
        step(inputs).backward()
        optimizer.step()
        _wait()

    return update


def _our_update(networks: Networks, batch: Batch, dtype: torch.dtype | None, *, compiled: bool) -> Callable[[], None]:
    networks = networks.to(memory_format=torch.channels_last)
    step = TrainStep(networks, frame_ids=(0, -1, 1), use_stereo=False, autocast_dtype=dtype)
    if compiled:
        step.compile(fullgraph=True)
    optimizer = torch.optim.Adam(networks.parameters(), LEARNING_RATE, fused=True)
    scaler = grad_scaler(dtype, batch.K.device)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(step(batch).loss).backward()
        scaler.step(optimizer)
        scaler.update()
        _wait()

    return update


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
