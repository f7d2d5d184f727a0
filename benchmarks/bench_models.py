"""The released models: size, arithmetic, and time of a prediction on this machine's CPU, beside their published scores:
``python -m benchmarks.bench_models``.

Time and arithmetic depend on the encoder and the input's size alone, so random weights of the same shapes serve, and models that share
both share their figures. Every way of predicting is a process of its own, as in ``bench_inference``. The scores are published ones.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_inference import Report, Setting, measure
from benchmarks.harness import save
from benchmarks.inference_process import Task, start
from benchmarks.inference_rows import CHECKPOINT, ONNX_FILE, PLAIN, Models, depth_network, random_inputs
from dataload.system.machine import usable_cores
from engine.released import RELEASED, SOURCE, ReleasedModel

FIGURES = {CHECKPOINT: "torch_ms", ONNX_FILE: "onnx_ms"}


class Kind(NamedTuple):
    """What the time of a model depends on."""

    num_layers: int
    size_px: tuple[int, int]


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Of every way, in turn, at 640x192; fewer of larger inputs.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_models.json.")
def main(rounds: int, save_result: bool) -> None:
    """Times the prediction of one image by each kind of released model, as md-predict runs a checkpoint and an ONNX file, in fp32."""
    report = Report()
    kinds = dict.fromkeys(Kind(model.num_layers, model.size_px) for model in RELEASED.values())
    with TemporaryDirectory() as name:
        figures = {kind: measure_kind(report, kind, Path(name) / title_of(kind), rounds=rounds) for kind in kinds}
    if report.faults or report.missing:
        raise click.ClickException("\n".join(f"{way}: {why}" for way, why in (report.faults | report.missing).items()))
    rows = {model.name: row_of(model, figures[Kind(model.num_layers, model.size_px)]) for model in RELEASED.values()}
    if save_result:
        setting: dict[str, Any] = {"batch_size": 1, "threads": usable_cores(), "onnxruntime": onnxruntime.__version__, "abs_rel": SOURCE}
        click.echo(f"wrote {save('bench_models', {'setting': setting, 'rows': rows})}")


def title_of(kind: Kind) -> str:
    """A kind in words."""
    return f"ResNet-{kind.num_layers}, {kind.size_px[1]}x{kind.size_px[0]}"


def measure_kind(report: Report, kind: Kind, folder: Path, *, rounds: int) -> dict[str, float]:
    """Size and arithmetic of a kind, and milliseconds per image by each way."""
    network = depth_network(kind.size_px, kind.num_layers)
    Models(network, random_inputs(1, kind.size_px), folder).path("fp32")

    def start_way(name: str) -> Any:
        return start(Task(name, kind.size_px, 1, folder, gpu=False, num_layers=kind.num_layers))

    setting = Setting(f"{title_of(kind)}: ", kind.size_px, 1, False, [PLAIN, *FIGURES], start_way)
    measure(report, setting, rounds=rounds)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, *kind.size_px))
    timed = {key: report.rows[setting.title + way]["ms"] for way, key in FIGURES.items() if setting.title + way in report.rows}
    return {"parameters_m": sum(p.numel() for p in network.parameters()) / 1e6, "gflops": counter.get_total_flops() / 1e9} | timed


def row_of(model: ReleasedModel, figures: dict[str, float]) -> dict[str, Any]:
    """What the table shows of a model."""
    scores = {"abs_rel": model.abs_rel} if model.abs_rel is not None else {}
    return {"encoder": f"ResNet-{model.num_layers}", "input": f"{model.size_px[1]}x{model.size_px[0]}", **figures, **scores}


if __name__ == "__main__":
    main()
