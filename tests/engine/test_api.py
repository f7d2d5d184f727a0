"""train and evaluate as calls: the commands' options, checks and numbers; networks and losses for a loop of one's own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation import refs_of, tree, weights
from evaluation import run as md_eval

from dataload import DataConfig, open_dataset, open_loader
from dataload.system.console import console
from engine import (
    EvalConfig,
    InputSize,
    LossConfig,
    ModelConfig,
    Objective,
    PoseEvalConfig,
    Predictions,
    TrainConfig,
    evaluate,
    initial_networks,
    load_depth_network,
    make_step,
    save_weights,
    train,
)
from engine.commands.md_train import md_train
from engine.evaluation.metrics import METRICS
from engine.training.config import saved_options
from splits import InputError

# Fixtures, for pytest to find.
__all__ = ["tree", "weights"]

STEREO = {"frame_ids": (0,), "use_stereo": True, "weights_init": "scratch", "no_cuda": True, "num_workers": 1}
SMALL = {"height": 64, "width": 96, "batch_size": 4, **STEREO}


@pytest.fixture(scope="module")
def drives(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=6)  # 8 samples


def config_of(drives: Path, log_dir: Path, **options: object) -> TrainConfig:
    return TrainConfig.from_options(data_path=drives, split=drives / "split", log_dir=log_dir, **{**SMALL, **options})


def dry(*arguments: object) -> dict:
    result = CliRunner().invoke(md_train, [*map(str, arguments), "--dry_run"])
    assert result.exit_code == 0, result.output
    return {name: value for name, value in json.loads(result.output).items() if name != "run_folder"}


def plain(config: TrainConfig) -> dict:
    return json.loads(json.dumps(saved_options(config)))


def test_options_in_python_are_those_of_the_command(tmp_path: Path) -> None:
    assert plain(TrainConfig.from_options()) == dry()
    arguments = ("--data_path", "x", "--frame_ids", 0, -2, 2, "--scales", 0, 2, "--disable_automasking", "--png", "--no_compile")
    given = {"data_path": "x", "frame_ids": [0, -2, 2], "scales": (0, 2), "disable_automasking": True, "png": True, "compile": False}
    given |= {"learning_rate": 1, "log_dir": str(tmp_path), "models_to_load": ["encoder"]}
    config = TrainConfig.from_options(**given)
    assert plain(config) == dry(*arguments, "--learning_rate", 1, "--log_dir", tmp_path, "--models_to_load", "encoder")
    assert (config.loss.automask, config.data.image_ext, config.model.scales) == (False, ".png", (0, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1}, "there is no option learning_rat; did you mean learning_rate? choose from data_path"),
        ({"scales": (0, 4)}, "scales=0 4 must be one or more of 0 1 2 3"),
        ({"num_layers": 17}, "num_layers=17 is unknown; choose from 18, 34"),
        ({"predictive_mask": True}, "add --disable_automasking"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"seed": 2**63}, "seed=9223372036854775808 must be at most 9223372036854775807"),
        ({"frame_ids": 0}, "leaves nothing to compare the target with"),
        ({"compile": "yes"}, "compile='yes' must be True or False"),
        ({"resume": True, "log_dir": "nowhere"}, "nothing to resume: no file nowhere/mdp/models/opt.json"),
        ({"load_weights_folder": "x", "initial_depth": 11}, "leave out --initial_depth"),
    ],
)
def test_training_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig.from_options(**options)
    assert message in str(caught.value)


def test_a_config_of_data_alone_has_the_published_networks_and_loss() -> None:
    config = TrainConfig(data=DataConfig(data_path=Path("kitti_data"), num_levels=1))
    assert config == TrainConfig.from_options()
    assert (config.data.num_levels, config.data.source_levels) == (4, 1)
    other = TrainConfig(data=config.data, model=ModelConfig(scales=(0, 1)), loss=LossConfig(v1_multiscale=True))
    assert (other.data.num_levels, other.data.source_levels) == (2, 2)


def test_train_tells_where_the_run_stands_and_goes_on_from_there(drives: Path, tmp_path: Path) -> None:
    logging_before = (console.level, list(console.handlers))
    part = train(config_of(drives, tmp_path, max_steps=1))
    assert (console.level, list(console.handlers)) == logging_before
    assert (part.finished, part.run_folder, part.epoch, part.global_step) == (True, tmp_path / "mdp", 0, 1)
    assert part.weights_folder == tmp_path / "mdp/models/weights_0"
    assert part.best_weights_folder == tmp_path / "mdp/models/best"
    assert 0 < part.best_val_loss < 1
    whole = train(TrainConfig.from_options(resume=True, log_dir=tmp_path, no_cuda=True, max_steps=3))
    assert (whole.finished, whole.epoch, whole.global_step) == (True, 1, 3)
    assert whole.weights_folder == tmp_path / "mdp/models/weights_1"
    assert whole.best_val_abs_rel <= part.best_val_abs_rel
    again = train(TrainConfig.from_options(resume=True, log_dir=tmp_path, no_cuda=True, max_steps=3))
    assert again == whole, "a run that is complete stays as it is"
    with pytest.raises(InputError, match="--learning_rate differs from the run's"):
        TrainConfig.from_options(resume=True, log_dir=tmp_path, learning_rate=1e-3)
    with pytest.raises(InputError, match="already holds weights"):
        train(config_of(drives, tmp_path))


def test_train_can_run_beside_the_main_thread(drives: Path, tmp_path: Path) -> None:
    """Where signals cannot be asked for."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, config_of(drives, tmp_path, max_steps=1)).result().finished


