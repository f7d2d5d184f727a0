"""The accuracy that speed costs: the demo's training as md-train runs it and by the plain path, for several seeds, scored on the unseen
streets: ``python -m benchmarks.demo_seeds``. Meant for a GPU, where md-train compiles, captures and fuses."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from unittest.mock import patch

import click

from benchmarks.demo import TRAINING, run
from benchmarks.harness import save

OURS, PLAIN = "as md-train runs it", "fp32, not compiled, torch's losses"
# Options of the plain path; that its losses are torch's is no option.
PLAIN_OPTIONS = "--amp off --no_compile --no_cuda_graph"
SHOWN = ("abs_rel", "rmse", "a1")
Scores = dict[str, float]


@click.command()
@click.option("--seeds", "num_seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each path.")
@click.option("--options", default="", metavar="'OPTIONS'", help="Further options of every md-train.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/demo_seeds.json.")
def main(num_seeds: int, options: str, save_result: bool) -> None:
    """Compares the scores of both paths: equal if their means differ by less than twice what one seed deviates."""
    from dataload.demo.world import ensure

    ensure()
    with TemporaryDirectory() as folder:
        scores = {
            OURS: [train_and_score(Path(folder), f"ours_{seed}", f"--seed {seed} {options}") for seed in range(num_seeds)],
            PLAIN: [train_and_score_plainly(Path(folder), f"plain_{seed}", f"--seed {seed} {options}") for seed in range(num_seeds)],
        }
    rows = {path: summary(of_seeds) for path, of_seeds in scores.items()}
    click.echo(f"\n{f'{num_seeds} seeds, mean and standard deviation':<44}" + "".join(f"{name:>18}" for name in SHOWN))
    for path, values in rows.items():
        click.echo(f"{path:<44}" + "".join(f"{values[name]:>10.4f}{values[f'{name}_deviation']:>8.4f}" for name in SHOWN))
    for name in SHOWN:
        click.echo(f"{name}: " + ("equal within the seeds' spread" if equal(rows, name) else "DIFFERENT"))
    if save_result:
        click.echo(f"wrote {save('demo_seeds', {'setting': {'seeds': num_seeds}, 'rows': rows})}")


def train_and_score(folder: Path, name: str, options: str, *, training: str = TRAINING, eval_split: str | Path = "demo") -> Scores:
    """Train once and score on the test streets."""
    run(f"md-train {training} --log_dir {folder} --model_name {name} {options}")
    kept = folder / f"{name}.json"
    run(f"md-eval --dataset demo --eval_split {eval_split} --load_weights_folder {folder / name} --eval_mono --json {kept}")
    scores = json.loads(kept.read_text(encoding="utf-8"))["models"][0]
    return {metric: scores[metric] for metric in SHOWN}


def train_and_score_plainly(folder: Path, name: str, options: str) -> Scores:
    """As ``train_and_score``, by the plain path."""
    from engine.loss.objective import Objective

    with patch.object(Objective, "fuses", lambda *_: False):
        return train_and_score(folder, name, f"{PLAIN_OPTIONS} {options}")


def summary(of_seeds: list[Scores]) -> Scores:
    """Mean and standard deviation over seeds of every metric shown."""
    result = {name: fmean(scores[name] for scores in of_seeds) for name in SHOWN}
    return result | {f"{name}_deviation": stdev(scores[name] for scores in of_seeds) for name in SHOWN}


def equal(rows: dict[str, Scores], name: str) -> bool:
    """Whether the paths' means of a metric differ by no more than twice the standard deviation over seeds, both paths' taken together."""
    deviation = fmean(values[f"{name}_deviation"] ** 2 for values in rows.values()) ** 0.5
    return abs(rows[OURS][name] - rows[PLAIN][name]) <= 2 * deviation


if __name__ == "__main__":
    main()
