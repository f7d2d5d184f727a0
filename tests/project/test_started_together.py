"""Two of each writing command started together, with varied delays: one result, whole, and the other is told or waits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bags
import numpy as np
import pytest
import started_together
from PIL import Image
from places import PROJECT
from predicting import save_image, save_model
from videos import save_video

K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
SMALL = "--height 64 --width 96 --batch_size 4 --weights_init scratch --num_workers 1 --no_cuda --frame_store none"
# The command, in which {} is a folder that is new each time and IN one of what it reads; what of its output is the same whoever made it.
COMMANDS = {
    "from-video": ("md-data from-video IN/drive.mp4 --out {}/out", "out/**/*"),
    "from-bag": ("md-data from-bag IN/drive.bag --out {}/out --no_split", "out/**/*"),
    "published splits": ("md-data splits --write {}/out", "out/**/*"),
    "own splits": ("md-data splits --from IN/drives --keep_static --val 0 --test 0 --out {}/out", "out/*"),
    "ground truth": ("md-data gt --data_path IN/kitti --split IN/kitti/split --out {}/gt.npz", "gt.npz"),
    "train": (
        f"md-train --data_path IN/kitti --split IN/kitti/split --log_dir {{}} --model_name a --num_epochs 1 {SMALL}",
        "a/models/weights_0/*.pth",
    ),
    "eval": (
        "md-eval --data_path IN/kitti --eval_split IN/kitti/split --load_weights_folder IN/model/models/weights_0 --eval_mono --no_cuda "
        "--json {}/scores.json --csv {}/errors.csv --save_pred_disps --eval_out_dir {}/disps",
        "**/*.[nc][ps]*",
    ),
    # Of safetensors the order within the header differs from process to process.
    "export": ("md-export --load_weights_folder IN/model/models/weights_0 --target hub --out {}/hub", "hub/*.json"),
    "predict": ("md-predict --image IN/images --model IN/model --out {}/out --no_cuda", "out/*"),
}  # fmt: skip
QUICK = ("from-video", "published splits")


@pytest.fixture(scope="module")
def given(kitti_tree: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands read from."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "kitti").symlink_to(kitti_tree(frames=6))
    save_video(folder / "drive.mp4", count=60)
    images = [bags.image("/left/image_rect", bags.picture((32, 48), i), "rgb8", bags.START_NS + i * bags.PERIOD_NS) for i in range(30)]
    bags.write_bag(folder, "drive", "bag", [bags.camera_info("/left/camera_info", K, (32, 48)), *images])
    for sequence in "abc":
        (folder / "drives" / sequence).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(bags.picture((32, 48), number)).save(folder / "drives" / sequence / f"{number:06d}.jpg")
    save_model(folder / "model", use_stereo=False)
    (folder / "images").mkdir()
    for number in range(4):
        save_image(folder / "images" / f"{number}.png", number)
    return folder


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern) if path.is_file()}


def assert_one_result(name: str, times: int, given: Path, folder: Path) -> None:
    """Fails unless each pair leaves what one command alone leaves, and the one that did not make it says so in a line, or has waited."""
    line, pattern = COMMANDS[name]
    program = started_together.__file__
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TQDM_DISABLE": "1"}
    command = [sys.executable, program, folder / "out", str(times), *line.replace("IN", str(given)).split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *pairs = map(json.loads, done.stdout.splitlines())
    assert first["statuses"] == [0], first["said"]
    expected = contents(Path(first["folder"]), pattern)
    assert expected
    for pair in pairs:
        said = "\n".join(pair["said"])
        assert sorted(pair["statuses"]) in ([0, 0], [0, 1]), said
        assert "Traceback" not in said, said
        for status, words in zip(pair["statuses"], pair["said"], strict=True):
            assert not status or "Error: " in words, words
        found = contents(Path(pair["folder"]), pattern)
        assert found.keys() == expected.keys(), said
        own, other = (bytes(each["folder"], "utf8") for each in (pair, first))
        assert [key for key, content in found.items() if content.replace(own, other) != expected[key]] == [], said
        left = [path for path in Path(pair["folder"]).rglob(".*") if path.name != ".gitattributes"]
        assert not left, left
    refused = [pair for pair in pairs if sum(pair["statuses"])]
    assert len(pairs) == times
    assert refused or times < 20, "no two of them met"


@pytest.mark.parametrize("name", QUICK)
def test_two_that_start_together_leave_one_result(name, given, tmp_path):
    assert_one_result(name, 2, given, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_two_that_start_together_twenty_times_leave_one_result(name, given, tmp_path):
    assert_one_result(name, 20, given, tmp_path)
