"""The demo's drives as recordings, converted back: the same batches, but for a principal point that is exact now, and the same truth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import images
from click.testing import CliRunner

from benchmarks import demo_bags
from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.demo import world as demo_world
from dataload.loader import Loader
from engine.commands.md_train import md_train
from splits import read_lines

NATIVE_PX = (128, 320)
SIZE_PX = (64, 160)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world in ``world``, converted in ``evo``, and the same lists of both in ``own`` and ``evo/splits/demo``."""
    place = tmp_path_factory.mktemp("demo_bags")
    config = demo_world.WorldConfig(height_px=NATIVE_PX[0], width_px=NATIVE_PX[1], drives=5, frames=5)
    world = demo_world.ensure(place / "world", config=config, progress=False, processes=1)
    demo_bags.convert(world, place, "bag")
    demo_bags.write_lists(demo_world.split_folder(world), place)
    return place


def loader_of(place: Path, dataset: str, **options) -> Loader:
    paths = {"demo": (place / "world", place / "own"), "evo": (place / "evo", place / "evo" / "splits" / "demo")}
    data_path, split = paths[dataset]
    config = DataConfig(
        data_path=data_path, dataset=dataset, split=str(split), height_px=SIZE_PX[0], width_px=SIZE_PX[1], batch_size=3, loader="torch",
        num_workers=1, **options,
    )  # fmt: skip
    opened = open_dataset(config)
    return Loader(config, opened, opened.read(config.split, "train"), training=True)


@pytest.mark.parametrize("options", [{"frame_ids": (0,), "use_stereo": True}, {"frame_ids": (0, -1, 1)}])
def test_the_converted_demo_gives_the_demos_batches(place: Path, options: dict) -> None:
    with loader_of(place, "demo", **options) as own, loader_of(place, "evo", **options) as converted:
        assert own.dataset.metric_factor == pytest.approx(converted.dataset.metric_factor)
        pairs = list(zip(own.epoch(1), converted.epoch(1), strict=True))
    assert pairs
    for a, b in pairs:
        assert torch.equal(a.indices, b.indices)
        assert all(torch.equal(x, y) for x, y in zip(images(a), images(b), strict=True))
        assert torch.allclose(a.T_stereo, b.T_stereo)
        assert torch.allclose(a.K[:, (0, 1), (0, 1)], b.K[:, (0, 1), (0, 1)])
        # KITTI's rule keeps the centre at half the width whatever the size; resized exactly it moves by (1 - s) / 2.
        assert torch.allclose((a.K[:, :2, 2] - b.K[:, :2, 2]).abs(), torch.tensor((1 - SIZE_PX[1] / NATIVE_PX[1]) / 2), atol=1e-4)


def test_training_on_the_converted_demo_goes_as_on_the_demo(place: Path) -> None:
    """Between two cameras of one K the principal point cancels, but for the rounding of fp32."""
    options = (
        "--frame_ids 0 --use_stereo --weights_init scratch --height 64 --width 160 --batch_size 2 --max_steps 3 --no_cuda --loader torch"
    )
    losses = []
    for dataset, paths in {"demo": ("world", "own"), "evo": ("evo", "evo/splits/demo")}.items():
        data_path, split = (str(place / path) for path in paths)
        arguments = [
            "--dataset",
            dataset,
            "--data_path",
            data_path,
            "--split",
            split,
            "--log_dir",
            str(place),
            "--model_name",
            f"run_{dataset}",
        ]
        result = CliRunner().invoke(md_train, [*options.split(), *arguments, "--amp", "off", "--log_frequency", "1"])
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in (place / f"run_{dataset}" / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if row["mode"] == "train"])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_the_converted_demo_has_the_demos_truth(place: Path) -> None:
    with loader_of(place, "demo") as own, loader_of(place, "evo") as converted:
        pairs = list(zip(own.refs, converted.refs, strict=True))
    assert pairs
    for ref, again in pairs:
        exact, back = own.dataset.depth_m(ref), converted.dataset.depth_m(again)
        assert exact is not None
        assert back is not None
        np.testing.assert_array_equal(np.where(exact <= 255.99, exact, 0), back)


def test_the_lists_of_both_name_the_same_frames_in_the_same_order(place: Path) -> None:
    for subset in ("train", "val", "test"):
        own, converted = read_lines(str(place / "own"), subset), read_lines(str(place / "evo" / "splits" / "demo"), subset)
        assert [Path(line.split()[0]).name for line in own] == [line.split()[0] for line in converted]
