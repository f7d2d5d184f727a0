"""The accuracy that recordings cost: trainings on the demo's drives, written as bags and converted back, beside its own folder, for several
seeds, all scored on the demo's unseen streets: ``python -m benchmarks.demo_bags``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.demo_seeds import SHOWN, summary, train_and_score
from benchmarks.harness import save

OWN, CONVERTED = "the demo's own folder", "its recordings, converted back"
# As the demo's training, but of left targets alone, as those of recordings are, so twice the epochs; and with neighbours, whose warps see
# the principal point, which between the two cameras cancels.
TRAINING = (
    "--frame_ids 0 -1 1 --use_stereo --weights_init scratch --initial_depth 11 --learning_rate 5e-4 --height 96 --width 320 --batch_size 8 "
    "--num_epochs 6 --scheduler_step_size 4"
)
# What a converted folder's training may score above the other's.
ALLOWED = 1.05


@click.command()
@click.option("--seeds", "num_seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each folder.")
@click.option("--format", "form", default="mcap", show_default=True, help="Format of the recordings: bag, db3 or mcap.")
@click.option("--options", default="", metavar="'OPTIONS'", help="Further options of every md-train.")
@click.option("--save", "save_result", is_flag=True, help="Write benchmarks/results/demo_bags.json.")
def main(num_seeds: int, form: str, options: str, save_result: bool) -> None:
    """Compares abs_rel, mean over the seeds: the converted folder's may be 5 % above the other's."""
    from dataload.demo.world import ensure, split_folder

    world = ensure()
    with TemporaryDirectory() as name:
        folder = Path(name)
        convert(world, folder, form)
        write_lists(split_folder(world), folder)
        ways = {OWN: f"--dataset demo --split {folder / 'own'}", CONVERTED: f"--dataset evo --data_path {folder / 'evo'} --split demo"}
        score = partial(train_and_score, folder, training=TRAINING, eval_split=folder / "own")
        scores = {
            way: [score(f"{data.split()[1]}_{seed}", f"{data} --seed {seed} {options}") for seed in range(num_seeds)]
            for way, data in ways.items()
        }
    rows = {way: summary(of_seeds) for way, of_seeds in scores.items()}
    click.echo(f"\n{f'{num_seeds} seeds, mean and standard deviation':<44}" + "".join(f"{metric:>18}" for metric in SHOWN))
    for way, values in rows.items():
        click.echo(f"{way:<44}" + "".join(f"{values[metric]:>10.4f}{values[f'{metric}_deviation']:>8.4f}" for metric in SHOWN))
    ratio = rows[CONVERTED]["abs_rel"] / rows[OWN]["abs_rel"]
    click.echo(f"abs_rel of the converted folder over the other's: {ratio:.3f}, {'within' if ratio <= ALLOWED else 'BEYOND'} 5 %")
    if save_result:
        click.echo(f"wrote {save('demo_bags', {'setting': {'seeds': num_seeds, 'format': form}, 'rows': rows})}")


def convert(world: Path, folder: Path, form: str) -> None:
    """Write the drives as recordings and convert these to ``<folder>/evo``, without a split of its own."""
    from dataload.commands.md_data import md_data
    from tests.support.bags import write_demo_bags

    (folder / "bags").mkdir()
    bags = write_demo_bags(world, folder / "bags", form, depth="32FC1")
    arguments = ["from-bag", *map(str, bags), "--out", str(folder / "evo"), "--no_split"]
    md_data.main(arguments, prog_name="md-data", standalone_mode=False)


def write_lists(lists: Path, folder: Path) -> None:
    """The demo's lists of left frames as they are, and as lines of the converted folder, in the same order."""
    from dataload.datasets.evo import Evo

    dataset = Evo(folder / "evo")
    for place in (folder / "own", folder / "evo" / "splits" / "demo"):
        place.mkdir(parents=True)
    for path in lists.glob("*_files.txt"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith(" l")]
        frames = [(Path(drive).name, int(number)) for drive, number, _ in map(str.split, lines)]
        converted = [f"{drive} {dataset.timeline(drive).names[number]}" for drive, number in frames]
        (folder / "own" / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "evo" / "splits" / "demo" / path.name).write_text("\n".join(converted) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
