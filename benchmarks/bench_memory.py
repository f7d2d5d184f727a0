"""The memory that a training step holds on a GPU, counted; nothing is computed, so no GPU is needed: ``python -m benchmarks.bench_memory``.

Real updates of md-train run on tensors without data, on the path that a GPU takes, in bf16 and uncompiled; every tensor counts from the
operator that makes it until it is freed. ``engine.training.live_memory`` says what is not counted, ``without_data`` how bf16 is modelled.
"""

from __future__ import annotations

from typing import Any

import click

from benchmarks.harness import save
from benchmarks.step_inputs import default_config
from engine.training.live_memory import PEAK, update_bytes_on_gpu

GIB = 2**30
# The published trainings: which frames a step compares.
TRAININGS: dict[str, dict[str, Any]] = {
    "M": {},
    "S": {"frame_ids": (0,), "use_stereo": True},
    "MS": {"use_stereo": True},
}
# What saves memory, by the option as it is given.
SAVING: dict[str, dict[str, Any]] = {
    "": {},
    "--checkpoint_activations": {"checkpoint_activations": True},
    "--grad_accumulation 2": {"grad_accumulation": 2},
    "--checkpoint_activations --grad_accumulation 2": {"checkpoint_activations": True, "grad_accumulation": 2},
}
ENCODERS = (18, 50)
KINDS = ("parameters", "adam", "gradients", "batch", "activations")


@click.command()
@click.option("--height", "height_px", default=192, show_default=True, metavar="PX")
@click.option("--width", "width_px", default=640, show_default=True, metavar="PX")
@click.option("--batch_size", default=12, show_default=True)
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/bench_memory.json.")
def main(height_px: int, width_px: int, batch_size: int, save_result: bool) -> None:
    """Counts the most memory that an update of each published training holds at once, and what it consists of."""
    rows = {}
    click.echo(f"{width_px}x{height_px}, batch {batch_size}: GiB at the peak\n{'':<64}" + "".join(f"{kind:>13}" for kind in (*KINDS, PEAK)))
    for training, frames in TRAININGS.items():
        for num_layers in ENCODERS:
            for words, options in SAVING.items():
                name = f"{training}, ResNet-{num_layers}{f', `{words}`' if words else ''}"
                size = {"height_px": height_px, "width_px": width_px, "batch_size": batch_size}
                rows[name] = {f"{kind}_gib": held / GIB for kind, held in count(num_layers=num_layers, **size, **frames, **options).items()}
                click.echo(f"{name:<64}" + "".join(f"{value:>13.2f}" for value in rows[name].values()))
    if save_result:
        setting = {"size_px": [height_px, width_px], "batch_size": batch_size, "precision": "bf16"}
        click.echo(f"wrote {save('bench_memory', {'setting': setting, 'rows': rows})}")


def count(**options: Any) -> dict[str, int]:
    """Bytes at the peak of an update on a GPU by kind, and together; ``options`` change md-train's defaults."""
    return update_bytes_on_gpu(default_config(amp="bf16", **options))


if __name__ == "__main__":
    main()
