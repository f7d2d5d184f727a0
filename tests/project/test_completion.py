"""What a shell offers when the tabulator is pressed, asked through click's own completion for bash."""

from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from dataload.commands.md_data import md_data
from dataload.datasets import DATASETS
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from engine.released import RELEASED
from export.choices import FORMATS
from export.commands.md_export import md_export
from export.commands.md_predict import md_predict


def offered(command: click.Command, *args: str) -> list[tuple[str, str]]:
    """Kind and text of what completes the last of the arguments."""
    *before, incomplete = args
    completion = BashComplete(command, {}, "md", "_MD_COMPLETE")
    return [(item.type, item.value) for item in completion.get_completions(before, incomplete)]


def names(command: click.Command, *args: str) -> set[str]:
    return {value for kind, value in offered(command, *args) if kind == "plain"}


@pytest.mark.parametrize(
    ("command", "args"),
    [(md_train, []), (md_eval, []), (md_export, []), (md_data, ["check"]), (md_data, ["gt"]), (md_data, ["splits"])],
)
def test_datasets(command: click.Command, args: list[str]) -> None:
    assert names(command, *args, "--dataset", "") >= set(DATASETS)
    assert names(command, *args, "--dataset", "kitti_") == {"kitti_odom", "kitti_depth", "kitti_test"}


def test_splits_and_folders() -> None:
    assert names(md_train, "--split", "") == {"eigen_zhou", "eigen_full", "benchmark", "odom"}
    assert names(md_data, "check", "--split", "eigen_f") == {"eigen_full"}
    assert names(md_data, "download", "kitti", "--split", "eigen") == {"eigen", "eigen_zhou", "eigen_full", "eigen_benchmark"}
    assert names(md_eval, "--eval_split", "") == {"eigen", "eigen_benchmark", "benchmark", "odom_9", "odom_10"}
    assert names(md_export, "--eval_split", "eigen_") == names(md_data, "gt", "--split", "eigen_") == {"eigen_benchmark"}
    assert offered(md_train, "--split", "my_") == [("dir", "my_")]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (md_predict, "--model"), (md_predict, "--model_name"), (md_export, "--load_weights_folder"), (md_eval, "--load_weights_folder"),
        (md_train, "--load_weights_folder"),
    ],
)  # fmt: skip
def test_released_models_and_paths(command: click.Command, option: str) -> None:
    assert names(command, option, "") == set(RELEASED)
    assert names(command, option, "mono_r") == {"mono_resnet50_640x192", "mono_resnet50_no_pt_640x192"}
    # The path first: bash drops the names before it, and looks for paths where no name is left.
    assert offered(command, option, "mono_1") == [("file", "mono_1"), ("plain", "mono_1024x320")]


def test_formats_parts_and_choices() -> None:
    assert names(md_predict, "--format", "") == set(FORMATS)
    assert names(md_predict, "--format", "p") == {"png", "png16", "ply"}
    assert names(md_data, "download", "kitti", "--part", "a") == {"annotated"}
    assert names(md_train, "--models_to_load", "pose") == {"pose", "pose_encoder"}
    assert names(md_export, "--target", "") == {"onnx", "web", "hub"}
    assert names(md_train, "--num_layers", "1") == {"18", "101", "152"}
    assert names(md_train, "--resume", "") == names(md_train, "--resume", "au") == {"auto"}
    assert names(md_train, "--resume", "--log_d") == {"--log_dir"}


def test_options_and_subcommands() -> None:
    assert names(md_data, "from-") == {"from-bag", "from-video"}
    assert {"--load_weights_folder", "--log_dir"} <= names(md_train, "--lo")
    assert offered(md_eval, "--json", "a") == [("file", "a")]


def test_nothing_is_made_while_completing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (md_train, md_eval, md_export, md_predict, md_data):
        assert offered(command, "--")
    assert list(tmp_path.iterdir()) == []
