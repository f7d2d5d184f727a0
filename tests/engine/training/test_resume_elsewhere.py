"""A run that other numbers of processes resume: which --batch_size they may give, and what becomes of the learning rate."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataload.system.launch import VARIABLES
from engine import TrainConfig
from engine.training.config import learning_rate_factor, saved_options
from splits.errors import InputError

RUN: dict[str, Any] = {"dataset": "demo", "use_stereo": True, "learning_rate": 3e-4, "model_name": "run"}


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The config of a run that ``begun`` processes began and ``world`` resume, with options given."""

    def resume(begun: int, world: int, scale_lr: str = "none", **given: Any) -> TrainConfig:
        config = TrainConfig.from_options(**RUN, log_dir=tmp_path, batch_size=12, scale_lr=scale_lr)
        models = config.run_folder / "models"
        models.mkdir(parents=True, exist_ok=True)
        (models / "opt.json").write_text(json.dumps(saved_options(config) | {"world_size": begun}), encoding="utf-8")
        for name, value in zip(VARIABLES, (0, world, 0, world), strict=True):
            monkeypatch.setenv(name, str(value))
        return TrainConfig.from_options(log_dir=tmp_path, model_name="run", resume=True, **given)

    return resume


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt"])
@pytest.mark.parametrize(("begun", "world", "batch_size"), [(2, 1, 24), (2, 3, 8), (1, 2, 6), (2, 2, 12)])
def test_a_batch_size_that_keeps_the_global_batch_keeps_the_learning_rate(resumed, rule, begun, world, batch_size):
    config = resumed(begun, world, rule, batch_size=batch_size)
    assert config.data.batch_size == batch_size
    rate = config.learning_rate * learning_rate_factor(rule, world)
    assert rate == pytest.approx(3e-4 * learning_rate_factor(rule, begun))


def test_without_a_batch_size_each_process_keeps_its_own(resumed):
    config = resumed(2, 3, "linear")
    assert (config.data.batch_size, config.learning_rate) == (12, 3e-4)


@pytest.mark.parametrize(
    ("world", "batch_size", "said"),
    [
        (3, 12 + 4, "or give 8, which keeps its global batch of 24 samples"),
        (5, 5, "its global batch of 24 samples does not divide among 5 processes"),
    ],
)
def test_another_batch_size_is_refused(resumed, world, batch_size, said):
    with pytest.raises(InputError, match=said):
        resumed(2, world, batch_size=batch_size)
