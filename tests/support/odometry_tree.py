"""A small KITTI odometry tree: sequence 04 with images, sequence 05 with poses alone."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from engine.odometry.errors import absolute_poses
from engine.odometry.trajectory import kitti_rows

NUM_FRAMES = 12


def true_poses(num_frames: int, step_m: float = 1.0) -> np.ndarray:
    """A gentle bend."""
    motions = np.tile(np.eye(4), (num_frames - 1, 1, 1))
    motions[:, 0, 0] = motions[:, 2, 2] = math.cos(0.02)
    motions[:, 0, 2], motions[:, 2, 0] = math.sin(0.02), -math.sin(0.02)
    motions[:, 2, 3] = -step_m
    return absolute_poses(motions)


def make_tree(root: Path) -> Path:
    """Write the tree below ``root``; frames are smooth patterns that move sideways, five times per second."""
    (root / "poses").mkdir()
    (root / "poses" / "04.txt").write_text(kitti_rows(true_poses(NUM_FRAMES)))
    (root / "poses" / "05.txt").write_text(kitti_rows(true_poses(300)))
    folder = root / "sequences" / "04"
    (folder / "image_2").mkdir(parents=True)
    (folder / "times.txt").write_text("".join(f"{0.2 * i:e}\n" for i in range(NUM_FRAMES)))
    y, x = np.mgrid[0:75, 0:124]
    for index in range(NUM_FRAMES):
        channels = [127 + 100 * np.sin((x + 3 * index) / (7 + c)) * np.cos(y / (5 + c)) for c in range(3)]
        Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(folder / "image_2" / f"{index:06d}.jpg", quality=92)
    return root
