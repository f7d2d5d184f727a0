"""``--resume auto``: one command that begins a run, and repeated continues it; ``--resume`` alone as ever."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.commands.md_train import md_train
from engine.training.build import find_run_folder
from engine.training.config import TrainConfig, saved_options
from splits.errors import InputError


@pytest.fixture
def repeated(tmp_path: Path) -> Callable[..., TrainConfig]:
    """The config of a command, given with its options and ``resume="auto"``."""
    return lambda **options: TrainConfig.from_options(resume="auto", log_dir=tmp_path, **options)


def leave(config: TrainConfig, *files: str) -> Path:
    """What a run of the config leaves behind: its options, and files of its models folder, by name alone."""
    models = config.run_folder / "models"
    for name in files:
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).touch()
    models.mkdir(parents=True, exist_ok=True)
    (models / "opt.json").write_text(json.dumps(saved_options(config)))
    return models


@pytest.mark.parametrize("files", [["weights_0/state.pt"], ["step_40/state.pt", "weights_9/encoder.pth"]])
def test_it_begins_until_there_is_a_checkpoint_then_it_continues(repeated, files):
    config = repeated(learning_rate=1e-3)
    assert config.resume is False
    # Killed before the first checkpoint was whole.
    leave(config, ".step_7.12.tmp/state.pt")
    again = repeated(learning_rate=1e-3)
    assert again.resume is False
    assert find_run_folder(again) == config.run_folder / "models"
    leave(config, *files)
    resumed = repeated(learning_rate=1e-3)
    assert resumed.resume is True
    assert resumed.learning_rate == 1e-3
    assert repeated().learning_rate == 1e-3


@pytest.mark.parametrize("files", [["weights_3/encoder.pth"], ["best/encoder.pth"], ["best/state.pt"], ["weights_x/state.pt"]])
def test_weights_that_cannot_be_resumed_are_not_overwritten(repeated, files):
    leave(repeated(), *files)
    config = repeated()
    assert config.resume is False
    with pytest.raises(InputError, match=r"already holds weights \((weights_3|best|weights_x)\)"):
        find_run_folder(config)


def test_what_the_run_started_from_is_compared_and_not_loaded_again(repeated):
    leave(repeated(load_weights_folder="a/b"), "weights_0/state.pt")
    resumed = repeated(load_weights_folder="a/b")
    assert (resumed.resume, resumed.load_weights_folder) == (True, None)
    with pytest.raises(InputError, match=r"--load_weights_folder differs from the run's \(c given, a/b in "):
        repeated(load_weights_folder="c")
    with pytest.raises(InputError, match=r"--initial_depth differs from the run's \(11\.0 given, None in "):
        repeated(load_weights_folder="a/b", initial_depth=11)


EVERYTHING: dict[str, Any] = {
    "data_path": "kitti_data", "split": "eigen_full", "dataset": "kitti_depth", "png": True, "height": 96, "width": 320,
    "frame_ids": [0, -1, 1], "use_stereo": True, "batch_size": 6, "seed": 3, "num_workers": 2,
    "intrinsics": [0.5, 1.9, 0.5, 0.5], "depth_scale": 1000.0,
    "num_layers": 34, "scales": [0, 1], "min_depth": 0.2, "max_depth": 80, "weights_init": "scratch", "initial_depth": 11,
    "pose_model_type": "shared", "pose_model_input": "all", "batch_pose_pairs": True, "disable_automasking": True, "predictive_mask": True,
    "no_ssim": True, "avg_reprojection": True, "v1_multiscale": True, "disparity_smoothness": 0.01, "learning_rate": 5e-4, "num_epochs": 3,
    "scheduler_step_size": 2, "max_steps": 50, "amp": "off", "compile": False, "cuda_graph": True, "grad_accumulation": 3,
    "checkpoint_activations": True, "no_cuda": True, "model_name": "everything", "models_to_load": ["encoder"], "log_frequency": 5,
    "save_frequency": 2, "save_minutes": 1, "save_every_steps": 7, "loader": "torch", "frame_store": "disk", "frame_store_dir": "stores",
}  # fmt: skip


def test_every_option_may_be_repeated(repeated):
    begun = repeated(**EVERYTHING)
    leave(begun, "step_2/state.pt")
    resumed = repeated(**EVERYTHING)
    assert resumed.resume
    assert saved_options(resumed) == saved_options(begun)


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(md_train, [*map(str, arguments), "--dry_run"])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("form", [["--resume", "auto"], ["--resume=auto"]])
def test_at_the_command_line(repeated, tmp_path, form):
    place = ["--log_dir", tmp_path, "--model_name", "run"]
    assert command(*place, *form)[0] == command(*form, *place, "--num_layers", 50)[0] == 0
    leave(repeated(model_name="run"), "weights_0/state.pt")
    assert command(*place, *form)[0] == 0
    status, output = command(*form, *place, "--num_layers", 50)
    assert status == 2
    assert "--num_layers differs from the run's (50 given, 18 in" in output


@pytest.mark.parametrize("place", [lambda found: ["--resume", *found], lambda found: [*found, "--resume"]], ids=["first", "last"])
def test_alone_it_is_a_flag_as_before(tmp_path, place):
    status, output = command(*place(["--log_dir", tmp_path]))
    assert status == 2
    assert "nothing to resume: no file" in output


def test_any_other_word_is_refused_in_one_message():
    status, output = command("--resume", "sometimes")
    assert status == 2
    assert output.endswith(" Error: Invalid value for '--resume': only 'auto' may follow it, not 'sometimes'")
    with pytest.raises(InputError, match=r"^resume='sometimes' must be True, False or 'auto'$"):
        TrainConfig.from_options(resume="sometimes")
    with pytest.raises(InputError, match=r"^use_stereo='auto' must be True or False$"):
        TrainConfig.from_options(use_stereo="auto")


def test_finding_out_imports_no_torch(repeated, tmp_path):
    leave(repeated(), "weights_0/state.pt")
    program = (
        "import sys; from engine.training.config import TrainConfig\n"
        f"print(TrainConfig.from_options(resume='auto', log_dir={str(tmp_path)!r}).resume, 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "True False\n"
