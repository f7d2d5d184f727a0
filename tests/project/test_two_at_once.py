"""Every command that writes stops at once where another process holds its output: it says who, and makes nothing."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image
from places import PROJECT

from dataload.commands.md_data import md_data
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from export.commands.md_export import md_export
from export.commands.md_predict import md_predict

COMMANDS: dict[str, click.Command] = {
    "md-data": md_data,
    "md-train": md_train,
    "md-eval": md_eval,
    "md-export": md_export,
    "md-predict": md_predict,
}
EVAL = "md-eval --dataset kitti --data_path data --load_weights_folder weights --eval_mono --no_cuda"
# What is held, as a folder or a file, and the command.
HELD = {
    "new run": ("runs/a", "folder", "md-train --dataset kitti --data_path data --log_dir runs --model_name a --no_cuda"),
    "run reached by a link": ("runs/a", "folder", "md-train --dataset kitti --data_path data --log_dir link --model_name a --no_cuda"),
    "resumed run": ("runs/old", "folder", "md-train --log_dir runs --model_name old --resume --no_cuda"),
    "run around an export": ("runs/a/models/hub", "folder", "md-train --dataset kitti --data_path data --log_dir runs --model_name a"),
    "report": ("report/index.html", "file", f"{EVAL} --report report"),
    "scores": ("scores.json", "file", f"{EVAL} --json scores.json"),
    "errors": ("errors.csv", "file", f"{EVAL} --csv errors.csv"),
    "kept predictions": ("weights/disps_eigen_split.npy", "file", f"{EVAL} --save_pred_disps"),
    "ONNX file": ("model.onnx", "file", "md-export --load_weights_folder weights --out model.onnx"),
    "pose file": ("model_pose.onnx", "file", "md-export --load_weights_folder weights --with_pose --out model.onnx"),
    "hub folder": ("hub", "folder", "md-export --load_weights_folder weights --target hub --out hub/"),
    "export into a run": ("runs/a", "folder", "md-export --load_weights_folder weights --target hub --out runs/a/models"),
    "folder of predictions": ("images", "folder", "md-predict --image images --model weights"),
    "one prediction": ("out/0_disp.npy", "folder", "md-predict --image images/0.png --model weights --out out"),
    "prediction into a held folder": ("images", "folder", "md-predict --image images/0.png --model weights"),
    "published lists": ("lists", "folder", "md-data splits --write lists"),
    "own lists": ("drives/splits/folder", "folder", "md-data splits --from drives"),
    "lists of a sequence being made": ("drives/a", "folder", "md-data splits --from drives"),
    "findings in data": ("check.json", "file", "md-data check --data_path data --json check.json"),
    "JPEGs": ("data/md_jpeg", "file", "md-data jpeg --data_path data"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("data", "weights", "images", "report", "drives/a", "runs/old/models", "out"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("encoder.pth", "depth.pth"):
        (tmp_path / "weights" / name).write_bytes(b"not looked into yet")
    for number in range(12):
        Image.new("RGB", (64, 32)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "runs" / "old" / "models" / "opt.json").write_text('{"frame_ids": [0, -1, 1]}')
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def holder(place: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of a process that holds an output."""
    program = (
        "import sys; from pathlib import Path; from dataload.system.locks import hold\n"
        "with hold(Path(sys.argv[1]), '', folder=sys.argv[2] == 'folder'): print('held', flush=True); sys.stdin.read()"
    )
    held, kind, _ = HELD[request.param]
    process = subprocess.Popen(
        [sys.executable, "-c", program, place / held, kind], cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process.pid
    process.communicate("")


@pytest.mark.parametrize(("holder", "line"), [(what, line) for what, (_, _, line) in HELD.items()], indirect=["holder"], ids=list(HELD))
def test_the_second_is_told_who_is_first_and_makes_nothing(holder: int, line: str, place: Path) -> None:
    before = sorted(place.rglob("*"))
    name, *arguments = line.split()
    result = CliRunner().invoke(COMMANDS[name], arguments)
    assert result.exit_code == 1, result.output
    assert re.search(
        rf"^Error: \S.* is being written by -c \(process {holder} on \S+, since [\d-]{{10}} [\d:]{{8}} UTC\); wait until it has ended",
        result.output.splitlines()[-1],
    )
    assert sorted(place.rglob("*")) == before
