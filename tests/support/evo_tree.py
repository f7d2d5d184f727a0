"""A small Evo tree: a camera that drives past a tilted, smoothly painted wall, so that depth and motion are known at every real pixel."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataload.frames.calibration import LEFT, RIGHT, Calibration, Intrinsics, write_calibration

FIRST_STAMP = 1_580_000_000_123_456_789
INTERVAL_NS = 500_000_000
# The wall: points X (metres, world) with NORMAL @ X = DISTANCE_M.
NORMAL, DISTANCE_M = np.array([-0.25, 0.1, 1.0]), 9.0
DEPTH_SCALE = 256


class Sequence(NamedTuple):
    """One sequence of the tree; frames ``frames``, of them those in ``without_depth`` have no depth."""

    name: str
    camera: Intrinsics
    frames: int = 6
    without_depth: tuple[int, ...] = ()
    fields: int = 7
    baseline_m: float | None = None

    def stamp(self, frame: int) -> int:
        return FIRST_STAMP + frame * INTERVAL_NS

    def file(self, root: Path, folder: str, frame: int, ext: str = ".jpg") -> Path:
        return root / self.name / folder / f"{self.name}_{self.stamp(frame):019d}{ext}"

    def line(self, frame: int) -> str:
        """As the wild has them: 7 fields, 3 with an index written as a float and two blanks, or 2."""
        c = self.camera
        numbers = f"{c.fx_px} {c.fy_px} {c.cx_px} {c.cy_px}"
        rest = {7: f" {frame} {numbers}", 3: f"  {float(frame)}", 2: ""}[self.fields]
        return f"{self.name} {self.stamp(frame):019d}{rest}"


# Native sizes of two classes, principal points off the middle; a dot and underscores in the name.
FULL = Sequence("ckad_01_ckad.v2_2020-10-29-17-01-56_0", Intrinsics(fx_px=139, fy_px=141, cx_px=104, cy_px=50, width_px=192, height_px=108))
SMALL = Sequence(
    "hospital_2", Intrinsics(fx_px=90, fy_px=92, cx_px=58, cy_px=40, width_px=128, height_px=72), without_depth=(2, 3), fields=3
)
SEQUENCES = (FULL, SMALL)


def T_world_camera(frame: int) -> np.ndarray:
    """(4, 4) float64: ahead, aside and turning a little."""
    angle = 0.012 * frame
    T = np.eye(4)
    T[0, 0] = T[2, 2] = np.cos(angle)
    T[0, 2], T[2, 0] = np.sin(angle), -np.sin(angle)
    T[:3, 3] = 0.06 * frame, 0.01 * frame, 0.35 * frame
    return T


def T_source_target(source: int, target: int) -> np.ndarray:
    """(4, 4): from the target's camera to the source's."""
    return np.linalg.inv(T_world_camera(source)) @ T_world_camera(target)


def view(K: np.ndarray, size_px: tuple[int, int], T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and depth (H, W) metres that a camera at ``T`` = T_world_camera sees, at the centres of the pixels."""
    v, u = np.mgrid[: size_px[0], : size_px[1]].astype(np.float64)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size_px)])
    world = np.tensordot(T[:3, :3], rays, 1)
    depth_m = (DISTANCE_M - NORMAL @ T[:3, 3]) / np.tensordot(NORMAL, world, 1)
    x, y, _ = world * depth_m + T[:3, 3, None, None]
    waves = (np.sin(1.9 * x) * np.cos(1.3 * y), np.sin(1.1 * x + 2 * y), np.cos(1.5 * y - 0.7 * x))
    return np.rint(127.5 + 110 * np.stack(waves, -1)).astype(np.uint8), depth_m


def write_sequence(root: Path, sequence: Sequence, *, ext: str = ".jpg", calibrated: bool | None = None) -> None:
    """Its images, depth and, by default where its lines bring no intrinsics, its ``calibration.yaml``."""
    camera = sequence.camera
    size_px, K = camera.size_px, camera.K(*camera.size_px).astype(np.float64)
    for frame in range(sequence.frames):
        image, depth_m = view(K, size_px, T_world_camera(frame))
        save(sequence.file(root, "front_rgb_left", frame, ext), image)
        if sequence.baseline_m is not None:
            right = T_world_camera(frame)
            right[:3, 3] += sequence.baseline_m * right[:3, 0]
            save(sequence.file(root, "front_rgb_right", frame, ext), view(K, size_px, right)[0])
        if frame not in sequence.without_depth:
            save(sequence.file(root, "front_depth_left", frame, ".png"), np.rint(depth_m * DEPTH_SCALE).astype(np.uint16))
    if calibrated if calibrated is not None else sequence.fields < 7 or sequence.baseline_m is not None:
        cameras = {LEFT: camera} | ({RIGHT: camera} if sequence.baseline_m is not None else {})
        write_calibration(root / sequence.name / "calibration.yaml", Calibration(cameras=cameras, baseline_m=sequence.baseline_m))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


def write_lists(folder: Path, lines: list[str], subsets: tuple[str, ...] = ("train", "val", "test")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for subset in subsets:
        (folder / f"{subset}_files.txt").write_text("\n".join(lines) + "\n")


def write_evo_tree(root: Path, sequences: tuple[Sequence, ...] = SEQUENCES, *, ext: str = ".jpg") -> Path:
    """The sequences, and lists of all their frames in ``splits/evo``."""
    for sequence in sequences:
        write_sequence(root, sequence, ext=ext)
    write_lists(root / "splits" / "evo", [sequence.line(frame) for sequence in sequences for frame in range(sequence.frames)])
    return root
