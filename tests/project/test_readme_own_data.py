"""Every command of the README's chapter on data of one's own, as it stands there, on small data of the layouts that it speaks of."""

import re
import shlex
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from bags import write_demo_bags
from click.testing import CliRunner
from evo_tree import INTERVAL_NS, T_world_camera, save, view
from kitti_server import Server, zip_of
from PIL import Image
from places import PROJECT
from serving import serving
from videos import save_video

from dataload.commands.md_data import md_data
from dataload.demo import world as demo_world
from dataload.kitti.archives import chosen_archives
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from splits.rules import ARCHIVE_BASE

COMMANDS = {"md-data": md_data, "md-train": md_train, "md-eval": md_eval}
# What makes a training of minutes one of seconds, behind what the README says.
TRAIN_LESS = "--height 64 --width 96 --num_layers 18 --batch_size 2 --max_steps 1 --weights_init scratch --no_cuda"
CAMERA = np.array([[60.0, 0, 46], [0, 62, 33], [0, 0, 1]])


def chapter() -> str:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    return text.split("\n## Your own data\n")[1].split("\n## ")[0]


def section(heading: str) -> str:
    return chapter().split(f"\n### {heading}\n")[1].split("\n### ")[0]


def commands(text: str) -> list[str]:
    """The lines of the blocks that are no Python."""
    # Text and blocks by turns; a block begins with its language.
    return [line for block in text.split("\n```")[1::2] if block.startswith("\n") for line in block.strip().splitlines()]


def run(line: str, *more: str) -> str:
    """Run a line in the current folder, patterns expanded as a shell does; returns what it says."""
    name, *words = shlex.split(line)
    expanded = [part for word in words for part in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    home = [str(Path(word).expanduser()) if word.startswith("~") else word for word in expanded]
    result = CliRunner().invoke(COMMANDS[name], [*home, *(TRAIN_LESS.split() if name == "md-train" else []), *more])
    assert result.exit_code == 0, (line, result.output)
    return result.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_recordings(place: Path) -> None:
    config = demo_world.WorldConfig(height_px=64, width_px=192, drives=4, frames=6)
    world = demo_world.ensure(place / "world", config=config, progress=False, processes=1)
    (place / "drives").mkdir()
    for number, bag in enumerate(write_demo_bags(world, place / "drives")):
        bag.rename(place / "drives" / f"drive_{number}.bag")
    lines = commands(section("ROS recordings, and Evo"))
    assert [line.split()[:2] for line in lines[:2]] == [["md-data", "from-bag"]] * 2
    said = [run(line) for line in lines]
    assert "/front/left/image_rect_color/compressed" in said[0]
    assert (place / "evo_data/drive_3/calibration.yaml").is_file()
    assert said[2].splitlines()[-1].startswith("ready")
    assert "abs_rel" in said[-1]


def test_videos(place: Path) -> None:
    (place / "videos").mkdir()
    for number in range(3):
        save_video(place / "videos" / f"walk_{number}.mp4", count=14, rate=10)
    extract, *lines = commands(section("Videos, and folders of images"))
    # The README's camera is that of images twenty times as wide.
    run(extract.replace("1050 1050 959.5 539.5", "52 52 47.5 31.5"))
    said = [run(line) for line in lines]
    assert said[1].splitlines()[-1].startswith("ready")
    assert (place / "tmp/mine/models/weights_0").is_dir() or any((place / "tmp/mine/models").glob("*/encoder.pth"))


def test_a_class_of_ones_own(place: Path) -> None:
    text = section("Any other layout")
    (source,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(source.splitlines()) <= 30
    (place / "my_robot.py").write_text(source)
    for run_name in "abcde":
        for frame in range(6):
            image, depth_m = view(CAMERA, (64, 96), T_world_camera(frame))
            folder = place / "robot_data" / run_name
            save(folder / "cam0" / f"{frame * INTERVAL_NS:012d}.png", image)
            save(folder / "ranges" / f"{frame * INTERVAL_NS:012d}.png", np.rint(1000 * depth_m).astype(np.uint16))
        (folder / "camera.txt").write_text("60 62 46 33\n")
    try:
        said = [run(line) for line in commands(text)]
    finally:
        sys.modules.pop("my_robot", None)
    assert said[1].splitlines()[-1].startswith("ready")
    assert "abs_rel" in said[-1]


@pytest.fixture
def server() -> Iterator[Server]:
    """KITTI's, with a frame a drive."""
    buffer = BytesIO()
    Image.effect_noise((48, 16), 60).convert("RGB").save(buffer, "PNG")
    server = Server()
    for archive in chosen_archives(None):
        if archive.drive is None:
            names = [f"calib_{kind}.txt" for kind in ("cam_to_cam", "imu_to_velo", "velo_to_cam")]
        else:
            cameras = [f"{archive.stem}/image_0{camera}/data/0000000000.png" for camera in range(4)]
            names = [*cameras, f"{archive.stem}/velodyne_points/data/0000000000.bin"]
        server.files[archive.name] = zip_of({f"{archive.date}/{name}": buffer.getvalue() for name in names})
    with serving(server):
        yield server


def test_kitti_from_nothing(place: Path, server: Server) -> None:
    fetch, convert = commands(section("KITTI from nothing"))
    assert ARCHIVE_BASE.startswith("https://")
    run(fetch, "--base_url", server.url)
    assert not list((place / "kitti_data").glob("*.zip*"))
    said = run(convert)
    images = list((place / "kitti_data").rglob("image_02/data/*"))
    assert len(images) > 50
    assert {path.suffix for path in images} == {".jpg"}
    assert f"{4 * len(images)} JPEGs made" in said


def test_every_command_of_the_chapter_is_run_here() -> None:
    tested = ("ROS recordings, and Evo", "Videos, and folders of images", "Any other layout", "KITTI from nothing")
    assert commands(chapter()) == [line for heading in tested for line in commands(section(heading))]
