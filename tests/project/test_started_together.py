"""Two of each writing command started together, with varied delays: one result, whole, and the other is told or waits."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import bags
import click
import numpy as np
import pytest
import started_together
import torch
from evaluation import save_server_images
from hub_server import HubServer
from kitti_server import Server, zip_of
from odometry_tree import make_tree
from PIL import Image
from places import PROJECT
from predicting import SIZE_PX, save_image
from published import networks_of
from serving import serving
from videos import save_video
from web_package import made_package

from dataload.system.leftovers import output_of
from dataload.system.locks import ENDING
from engine.weights import InputSize, save_weights
from export.config import TARGETS, ExportConfig

K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
DRIVE = "2011_09_26_drive_0048"
TRAIN = (
    "md-train --data_path IN/kitti --split IN/kitti/split --num_epochs 1 --height 64 --width 96 --batch_size 4 --weights_init scratch "
    "--num_workers 1 --no_cuda"
)
PREDICT = "md-predict --image IN/images/0.png --no_cuda"
EXPORT = "md-export --load_weights_folder IN/model"


class Pair(NamedTuple):
    """Two of one command.

    Attributes:
        line: the command, in which ``{}`` is a folder that is new each time, IN one of what is read, WHICH 0 or 1 of the two.
        results: of the new folder, what is the same whoever made it.
        begin: what the new folder begins as a copy of: a folder of IN, or what another pair's command has made.
    """

    line: str
    results: str
    begin: str = ""


PAIRS = {
    "demo": Pair("md-data demo --out {}/demo", "demo/**/*"),
    "demo again": Pair("md-data demo --out {}/demo --remake", "demo/**/*", "demo"),
    "download": Pair(f"md-data download kitti --data_path {{}}/kitti --drives {DRIVE} --base_url KITTI", "kitti/**/*"),
    "JPEGs": Pair("md-data jpeg --data_path {} --delete --jobs 1", "**/*", "pngs"),
    "stores removed": Pair("md-data store remove --all --frame_store_dir {}/stores", "**/*", "frame store"),
    "from-video": Pair("md-data from-video IN/drive.mp4 --out {}/out", "out/**/*"),
    "from-bag": Pair("md-data from-bag IN/drive.bag --out {}/out --no_split", "out/**/*"),
    "published splits": Pair("md-data splits --write {}/out", "out/**/*"),
    "own splits": Pair("md-data splits --from IN/drives --keep_static --val 0 --test 0 --out {}/out", "out/*"),
    "own splits over others": Pair(
        "md-data splits --from IN/drives --keep_static --val 0.3 --test 0.3 --replace_split --out {}", "*.txt", "kitti/split"
    ),
    "ground truth": Pair("md-data gt --data_path IN/kitti --split IN/kitti/split --out {}/gt.npz", "gt.npz"),
    "check": Pair(
        "md-data check --dataset folder --data_path IN/drives --intrinsics 40 40 24 16 --height 64 --width 64 --json {}/check.json "
        "--sheet {}/sheet.jpg",
        "*.jpg",
    ),
    "train": Pair(f"{TRAIN} --frame_store none --log_dir {{}} --model_name a", "a/models/weights_0/*.pth"),
    "resume": Pair(
        f"{TRAIN} --frame_store none --log_dir {{}} --model_name a --num_epochs 2 --resume auto", "a/models/weights_?/*.pth", "train"
    ),
    "frame store": Pair(f"{TRAIN} --frame_store disk --frame_store_dir {{}}/stores --log_dir {{}} --model_name WHICH", "stores/*"),
    "eval": Pair(
        "md-eval --data_path IN/kitti --eval_split IN/kitti/split --load_weights_folder IN/model/models/weights_0 --eval_mono --no_cuda "
        "--json {}/scores.json --csv {}/errors.csv --save_pred_disps --eval_out_dir {}/disps --report {}/report",
        "**/*.*",
    ),
    "images for the server": Pair(
        "md-eval --data_path IN/server --eval_split benchmark --ext_disp_to_eval IN/server.npy --eval_out_dir {}/out",
        "out/**/*",
    ),
    "ego-motion": Pair(
        "md-eval --data_path IN/odometry --eval_split odom_4 --load_weights_folder IN/model/models/weights_0 --no_cuda --loader torch "
        "--json {}/pose.json --eval_out_dir {}/out --report {}/report",
        "**/*.*",
    ),
    "export": Pair(f"{EXPORT} --with_pose --out {{}}/model.onnx", "*.onnx"),
    "export over another": Pair(f"{EXPORT} --with_pose --precision fp16 --out {{}}/model.onnx", "*.onnx", "export"),
    "export in int8": Pair(f"{EXPORT} --precision int8 --images IN/images --out {{}}/model.onnx", "*.onnx"),
    "export for a hub": Pair(f"{EXPORT} --target hub --out {{}}/hub", "hub/*"),
    "export for the web": Pair(f"{EXPORT} --target web --with_preprocessing --onnxruntime_web IN/web.tgz --out {{}}/web", "web/**/*"),
    "predict a folder": Pair("md-predict --image IN/images --model IN/model --out {}/out --no_cuda", "out/*"),
    "predict an image": Pair(
        f"{PREDICT} --model IN/model --out {{}}/out --intrinsics 90 90 62 37 --format npy jpeg png ply", "out/*"
    ),
    "predict a video": Pair("md-predict --image IN/short.mp4 --model IN/model --out {}/out --no_cuda", "out/*"),
    "a model from a zip": Pair(f"XDG_CACHE_HOME={{}}/cache {PREDICT} --model IN/model.zip --out {{}}/WHICH", "cache/**/*"),
    "a model of a hub": Pair(
        f"HF_HOME={{}}/hf HF_ENDPOINT=HUB {PREDICT} --model hf:some/street --out {{}}/WHICH", "hf/hub/models--*/snapshots/**/*"
    ),
}  # fmt: skip
QUICK = ("demo", "download", "from-video", "published splits", "own splits over others")
# Twenty of each of these would take minutes: in each of them torch computes, or hundreds of files are written.
FEW = {
    "demo again", "resume", "frame store", "stores removed", "check", "images for the server", "ego-motion", "export",
    "export over another", "export in int8", "export for the web", "predict an image", "predict a video",
    "a model from a zip", "a model of a hub",
}  # fmt: skip
# Where the second has nothing to be told: it waits for the first, or finds what it would make.
WAITING = {"demo", "demo again", "download", "frame store", "stores removed", "a model from a zip", "a model of a hub"}
# Those that write nothing, and options of a path that is read. Of a command's other options of a path each is in a line above.
READ_ONLY = {"md-data doctor", "md-data store list", "md-data store verify"}
READ = {
    "bags", "videos", "more", "--data_path", "--from", "--load_weights_folder", "--ext_disp_to_eval", "--ext_poses_to_eval", "--images",
    "--scores", "--onnxruntime_web", "--image", "--model",
}  # fmt: skip


@pytest.fixture(scope="module")
def given(kitti_tree: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands read from."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "kitti").symlink_to(kitti_tree(frames=6))
    (folder / "pngs").symlink_to(kitti_tree(frames=3, ext=".png"))
    for name, count in (("drive", 60), ("short", 4)):
        save_video(folder / f"{name}.mp4", count=count)
    images = [bags.image("/left/image_rect", bags.picture((32, 48), i), "rgb8", bags.START_NS + i * bags.PERIOD_NS) for i in range(30)]
    bags.write_bag(folder, "drive", "bag", [bags.camera_info("/left/camera_info", K, (32, 48)), *images])
    for sequence in "abc":
        (folder / "drives" / sequence).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(bags.picture((32, 48), number)).save(folder / "drives" / sequence / f"{number:06d}.jpg")
    weights = folder / "model" / "models" / "weights_0"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    save_weights(weights, networks_of(), InputSize(*SIZE_PX, False))
    shutil.make_archive(str(folder / "model"), "zip", weights)
    (folder / "images").mkdir()
    for number in range(4):
        save_image(folder / "images" / f"{number}.png", number)
    for name in ("server", "odometry"):
        (folder / name).mkdir()
    save_server_images(folder / "server")
    np.save(folder / "server.npy", np.full((500, 4, 8), 0.5, np.float32))
    make_tree(folder / "odometry")
    made_package(folder / "web.tgz")
    return folder


@pytest.fixture(scope="module")
def kitti() -> Iterator[str]:
    """The address of a server of KITTI's archives."""
    server, date = Server(), DRIVE[:10]
    calibration = {f"{date}/calib_{name}.txt": b"R: 1\n" for name in ("cam_to_cam", "imu_to_velo", "velo_to_cam")}
    images = {
        f"{date}/{DRIVE}_sync/image_0{camera}/data/{number:010d}.png": bytes([camera]) * 5000 for camera in range(4) for number in range(3)
    }
    server.files = {f"{date}_calib.zip": zip_of(calibration), f"{DRIVE}_sync.zip": zip_of(images)}
    with serving(server):
        yield server.url


