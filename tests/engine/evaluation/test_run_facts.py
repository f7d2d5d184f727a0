"""What a run recorded of its dataset holds in an evaluation unless the command says otherwise, and is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation.config import EvalConfig
from engine.evaluation.run_facts import with_run_facts
from splits.errors import InputError


def run_of(folder: Path, **options: Any) -> Path:
    (folder / "models" / "weights_0").mkdir(parents=True)
    (folder / "models" / "opt.json").write_text(json.dumps({"dataset": "folder", "min_depth": 0.1, "max_depth": 100.0} | options))
    return folder / "models" / "weights_0"


def config(**options: Any) -> EvalConfig:
    return EvalConfig(**{"data_path": Path("d"), "dataset": "folder", "eval_split": "s", "weights_folders": (Path("w"),)} | options)


def test_they_are_used_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "md")
    weights = run_of(tmp_path / "a", depth_scale=1000.0, intrinsics=[500, 500, 159.5, 119.5], png=True)
    found = with_run_facts(config(), [weights])
    assert (found.depth_scale, found.intrinsics, found.run_image_ext) == (1000.0, (500, 500, 159.5, 119.5), ".png")
    assert f"--depth_scale 1000, as {tmp_path / 'a' / 'models' / 'opt.json'} says" in caplog.text


def test_the_command_decides_and_a_difference_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = run_of(tmp_path / "a", depth_scale=1000.0)
    found = with_run_facts(config(depth_scale=256.0, max_depth=50.0), [weights])
    assert (found.depth_scale, found.max_depth) == (256.0, 50.0)
    assert f"--depth_scale 256, although {weights} was trained with 1000" in caplog.text
    assert f"--max_depth 50, although {weights} was trained with 100" in caplog.text
    assert "min_depth" not in caplog.text


def test_another_datasets_facts_are_not_taken(tmp_path: Path) -> None:
    assert with_run_facts(config(dataset="kitti", eval_split="eigen"), [run_of(tmp_path / "a", depth_scale=1000.0)]).depth_scale is None
    assert with_run_facts(config(), [tmp_path]).depth_scale is None  # no options, as of Monodepth2's released models


def test_runs_that_differ_are_refused_unless_told(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", depth_scale=1000.0), run_of(tmp_path / "b", depth_scale=256.0)]
    with pytest.raises(InputError, match=r"different --depth_scale \(1000 of .*, 256 of .*\); say which holds"):
        with_run_facts(config(), runs)
    assert with_run_facts(config(depth_scale=1.0), runs).depth_scale == 1.0


@pytest.mark.parametrize("value", ["many", [], -1, float("nan"), True, {"a": 1}, [1, 2]])
def test_odd_content_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"opt\.json: depth_scale is "):
        with_run_facts(config(), [run_of(tmp_path / "a", depth_scale=value)])
