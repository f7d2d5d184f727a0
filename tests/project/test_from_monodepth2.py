"""docs/from_monodepth2.md names exactly Monodepth2's options, each with its default, on a command that has it with that default."""

import re
import shlex
from pathlib import Path

import click
import pytest
from places import PROJECT

from dataload.commands.md_data import md_data
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from export.commands.md_predict import md_predict

COMMANDS: dict[str, click.Command] = {"md-train": md_train, "md-eval": md_eval, "md-predict": md_predict, "md-data": md_data}
# Monodepth2's options and their defaults.
ORIGINAL = {
    "--data_path": "kitti_data", "--log_dir": "~/tmp", "--model_name": "mdp", "--split": "eigen_zhou", "--num_layers": "18",
    "--dataset": "kitti", "--png": "off", "--height": "192", "--width": "640", "--disparity_smoothness": "0.001", "--scales": "0 1 2 3",
    "--min_depth": "0.1", "--max_depth": "100.0", "--use_stereo": "off", "--frame_ids": "0 -1 1", "--batch_size": "12",
    "--learning_rate": "0.0001", "--num_epochs": "20", "--scheduler_step_size": "15", "--v1_multiscale": "off", "--avg_reprojection": "off",
    "--disable_automasking": "off", "--predictive_mask": "off", "--no_ssim": "off", "--weights_init": "pretrained",
    "--pose_model_input": "pairs", "--pose_model_type": "separate_resnet", "--no_cuda": "off", "--num_workers": "12",
    "--load_weights_folder": "none", "--models_to_load": "encoder depth pose_encoder pose", "--log_frequency": "250",
    "--save_frequency": "1", "--eval_stereo": "off", "--eval_mono": "off", "--disable_median_scaling": "off",
    "--pred_depth_scale_factor": "1", "--ext_disp_to_eval": "none", "--eval_split": "eigen", "--save_pred_disps": "off",
    "--no_eval": "off", "--eval_eigen_to_benchmark": "off", "--eval_out_dir": "none", "--post_process": "off",
}  # fmt: skip
OF_SCRIPTS = {
    "md-data gt": ("--data_path", "--split"),
    "md-predict": ("--image_path", "--model_name", "--ext", "--no_cuda", "--pred_metric_depth"),
}
TEXT = (PROJECT / "docs" / "from_monodepth2.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<option>--\w+)` \| (?P<default>[^|]+) \| (?P<commands>`md-[^|]+) \|", re.MULTILINE)
ROWS = [(found["option"], found["default"].strip("`"), re.findall(r"`(md-\w+)`", found["commands"])) for found in ROW.finditer(TEXT)]


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {name: param for param in command.params if isinstance(param, click.Option) for name in param.opts}


def default_of(option: click.Option) -> str:
    """The default of an option, or what its help says takes effect; off and none where there is neither."""
    if option.is_flag:
        return "on" if option.default is True else "off"
    if isinstance(option.default, str | int | float | Path):
        return str(option.default)
    shown = re.search(r"\[default: (?P<first>[^\];]+)", option.help or "")
    return shown["first"] if shown else "none"


def command_of(words: list[str]) -> click.Command:
    """The command that the words begin with, such as ``md-data download kitti``; takes its words away."""
    command = COMMANDS[words.pop(0)]
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    return command


def test_the_page_has_every_option_of_the_original_and_no_other() -> None:
    named = [option for option, _, _ in ROWS]
    assert sorted(named) == sorted(ORIGINAL)
    assert {option: default for option, default, _ in ROWS} == ORIGINAL


@pytest.mark.parametrize(("option", "default", "commands"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_each_option_is_here_with_its_default(option: str, default: str, commands: list[str]) -> None:
    first, *others = [options_of(COMMANDS[name]) for name in commands]
    found = default_of(first[option])
    # 1.0 is 1.
    assert found in (default, f"{default}.0")
    assert all(option in other for other in others)
    elsewhere = {name for name in ("md-train", "md-eval") if option in options_of(COMMANDS[name])} - set(commands)
    assert not elsewhere, f"the page does not say that {elsewhere} takes {option}"


@pytest.mark.parametrize("name", ["md-train", "md-eval"])
def test_the_list_of_new_options_is_complete(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (`--.*) \|$", TEXT, re.MULTILINE)
    assert row
    own = set(options_of(COMMANDS[name])) - {"--version", "--help", *ORIGINAL}
    assert sorted(re.findall(r"--\w+", row[1])) == sorted(own)


@pytest.mark.parametrize(("line", "options"), OF_SCRIPTS.items())
def test_the_options_of_the_other_scripts_are_here(line: str, options: tuple[str, ...]) -> None:
    assert set(options) <= set(options_of(command_of(line.split())))
    assert all(f"`{option}`" in TEXT or option in ORIGINAL for option in options)


# A pattern such as drives/*.bag is a word here, as no shell expands it.
COMMANDS_IN_TEXT = re.findall(r"`(md-[^`\n]+ [^`\n]+)`", TEXT)


@pytest.mark.parametrize("line", COMMANDS_IN_TEXT)
def test_commands_within_the_text_have_such_options(line: str) -> None:
    words = shlex.split(line)
    options = options_of(command_of(words))
    assert {word for word in words if word.startswith("--")} <= set(options)
