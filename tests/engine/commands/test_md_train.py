"""md-train as a newcomer meets it: help, typos, wrong values, the published commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.commands.md_train import md_train

MD_TRAIN = "from engine.commands.md_train import md_train; md_train()"


def run(*args: str) -> Result:
    return CliRunner().invoke(md_train, list(args))


def dry(*args: str) -> dict:
    result = run(*args, "--dry_run")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_defaults_are_monodepth2s():
    options = dry()
    published = {
        "model_name": "mdp", "split": "eigen_zhou", "num_layers": 18, "dataset": "kitti", "png": False, "height": 192, "width": 640,
        "disparity_smoothness": 1e-3, "scales": [0, 1, 2, 3], "min_depth": 0.1, "max_depth": 100.0, "use_stereo": False,
        "frame_ids": [0, -1, 1], "batch_size": 12, "learning_rate": 1e-4, "num_epochs": 20, "scheduler_step_size": 15,
        "v1_multiscale": False, "avg_reprojection": False, "disable_automasking": False, "predictive_mask": False, "no_ssim": False,
        "weights_init": "pretrained", "pose_model_input": "pairs", "pose_model_type": "separate_resnet", "no_cuda": False,
        "num_workers": 12, "load_weights_folder": None, "models_to_load": ["encoder", "depth", "pose_encoder", "pose"],
        "log_frequency": 250, "save_frequency": 1, "log_dir": "~/tmp",
    }  # fmt: skip
    assert {name: options[name] for name in published} == published


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--model_name mono_model", {"frame_ids": [0, -1, 1]}),
        ("--model_name stereo_model --frame_ids 0 --use_stereo --split eigen_full", {"frame_ids": [0, "s"], "split": "eigen_full"}),
        ("--model_name ms --frame_ids 0 -1 1 --use_stereo", {"frame_ids": [0, -1, 1, "s"]}),
        ("--use_stereo --frame_ids 0 -2 -1 1 2 --scales 0 2 --model_name x", {"frame_ids": [0, -2, -1, 1, 2, "s"], "scales": [0, 2]}),
        ("--load_weights_folder ~/tmp/m/models/weights_19 --models_to_load encoder depth --learning_rate 1e-5", {"learning_rate": 1e-5}),
        (
            "--dataset kitti_depth --split benchmark --png --height 128 --width 416 --batch_size 8",
            {"png": True, "height": 128, "width": 416, "dataset": "kitti_depth"},
        ),
        ("--v1_multiscale --disable_automasking --avg_reprojection", {"v1_multiscale": True, "disable_automasking": True}),
        ("--dataset kitti_odom --split odom", {"dataset": "kitti_odom", "split": "odom"}),
    ],
)
def test_documented_commands_parse(command, expected):
    options = dry(*command.split())
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--height 190", "height_px=190 must be a multiple of 32 (the encoder halves it 5 times); nearest: 160 or 192"),
        ("--height 32", "height_px=32 must be a multiple of 32 and at least 64 (the encoder halves it 5 times); nearest: 64"),
        ("--frame_ids 1 0", "must start with 0"),
        ("--frame_ids 0", "leaves nothing to compare the target with"),
        ("--frame_ids 0 x", "must be int values"),
        ("--predictive_mask", "add --disable_automasking"),
        ("--split eigen_zho", "did you mean 'eigen_zhou'"),
        ("--dataset kiti", "dataset 'kiti' is unknown; did you mean 'kitti'? choose from kitti, kitti_odom"),
        ("--scales 0 4", "must be one or more of 0 1 2 3"),
        ("--hieght 192", "no such option --hieght; did you mean --height?"),
        ("--batch_size 0", "batch_size=0 must be at least 1"),
        ("--learning_rate -1", "learning_rate=-1.0 must be above 0"),
        (
            "--grad_accumulation 5",
            "grad_accumulation=5 must divide batch_size=12 into equal parts; nearest: 4 or 6, or a batch_size of 10 or 15",
        ),
        ("--grad_accumulation 8 --batch_size 4", "batch_size=4 into equal parts; nearest: 4, or a batch_size of 8"),
        ("--grad_accumulation 0", "grad_accumulation=0 must be"),
        ("--cuda_grap", "no such option --cuda_grap; did you mean --cuda_graph?"),
        ("--min_depth 5 --max_depth 1", "0 < min_depth < max_depth"),
        ("--model_name ../x", "must be a plain folder name"),
        ("--load_weights_folder x --initial_depth 11", "leave out --initial_depth"),
        ("--resume --log_dir nowhere", "nothing to resume: no file"),
        ("--models_to_load encodr", "models_to_load=encodr is unknown"),
        ("--world_size 0", "0 is not in the range x>=1"),
    ],
)
def test_wrong_usage_exits_2_with_one_message(command, message):
    result = run(*command.split(), "--dry_run")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def run_folder(log_dir: Path, **changes: object) -> None:
    """The options of a run ``old``, as its opt.json holds them; "absent" leaves one out, as a version that lacked it would."""
    models = log_dir / "old" / "models"
    models.mkdir(parents=True)
    saved = {k: v for k, v in (dry("--model_name", "old", "--log_dir", str(log_dir)) | changes).items() if v != "absent"}
    (models / "opt.json").write_text(json.dumps(saved))


def test_a_run_of_before_the_options_of_the_step_resumes_at_their_defaults(tmp_path: Path):
    run_folder(tmp_path, cuda_graph="absent", grad_accumulation="absent", checkpoint_activations="absent")
    resume = ("--resume", "--model_name", "old", "--log_dir", str(tmp_path))
    options = dry(*resume)
    assert (options["cuda_graph"], options["grad_accumulation"], options["checkpoint_activations"]) == (None, 1, False)
    assert dry(*resume, "--grad_accumulation", "1")["grad_accumulation"] == 1
    refused = run(*resume, "--grad_accumulation", "2", "--dry_run")
    assert refused.exit_code == 2
    assert "--grad_accumulation differs from the run's (2 given, 1 in" in " ".join(refused.output.split())


def test_how_the_step_runs_may_change_on_resume_but_not_its_parts(tmp_path: Path):
    run_folder(tmp_path, cuda_graph=True, grad_accumulation=3)
    resume = ("--resume", "--model_name", "old", "--log_dir", str(tmp_path))
    options = dry(*resume, "--no_cuda_graph", "--checkpoint_activations")
    assert (options["cuda_graph"], options["grad_accumulation"], options["checkpoint_activations"]) == (False, 3, True)
    refused = run(*resume, "--grad_accumulation", "2", "--dry_run")
    assert refused.exit_code == 2
    assert "--grad_accumulation differs from the run's (2 given, 3 in" in " ".join(refused.output.split())


def test_a_world_size_is_for_the_plan_of_a_new_run(tmp_path: Path):
    refused = run("--world_size", "8")
    assert refused.exit_code == 2
    assert "several processes are started by torchrun: torchrun --nproc_per_node" in " ".join(refused.output.split())
    run_folder(tmp_path)
    refused = run("--resume", "--model_name", "old", "--log_dir", str(tmp_path), "--dry_run", "--world_size", "8")
    assert refused.exit_code == 2
    assert "--world_size plans a new run; leave out --resume" in refused.output


def test_the_plan_is_added_to_the_options_and_nothing_else_is_printed(tmp_path: Path):
    options = ("--data_path", str(tmp_path / "none"), "--batch_size", "4", "--height", "64", "--width", "96")
    command = [sys.executable, "-c", MD_TRAIN, *options, "--dry_run", "--world_size", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(result.stdout)
    plan = printed.pop("plan")
    assert printed == dry(*options)
    assert (plan["processes"], plan["global_batch_size"], plan["training_samples"]) == (3, 12, 39810)
    warned = f"No folder {tmp_path / 'none'}: the plan takes every line of split eigen_zhou for a sample"
    assert result.stderr.strip() == warned


def test_a_dry_run_needs_no_torch():
    program = f"import sys\nsys.argv[1:] = ['--dry_run']\ntry:\n    {MD_TRAIN}\nfinally:\n    assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)


def test_help_is_grouped():
    result = run("--help")
    assert result.exit_code == 0
    for heading in ("Data:", "Networks:", "Loss:", "Optimisation:", "Run:"):
        assert heading in result.output


@pytest.mark.parametrize(
    "room", ["engine.commands.md_train", "export.commands.md_predict", "export.commands.md_export", "dataload.commands.md_data"]
)
def test_commands_import_neither_torch_nor_dali(room):
    program = f"import sys, {room}; print(*sorted({{'torch', 'numpy', 'nvidia', 'onnx', 'onnxruntime', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_missing_data_folder_is_one_line_and_status_1(tmp_path: Path):
    result = run("--data_path", str(tmp_path / "none"), "--log_dir", str(tmp_path), "--weights_init", "scratch")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert str(tmp_path / "none") in result.output
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_no_log_can_be_written_to_is_refused() -> None:
    result = run("--log_dir", os.fsdecode(b"/tmp/\xff"), "--data_path", "kitti_data")
    assert result.exit_code == 2
    assert "TensorBoard's files need; name another folder" in result.output
