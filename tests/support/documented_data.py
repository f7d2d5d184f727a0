"""Small data under the names that the documentation's commands use, put into a page's folder where a command first names it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from bags import write_demo_bags
from evo_tree import INTERVAL_NS, T_world_camera, save, view
from kitti_server import zip_of
from kitti_tree import write_calibration
from odometry_tree import true_poses
from PIL import Image
from published import networks_of
from videos import save_video
from web_package import made_package

from dataload.demo import world as demo_world
from dataload.kitti.archives import chosen_archives
from dataload.system.files import cache_folder
from engine.fetching.models import RELEASED, models_folder
from engine.odometry.errors import local_motions
from engine.odometry.trajectory import kitti_rows
from engine.weights import InputSize, save_weights
from export.targets.web import VERSION
from splits import read_lines, rules, subsets

NATIVE_PX = (75, 248)
# The least that networks take.
INPUT_PX = (64, 64)
# The frames, scans and depths that all of KITTI's are links to.
DISTINCT = 6
# How far what the cameras see lies apart.
SHIFT_PX = {"left": 0, "right": 4}
# So many lines of each published list are left: tests/project/test_published_commands.py takes the whole lists.
SHORT = {"train": 24, "val": 6, "test": 12, "test_09": 40, "test_10": 40}
SHORT_POSES = true_poses(1 + SHORT["test_09"], step_m=6.0)
CAMERA = np.array([[60.0, 0, 46], [0, 62, 33], [0, 0, 1]])
MODELS = {
    "mono_model": ((0, -1, 1), False),
    "stereo_model": ((0,), True),
    "mono+stereo_model": ((0, -1, 1), True),
    "odom_model": ((0, -1, 1), False),
}
WORLD = demo_world.WorldConfig(height_px=64, width_px=192, drives=5, frames=6)


class SmallData:
    """Makes what pages name, each thing once in ``store``, and links it into their folders.

    Args:
        store: a folder that outlives the pages' folders.
    """

    def __init__(self, store: Path) -> None:
        self.store = store

    def provide(self, text: str, page: Path) -> None:
        """Put into the folder of a page, which is the home folder too, what ``text`` names and is not there yet."""
        for name, make in MAKERS.items():
            if re.search(rf"(?<![\w./~-]){re.escape(name)}(?![\w.-])", text) and not (page / name).exists():
                make(self, page / name)
        for name in MODELS:
            for epoch in re.findall(rf"~/tmp/{re.escape(name)}(?:/models/weights_(\d+))?(?![\w+-])", text):
                run = page / "tmp" / name
                weights = run / "models" / f"weights_{epoch or 19}"
                if not (weights if epoch else run).exists():
                    weights.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(self.weights(name), weights, copy_function=os.link)

    def fill_cache(self) -> None:
        """Put the released models and the demo's world where the commands keep what they fetched or made."""
        for name in RELEASED:
            link(models_folder() / name, self.weights("mono+stereo_model" if "stereo" in name else "mono_model"))
        link(demo_world.default_folder(), self.world())
        made_package(cache_folder() / f"onnxruntime-web-{VERSION}.tgz")

    def weights(self, name: str) -> Path:
        """A weights folder of an untrained network."""
        folder = self.store / "weights" / name
        if folder.exists():
            return folder
        frame_ids, use_stereo = MODELS[name]
        torch.manual_seed(0)
        folder.parent.mkdir(exist_ok=True, parents=True)
        save_weights(folder, networks_of(frame_ids=frame_ids, use_stereo=use_stereo), InputSize(*INPUT_PX, use_stereo))
        return folder

    def world(self) -> Path:
        """A small street of the demo."""
        return demo_world.ensure(self.store / "world", config=WORLD, progress=False, processes=1)

    def frames(self, kind: str) -> list[Path]:
        """The few files that all frames of a kind (left, right, scan, annotated) are links to; of each image a JPEG and a PNG."""
        folder = self.store / kind
        if folder.exists():
            return sorted(folder.iterdir())
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for index in range(DISTINCT):
            if kind in SHIFT_PX:
                picture = Image.fromarray(pattern(index, SHIFT_PX[kind]))
                picture.save(folder / f"{index}.jpg", quality=92)
                picture.save(folder / f"{index}.png")
            elif kind == "scan":
                rng.uniform([2, -8, -2, 0], [60, 8, 1, 1], size=(1000, 4)).astype(np.float32).tofile(folder / f"{index}.bin")
            else:
                Image.fromarray(rng.integers(256, 60 * 256, NATIVE_PX).astype(np.uint16)).save(folder / f"{index}.png")
        return sorted(folder.iterdir())

    def put(self, folder: Path, kind: str, name: str, number: int) -> None:
        """A frame in a folder, with every ending that its kind has."""
        folder.mkdir(parents=True, exist_ok=True)
        for source in self.frames(kind):
            if int(source.stem) == number % DISTINCT and not (folder / f"{name}{source.suffix}").exists():
                os.link(source, folder / f"{name}{source.suffix}")

    def kitti_data(self, root: Path) -> None:
        """The drives of the shortened lists of KITTI raw and of its depth benchmark."""
        names = ("eigen_zhou", "eigen_full", "eigen", "eigen_benchmark", "benchmark")
        lines = {line for name in names for subset in subsets(name) for line in read_lines(name, subset)}
        for folder in sorted({line.split()[0] for line in lines if len(line.split()) == 3}):
            date, _, number = Path(folder).name.removesuffix("_sync").partition("_drive_")
            for index in range(rules.facts()["drive_frames"][f"{date}/{number}"]):
                for camera, kind in (("image_02", "left"), ("image_03", "right")):
                    self.put(root / folder / camera / "data", kind, f"{index:010d}", index)
                    self.put(root / folder / "proj_depth" / "groundtruth" / camera, "annotated", f"{index:010d}", index)
                self.put(root / folder / "velodyne_points" / "data", "scan", f"{index:010d}", index)
        for date in root.iterdir():
            write_calibration(date, NATIVE_PX)
        for index in range(SHORT["test"]):
            self.put(root / "depth_selection" / "test_depth_prediction_anonymous" / "image", "left", f"{index:010d}", index)

    def kitti_odom(self, root: Path) -> None:
        """What the shortened lists of KITTI odometry read, and the poses of the sequences that are scored."""
        lines = [line.split() for subset in subsets("odom") for line in read_lines("odom", subset)]
        for sequence in sorted({int(number) for number, *_ in lines}):
            last = max(int(frame) for number, frame, _ in lines if int(number) == sequence) + 1
            for index in range(last + 1):
                for camera, kind in (("image_2", "left"), ("image_3", "right")):
                    self.put(root / "sequences" / f"{sequence:02d}" / camera, kind, f"{index:06d}", index)
        (root / "poses").mkdir()
        for sequence in (9, 10):
            (root / "poses" / f"{sequence:02d}.txt").write_text(kitti_rows(SHORT_POSES))

    def photo(self, path: Path) -> None:
        """One picture."""
        Image.fromarray(pattern(0)).save(path)

    def photos(self, folder: Path) -> None:
        """Pictures, some in a folder below."""
        (folder / "trip").mkdir(parents=True)
        for index, name in enumerate(("a.jpg", "b.jpg", "c.png", "trip/d.jpg")):
            Image.fromarray(pattern(index)).save(folder / name)

    def drive_video(self, path: Path) -> None:
        """A short video."""
        save_video(path, count=6, rate=10)

    def videos(self, folder: Path) -> None:
        """A few videos, long enough to train on."""
        folder.mkdir()
        for number in range(3):
            save_video(folder / f"walk_{number}.mp4", count=14, rate=10)

    def drives(self, folder: Path) -> None:
        """The demo's drives as recordings of ROS."""
        folder.mkdir()
        for number, bag in enumerate(write_demo_bags(self.world(), folder)):
            bag.rename(folder / f"drive_{number}.bag")

    def my_images(self, folder: Path) -> None:
        """Folders of images of a moving camera."""
        for number in range(4):
            for frame in range(8):
                save(folder / f"walk_{number}" / f"{frame:06d}.jpg", view(CAMERA, (64, 96), T_world_camera(frame + 2 * number))[0])

    def robot_data(self, folder: Path) -> None:
        """A layout that only a class of one's own can read."""
        for run in "abcde":
            for frame in range(6):
                image, depth_m = view(CAMERA, (64, 96), T_world_camera(frame))
                save(folder / run / "cam0" / f"{frame * INTERVAL_NS:012d}.png", image)
                save(folder / run / "ranges" / f"{frame * INTERVAL_NS:012d}.png", np.rint(1000 * depth_m).astype(np.uint16))
            (folder / run / "camera.txt").write_text("60 62 46 33\n")

    def other_method(self, path: Path) -> None:
        """Inverse depths of the Eigen test images, from elsewhere."""
        count = len(read_lines("eigen", "test"))
        np.save(path, np.random.default_rng(0).uniform(0.02, 0.5, (count, 16, 52)).astype(np.float32))

    def poses(self, path: Path) -> None:
        """Motions of sequence 10, from elsewhere."""
        np.save(path, local_motions(SHORT_POSES))


