"""Operators of one training step and the bytes they read and write, ours beside a plain one; nothing is computed, so no GPU is needed:
``python -m benchmarks.bench_traffic``.

Counted on tensors without data, on the path that a GPU takes, operator by operator as torch runs it uncompiled: the compiler fuses what
remains. ``benchmarks.traffic`` says what counts how, ``engine.training.without_data`` how bf16 is modelled. Adam counts as one fused kernel
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import torch
from torch import Tensor, nn

from benchmarks.harness import save
from benchmarks.plain_step import PlainStep, plain_inputs
from benchmarks.step_inputs import as_leaves, default_config, random_batch, tensors, to_device, torch_loss
from benchmarks.traffic import Tally, Traffic, fused_adam
from dataload.batch import Batch
from engine.loss.objective import Predictions
from engine.networks import Networks
from engine.training.build import make_networks, make_step
from engine.training.config import TrainConfig
from engine.training.without_data import CudaAutocast, on_meta

DEPTH, POSE, LOSS = "depth network", "pose network", "loss"
LOSS_BACKWARD, NETWORKS_BACKWARD = "loss, backward", "networks, backward"
ADAM, TOGETHER = "Adam", "together"
SECTIONS = (DEPTH, POSE, LOSS, LOSS_BACKWARD, NETWORKS_BACKWARD, ADAM)
Sections = dict[str, Tally]


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=12, show_default=True)
@click.option("--num_layers", default=18, show_default=True, help="ResNet of the depth and pose encoders.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_traffic.json, which a test holds later steps to.")
def main(height_px: int, width_px: int, batch_size: int, num_layers: int, save_result: bool) -> None:
    """Counts forward, loss, backward and Adam of the default mono objective."""
    ways = count(batch_size, (height_px, width_px), num_layers)
    click.echo(f"{width_px}x{height_px}, 3 frames, batch {batch_size}, ResNet-{num_layers}: operators and GB of a step")
    click.echo(f"{'':<20}" + "".join(f"{way:>20}" for way in ways))
    rows = to_rows(ways)
    for section, values in rows.items():
        cells = "".join(f"{values[f'{way}_operators']:>12.0f}{values[f'{way}_gb']:>8.2f}" for way in ways)
        click.echo(f"{section:<20}{cells}")
    if save_result:
        setting = {"size_px": [height_px, width_px], "batch_size": batch_size, "num_layers": num_layers}
        click.echo(f"wrote {save('bench_traffic', {'setting': setting, 'rows': rows})}")


def to_rows(ways: dict[str, Sections]) -> dict[str, dict[str, float]]:
    """A row per section and one for all of them: each way's operators and GB."""
    rows: dict[str, dict[str, float]] = {}
    for section in (*SECTIONS, TOGETHER):
        rows[section] = {}
        for way, sections in ways.items():
            tally = sections[section] if section != TOGETHER else sum(sections.values(), Tally(0, 0))
            rows[section] |= {f"{way}_operators": tally.operators, f"{way}_gb": tally.bytes / 1e9}
    return rows


def count(batch_size: int, size_px: tuple[int, int], num_layers: int) -> dict[str, Sections]:
    """By way of making a step, what each of its sections counts: plain in fp32; ours by torch's losses; ours with the fused loss."""
    batch, config = to_device(random_batch(batch_size, size_px), torch.device("meta")), default_config(num_layers=num_layers)
    with on_meta(), torch.device("meta"):
        return {
            "plain": count_plain(make_networks(config), batch, size_px),
            "torch": count_ours(config, batch, fused=False),
            "fused": count_ours(config, batch, fused=True),
        }


def count_plain(networks: Networks, batch: Batch, size_px: tuple[int, int]) -> Sections:
    """The step as it is commonly written."""
    step = PlainStep(networks, batch_size=len(batch.K), size_px=size_px)
    inputs = plain_inputs(batch)
    return sections(networks, step.depth, lambda: step.predict(inputs), lambda predictions: step.loss(predictions, inputs))


def count_ours(config: TrainConfig, batch: Batch, *, fused: bool) -> Sections:
    """Our step as a GPU runs it, in bf16."""
    networks = make_networks(config).to(memory_format=torch.channels_last)
    step = make_step(config, networks, torch.bfloat16)
    if fused and not step.objective.fuses(batch.K.device):
        raise click.ClickException("the fused loss needs Triton, also to be counted; pip install triton")

    def predict() -> Predictions:
        with CudaAutocast():
            return step.predict(batch)

    def loss(predictions: Predictions) -> Tensor:
        return step.objective(predictions, batch, step.noise_seed).loss if fused else torch_loss(step.objective, predictions, batch)

    return sections(networks, networks.depth, predict, loss)


def sections(networks: Networks, depth: nn.Module, predict: Callable[[], Predictions], loss: Callable[[Predictions], Tensor]) -> Sections:
    """What one update counts, section by section; ``depth`` is what ``predict`` calls last before it turns to the motions."""
    traffic = Traffic()
    hook = depth.register_forward_hook(lambda *_: traffic.enter(POSE))
    with traffic:
        traffic.enter(DEPTH)
        predictions = predict()
        traffic.enter(LOSS)
        leaves = as_leaves(predictions)
        value = loss(leaves)
        traffic.enter(LOSS_BACKWARD)
        gradients = torch.autograd.grad(value, tensors(leaves))
        traffic.enter(NETWORKS_BACKWARD)
        torch.autograd.backward(tensors(predictions), gradients)
    hook.remove()
    traffic.tallies[ADAM] = fused_adam(networks.parameters())
    return dict(traffic.tallies)


if __name__ == "__main__":
    main()