@pytest.fixture(scope="module")
def hub(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a hub with one model."""
    server = HubServer()
    server.add("some/street", made(PAIRS["export for a hub"], given, tmp_path_factory.mktemp("hub")) / "hub", "main")
    with serving(server):
        yield server.url


def times_together(line: str, begin: Path | str, times: int, given: Path, folder: Path) -> list[dict[str, Any]]:
    """What became of the command, first alone and then of two as often as that."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TQDM_DISABLE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    words = [word.replace("IN/", f"{given}/") for word in line.split()]
    command = [sys.executable, started_together.__file__, folder / "out", str(times), begin, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *pairs = map(json.loads, done.stdout.splitlines())
    assert first["statuses"] == [0], first["said"]
    assert len(pairs) == times
    return [first, *pairs]


def made(pair: Pair, given: Path, folder: Path) -> Path:
    """The folder in which a pair's command has run once."""
    (alone,) = times_together(pair.line, "", 0, given, folder)
    return Path(alone["folder"])


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern) if path.is_file()}


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and locks of ours."""
    ours = (path for path in folder.rglob("*") if ".locks" not in path.parts)  # huggingface_hub's
    return [path for path in ours if output_of(path.name) or path.name.endswith((ENDING, ".partial"))]


def assert_one_result(name: str, times: int, request: pytest.FixtureRequest, folder: Path) -> None:
    """Fails unless each pair leaves what one command alone leaves, and the one that did not make it says so in a line, or has waited."""
    line, pattern, begin = PAIRS[name]
    given: Path = request.getfixturevalue("given")
    for word, fixture in (("KITTI", "kitti"), ("HUB", "hub")):
        line = line.replace(word, request.getfixturevalue(fixture)) if word in line else line
    if begin:
        (folder / "begin").mkdir()
        begin = made(PAIRS[begin], given, folder / "begin") if begin in PAIRS else given / begin
    first, *pairs = times_together(line, begin, times, given, folder)
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
        assert not leftovers(Path(pair["folder"]))
        for path in Path(pair["folder"]).rglob("*.json"):  # those that hold times are no others' bytes, and whole all the same
            json.loads(path.read_bytes())
    refused = [pair for pair in pairs if sum(pair["statuses"])]
    assert refused or times < 20 or name in WAITING, "no two of them met"


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command, or all those of a group, by what a user types."""
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from commands(f"{name} {part}", inner)
    else:
        yield name, command


def test_every_command_that_writes_and_all_that_it_writes_is_among_the_pairs() -> None:
    lines = [f"{pair.line} " for pair in PAIRS.values()]
    known = [
        each
        for name, (module, entry) in started_together.COMMANDS.items()
        for each in commands(name, getattr(import_module(module), entry))
    ]
    assert {name for name, _ in known if not any(f"{name} " in line for line in lines)} == READ_ONLY
    for name, command in known:
        own = [line for line in lines if f"{name} " in line]
        paths = {param.opts[0] for param in command.params if isinstance(param.type, click.Path)} - READ
        assert not own or [option for option in paths if not any(f"{option} " in line for line in own)] == [], name
    default = ExportConfig.target
    assert [name for name in TARGETS if name != default and not any(f"--target {name} " in line for line in lines)] == []


@pytest.mark.parametrize("name", QUICK)
def test_two_that_start_together_leave_one_result(name, request, tmp_path):
    assert_one_result(name, 2, request, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_two_that_start_together_twenty_times_leave_one_result(name, request, tmp_path):
    assert_one_result(name, 1 if name in FEW else 20, request, tmp_path)