def shorten_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the first lines of each published list, so that a command takes seconds; the lists' names and lines stay as they are."""
    ids = [position for position in rules.eigen_to_benchmark_ids() if position < SHORT["test"]]
    for name, lists in rules.LISTS.items():
        short = {subset: read_lines(name, subset)[: len(ids) if name == "eigen_benchmark" else SHORT[subset]] for subset in lists}
        monkeypatch.setitem(rules.LISTS, name, {subset: partial(list, lines) for subset, lines in short.items()})
    monkeypatch.setattr(rules, "eigen_to_benchmark_ids", lambda: ids)


MAKERS: dict[str, Callable[[SmallData, Path], None]] = {
    "kitti_data": SmallData.kitti_data,
    "kitti_odom": SmallData.kitti_odom,
    "photo.jpg": SmallData.photo,
    "photos": SmallData.photos,
    "drive.mp4": SmallData.drive_video,
    "videos": SmallData.videos,
    "drives": SmallData.drives,
    "my_images": SmallData.my_images,
    "robot_data": SmallData.robot_data,
    "other_method_disp.npy": SmallData.other_method,
    "poses.npy": SmallData.poses,
}


def pattern(number: int, shift_px: int = 0) -> np.ndarray:
    """(75, 248, 3) uint8: a smooth pattern that moves with the number."""
    y, x = np.mgrid[: NATIVE_PX[0], : NATIVE_PX[1]].astype(np.float32)
    channels = [127 + 100 * np.sin((x + 3 * number + shift_px) / (7 + c)) * np.cos(y / (5 + c)) for c in range(3)]
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def kitti_archives() -> dict[str, bytes]:
    """KITTI's archives by name, with a frame per drive."""
    buffer = BytesIO()
    Image.effect_noise((48, 16), 60).convert("RGB").save(buffer, "PNG")
    files = {}
    for archive in chosen_archives(None):
        if archive.drive is None:
            names = [f"calib_{kind}.txt" for kind in ("cam_to_cam", "imu_to_velo", "velo_to_cam")]
        else:
            cameras = [f"{archive.stem}/image_0{camera}/data/0000000000.png" for camera in range(4)]
            names = [*cameras, f"{archive.stem}/velodyne_points/data/0000000000.bin"]
        files[archive.name] = zip_of({f"{archive.date}/{name}": buffer.getvalue() for name in names})
    return files
