"""Every dataset keeps the promises of the class they all are; each broken one is told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspected_trees import STAMP, evo_tree, write_camera, write_depth, write_frames
from PIL import Image

from dataload.check.contract import contract_faults
from dataload.datasets import DATASETS, make_dataset
from dataload.datasets.base import Dataset
from dataload.datasets.folder import Folder
from dataload.demo.world import WorldConfig, ensure
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
DEPTH = "a street/depth/0001.png"
NAMES = [f"{index:04d}.jpg" for index in range(4)]


def kitti_depth(root: Path) -> Path:
    for camera in ("image_02", "image_03"):
        names = [f"{index:010d}.jpg" for index in range(5)]
        write_frames(root / DRIVE / camera / "data", names)
        write_depth(root / DRIVE / "proj_depth" / "groundtruth" / camera, names[:3], 20)
    return root


def kitti_odom(root: Path) -> Path:
    for camera in ("image_2", "image_3"):
        write_frames(root / "sequences" / "09" / camera, [f"{index:06d}.jpg" for index in range(4)])
    return root


def kitti_test(root: Path) -> Path:
    (root / "image").mkdir()
    for index in range(3):
        Image.new("RGB", (96, 64), (50 * index, 20, 200)).save(root / "image" / f"{index:010d}.png")
    return root


def stereo_folder(root: Path) -> Path:
    for side, offset in (("left", 0), ("right", 8)):
        write_frames(root / "a street" / side, NAMES, offset=offset)
    write_depth(root / "a street" / "depth", NAMES[:2], 9)
    write_camera(root, baseline_m=0.3)
    return root


def demo(root: Path) -> Path:
    return ensure(root / "world", config=WorldConfig(height_px=64, width_px=192, drives=4, frames=3), progress=False)


# Of each dataset: how to make a tree, its lines, with depth and without.
TREES: dict[str, tuple[Callable[[Path], Path] | None, list[str]]] = {
    "kitti": (None, [f"{DRIVE} {index} {side}" for index in (1, 3) for side in "lr"]),
    "kitti_odom": (kitti_odom, ["9 1 l", "09 2 r"]),
    "kitti_depth": (kitti_depth, [f"{DRIVE} {index} {side}" for index in (1, 4) for side in "lr"]),
    "kitti_test": (kitti_test, ["image 0", "image 2"]),
    "evo": (lambda root: evo_tree(root, "site_a_0", [0, 0.1, 0.2]), [f"site_a_0 {STAMP}", f"site_a_0 {STAMP + 10**8} 1.0 190 190 159 47"]),
    "folder": (stereo_folder, ["a%20street 0001 l", "a%20street 0003 r"]),
    "demo": (demo, [f"2000_01_01/2000_01_01_drive_0001_sync 1 {side}" for side in "lr"]),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_keeps_the_contract(name: str, tmp_path: Path, kitti_tree: Callable[..., Path]) -> None:
    make, lines = TREES[name]
    dataset = make_dataset(name, kitti_tree() if make is None else make(tmp_path))
    refs = dataset.refs(lines, source="test")
    assert len(refs) == len(lines)
    assert contract_faults(dataset, refs) == []


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stereo_folder(tmp_path_factory.mktemp("sound"))


def broken(root: Path, **methods: Any) -> list[str]:
    dataset = type("Broken", (Folder,), methods)(root)
    return contract_faults(dataset, Folder(root).refs(["a%20street 0001 l", "a%20street 0002 l"], source="test"))


def swapped_sizes(self: Dataset, ref: FrameRef, height_px: int, width_px: int) -> np.ndarray:
    return Folder.K(self, ref, width_px, height_px)  # type: ignore[arg-type]


def of_one_size(self: Dataset, ref: FrameRef, height_px: int, width_px: int) -> np.ndarray:
    return Folder.K(self, ref, 192, 640)  # type: ignore[arg-type]


def in_float64(self: Dataset, ref: FrameRef, height_px: int, width_px: int) -> np.ndarray:
    return Folder.K(self, ref, height_px, width_px).astype(np.float64)  # type: ignore[arg-type]


def same_for_all_offsets(self: Dataset, ref: FrameRef, frame_id: int = 0, *, stereo: bool = False) -> Path:
    return Folder.image_path(self, ref, 0, stereo=stereo)  # type: ignore[arg-type]


def one_sided(self: Dataset, ref: FrameRef) -> np.ndarray:
    return Folder.T_stereo(self, ref._replace(side="l"))  # type: ignore[arg-type]


def turned_round(self: Dataset, ref: FrameRef) -> np.ndarray:
    return np.linalg.inv(Folder.T_stereo(self, ref))  # type: ignore[arg-type]


def next_frames(self: Dataset, lines: Sequence[str], *, source: str) -> tuple[FrameRef, ...]:
    return tuple(ref._replace(frame_index=ref.frame_index + 1) for ref in Folder.refs(self, lines, source=source))  # type: ignore[arg-type]


def depth_with_holes(self: Dataset, ref: FrameRef) -> np.ndarray:
    return np.full((4, 5), np.nan, np.float32)


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ({"K": swapped_sizes}, "K() does not scale with width_px"),
        ({"K": of_one_size}, "K() does not scale with height_px"),
        ({"K": in_float64}, "K() is float64 of shape (3, 3)"),
        ({"K": lambda *_: -np.eye(3, dtype=np.float32)}, "K() has focal lengths -1 and -1"),
        ({"image_path": same_for_all_offsets}, "image_path() of frame_id -1 is the target's own"),
        ({"image_name": lambda *_: "x.jpg"}, "x.jpg, which is not there"),
        ({"image_path": lambda self, *_, **__: self.data_path / "calibration.yaml"}, "not image_folder() / image_name()"),
        ({"T_stereo": one_sided}, "T_stereo() of the two cameras are not each other's inverse"),
        ({"T_stereo": turned_round}, "T_stereo() of camera l moves points by +0.1 along x"),
        ({"T_stereo": lambda *_: 2 * np.eye(4, dtype=np.float32)}, "no rotation and translation"),
        ({"refs": next_frames}, "refs() reads the line"),
        ({"depth_m": lambda *_: None}, "depth_m() is None though"),
        ({"depth_m": depth_with_holes}, "depth_m() is not finite or below 0"),
        ({"eval_sparse_depth": lambda *_: SparseDepth.of(np.ones((2, 3), np.float32))}, "eval_sparse_depth() is of (2, 3) pixels"),
        ({"depth_places": lambda *_: [Path("x")], "depth_source": lambda self, _: self.data_path / DEPTH}, "none of depth_places()"),
        ({"depth_source": lambda *_: None, "depth_m": depth_with_holes}, "depth_m() has depth though depth_source() is None"),
        ({"metric_factor": -1.0}, "metric_factor is -1.0"),
        ({"side": lambda *_: "left"}, "side() is 'left', neither l nor r"),
        ({"with_sources": lambda self, refs, **_: refs[::-1]}, "with_sources gives other references"),
    ],
)
def test_each_broken_promise_is_told(sound: Path, methods: dict[str, Any], told: str) -> None:
    found = broken(sound, **methods)
    assert any(told in fault for fault in found), found


def test_a_fault_of_many_frames_is_told_once(sound: Path) -> None:
    assert len([fault for fault in broken(sound, K=of_one_size) if "height_px" in fault and "does not scale with height" in fault]) == 1