def test_evaluate_is_md_eval_to_the_bit(tree: Path, weights: Path, tmp_path: Path) -> None:
    done = md_eval(tree, "--eval_mono", "--load_weights_folder", weights, "--load_weights_folder", weights, "--json", tmp_path / "a.json")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "a.json").read_text())["models"]
    config = EvalConfig.from_options(
        data_path=tree, eval_split=str(tree / "split"), eval_mono=True, load_weights_folder=[weights, str(weights)], no_cuda=True,
        json=tmp_path / "b.json", csv=tmp_path / "b.csv",
    )  # fmt: skip
    logging_before = (console.level, list(console.handlers))
    results = evaluate(config)
    assert (console.level, list(console.handlers)) == logging_before
    assert json.loads((tmp_path / "b.json").read_text())["models"] == written
    assert len((tmp_path / "b.csv").read_text().splitlines()) > 1
    assert len(results) == len(written) == 2
    for result, model in zip(results, written, strict=True):
        for name in ("name", "epoch", "num_images", *METRICS, "median_ratio", "median_ratio_std"):
            assert getattr(result, name) == model[name], name
        assert {name: list(bounds) for name, bounds in result.interval_95.items()} == model["interval_95"]
        assert result.images == tuple(ref.line for ref in refs_of(tree))
        assert result.scores.shape == (result.num_images, len(METRICS))
        assert np.mean(result.scores, axis=0).tolist() == [model[name] for name in METRICS]


def test_what_only_predicts_has_no_scores(tree: Path, weights: Path, tmp_path: Path) -> None:
    config = EvalConfig.from_options(
        data_path=tree, eval_split=tree / "split", load_weights_folder=weights, save_pred_disps=True, no_eval=True, eval_out_dir=tmp_path,
        no_cuda=True,
    )  # fmt: skip
    assert evaluate(config) == []
    assert [path.name for path in tmp_path.glob("*.npy")] == ["disps_split_split.npy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_mon": True}, "there is no option eval_mon; did you mean eval_mono? choose from data_path, dataset"),
        ({"load_weights_folder": "x"}, "give either --eval_mono (scale by the median) or --eval_stereo"),
        ({}, "give --load_weights_folder FOLDER or --ext_disp_to_eval FILE: what is to be evaluated"),
        ({"load_weights_folder": 3}, "load_weights_folder=3 must be a path"),
        ({"load_weights_folder": "x", "eval_mono": True, "crop": "gard"}, "crop=gard is unknown; choose from garg, eigen, none"),
        ({"eval_split": "odom_9", "load_weights_folder": "x"}, "odom_9 is a sequence of odometry: evaluate_pose(PoseEvalConfig"),
    ],
)
def test_evaluation_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        EvalConfig.from_options(**options)
    assert message in str(caught.value)


def test_motion_has_a_config_of_the_same_options() -> None:
    config = PoseEvalConfig.from_options(eval_split="odom_9", load_weights_folder="x", data_path="kitti_odom")
    assert config == PoseEvalConfig(sequence=9, weights_folder=Path("x"), data_path=Path("kitti_odom"))
    with pytest.raises(InputError, match="eval_split=None is no sequence of odometry; give odom_9"):
        PoseEvalConfig.from_options(load_weights_folder="x")


def test_a_loop_of_ones_own_trains_what_the_commands_read(drives: Path, tmp_path: Path) -> None:
    config = config_of(drives, tmp_path, initial_depth=11)
    torch.manual_seed(0)
    networks = initial_networks(config, metric_factor=open_dataset(config.data).metric_factor)
    step = make_step(config, networks)
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-4)
    losses = []
    with open_loader(config.data) as loader:
        for _ in range(2):
            for batch in loader:
                losses.append(step(batch).loss)
                optimizer.zero_grad()
                losses[-1].backward()
                optimizer.step()
    assert len(losses) == 4
    assert torch.stack(losses).isfinite().all()
    save_weights(tmp_path / "mine", networks, InputSize(64, 96, True))
    loaded = load_depth_network(tmp_path / "mine")
    assert torch.equal(loaded.encoder.encoder.conv1.weight, networks.encoder.encoder.conv1.weight)


def test_the_objective_takes_predictions_of_any_network(drives: Path, tmp_path: Path) -> None:
    config = config_of(drives, tmp_path, frame_ids=(0, -1, 1), use_stereo=False, scales=(0,), disable_automasking=True)
    with open_loader(config.data) as loader:
        batch = next(iter(loader))
    objective = Objective(frame_ids=(0, -1, 1), use_stereo=False, model=config.model, loss=config.loss)
    disp = torch.full((4, 1, 64, 96), 0.3, requires_grad=True)
    motion = (torch.full((4, 3), 0.01, requires_grad=True), torch.zeros(4, 3))
    loss = objective(Predictions({0: disp}, motions=[motion, motion]), batch).loss
    loss.backward()
    assert disp.grad is not None
    assert motion[0].grad is not None
    assert motion[0].grad.abs().sum() > 0
    stereo = config_of(drives, tmp_path)
    with open_loader(stereo.data) as loader:
        pair = next(iter(loader))
    published = Objective(frame_ids=(0,), use_stereo=True)
    disps = {scale: torch.full((4, 1, 64 >> scale, 96 >> scale), 0.3) for scale in range(4)}
    assert len(published(Predictions(disps), pair).per_scale) == 4
