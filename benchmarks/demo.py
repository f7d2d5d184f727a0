"""The demo: render a street, train on it from scratch, score it on a street never seen, and show it. ``make demo`` runs this."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

if TYPE_CHECKING:
    from engine.evaluation.scores import Scores

HEIGHT_PX, WIDTH_PX = 96, 320
TRAINING = (
    "--dataset demo --frame_ids 0 --use_stereo --weights_init scratch --initial_depth 11 --learning_rate 5e-4 "
    f"--height {HEIGHT_PX} --width {WIDTH_PX} --batch_size 8 --num_epochs 3 --scheduler_step_size 2"
)
SHOWN = 6


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="Folder of runs and pictures.")
@click.option("--save", is_flag=True, help="Keep the scores as benchmarks/results/demo.json and the picture as docs/demo.jpg.")
def main(out: Path, save: bool) -> None:
    """Render the demo world, train a stereo model on it from scratch, evaluate it on unseen streets, and draw what it sees."""
    from dataload.demo.world import default_folder, ensure, split_folder

    started_s = time.monotonic()
    world = ensure()
    click.echo(f"The demo's streets lie in {default_folder()}")
    name = _free_name(out)
    run_folder = out / name
    training_started_s = time.monotonic()
    run(f"md-train {TRAINING} --log_dir {out} --model_name {name}")
    training_s = time.monotonic() - training_started_s
    kept = f"--json {run_folder / 'scores.json'} --report {run_folder / 'report'}"
    run(f"md-eval --dataset demo --eval_split demo --load_weights_folder {run_folder} --eval_mono {kept}")
    scores = {
        "trained": json.loads((run_folder / "scores.json").read_text())["models"][0],
        "untrained network": untrained_scores(run_folder),
        "best depth per image row": prior_scores(world, split_folder(world)),
    }
    print_scores(scores)
    pictures = draw(world, split_folder(world), run_folder)
    click.echo(f"\nLook at  {pictures}\nReport   {run_folder / 'report' / 'index.html'}")
    click.echo(f"Curves   tensorboard --logdir {out}\nPredict  md-predict --image PHOTO --model {run_folder}")
    click.echo(f"Browser  md-export --load_weights_folder {run_folder} --target web --out {run_folder / 'page'}")
    click.echo(f"Training {training_s:.0f} s of {time.monotonic() - started_s:.0f} s in all")
    if save:
        keep(scores, training_s, pictures)


def _free_name(out: Path) -> str:
    number = 1
    while (out / f"street_{number}").exists():
        number += 1
    return f"street_{number}"


def run(line: str) -> None:
    """Run one of the commands as a user would, showing its line."""
    from engine.commands.md_eval import md_eval
    from engine.commands.md_train import md_train

    click.echo(f"\n$ {line}")
    name, *arguments = line.split()
    {"md-train": md_train, "md-eval": md_eval}[name].main(arguments, prog_name=name, standalone_mode=False)


def untrained_scores(run_folder: Path) -> dict[str, Any]:
    """What the networks scored before their first step: the same seed, no update."""
    import torch

    from dataload.datasets.kitti import KITTI_METRIC_FACTOR
    from engine.commands.md_train import md_train
    from engine.evaluation.config import EvalConfig
    from engine.evaluation.run import prepare, score_subjects
    from engine.training.build import build_engine
    from engine.training.config import TrainConfig
    from engine.weights import InputSize, save_weights

    page = md_train.make_context("md-train", TRAINING.split())
    # The page has options of its own, which are none of a config's.
    given = {name: value for name, value in page.params.items() if page.get_parameter_source(name) is not ParameterSource.DEFAULT}
    config = TrainConfig.from_options(**given)
    engine = build_engine(config, torch.device("cpu"), metric_factor=KITTI_METRIC_FACTOR)
    folder = run_folder / "untrained"
    save_weights(folder, engine.networks, InputSize(HEIGHT_PX, WIDTH_PX, True))
    evaluated = EvalConfig.from_options(dataset="demo", eval_split="demo", load_weights_folder=folder, eval_mono=True, no_cuda=True)
    (untrained,) = score_subjects(prepare(evaluated))
    return flat(untrained.scores)


def flat(scores: Scores) -> dict[str, Any]:
    """The means by name, and of how many images."""
    return {**scores.means, "num_images": scores.num_images}


def prior_scores(world: Path, splits_folder: Path) -> dict[str, Any]:
    """What the median depth of each image row of the training streets scores."""
    from dataload.datasets.demo import Demo
    from dataload.ground_truth import lazy_ground_truth
    from engine.evaluation.baselines import predict_prior, row_median_prior
    from engine.evaluation.scoring import score

    dataset = Demo(world, ".jpg")
    train, test = (dataset.read(str(splits_folder), subset) for subset in ("train", "test"))
    prior = row_median_prior([dataset.eval_depth_m(ref) for ref in train[::4]], HEIGHT_PX)
    return flat(score([predict_prior(prior, len(test))], lazy_ground_truth(dataset, test)))


def print_scores(scores: dict[str, dict[str, Any]]) -> None:
    """The table a reader compares: trained, untrained, and the prior that needs no image."""
    from engine.evaluation.metrics import METRICS

    click.echo("\nTest streets, none of them trained on, median scaled (abs_rel to rmse_log: lower is better)")
    click.echo(f"{'':>20}" + "".join(f"{name:>10}" for name in METRICS))
    for name, values in scores.items():
        click.echo(f"{name:>20}" + "".join(f"{values[metric]:10.3f}" for metric in METRICS))


def draw(world: Path, splits_folder: Path, run_folder: Path) -> Path:
    """A sheet of test images: input, prediction, truth, error."""
    from PIL import Image

    from dataload.datasets.demo import Demo
    from dataload.frames.sparse_depth import SparseDepth
    from engine.pictures import contact_sheet, depth_panels
    from export.prediction.torch_predictor import torch_predictor

    dataset = Demo(world, ".jpg")
    test = dataset.read(str(splits_folder), "test")
    predictor = torch_predictor(run_folder, no_cuda=True, amp="off")
    rows = []
    for ref in test[:: max(1, len(test) // SHOWN)][:SHOWN]:
        with Image.open(dataset.image_path(ref)) as image:
            rgb = image.convert("RGB")
        resized = np.array(rgb.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS))
        truth = SparseDepth.of(dataset.eval_depth_m(ref))
        rows.append(depth_panels(np.asarray(rgb), predictor.run(resized[None])[0], truth))
    path = run_folder / "pictures.jpg"
    contact_sheet(rows, path)
    return path


def keep(scores: dict[str, dict[str, Any]], training_s: float, pictures: Path) -> None:
    """Commit-ready results for the README."""
    import shutil

    from benchmarks.harness import save as save_result

    docs = Path(__file__).resolve().parent.parent / "docs"
    docs.mkdir(exist_ok=True)
    shutil.copyfile(pictures, docs / "demo.jpg")
    setting = {"size_px": [HEIGHT_PX, WIDTH_PX], "training_s": training_s, "images": scores["trained"]["num_images"]}
    save_result("demo", {"setting": setting, "rows": scores})


if __name__ == "__main__":
    main()
