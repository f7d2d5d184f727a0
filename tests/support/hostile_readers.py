"""Readers of one path each, which ``hostile.read_apart`` calls in a process of its own."""

from pathlib import Path

import numpy as np

from dataload.ground_truth import read_ground_truth
from dataload.system.arrays import map_array, read_array
from engine.evaluation.disp_files import open_inv_depths
from splits.reading import read_lines


def read_plainly(path: Path) -> np.ndarray:
    return read_array(path, "an array", "write it again")


def map_plainly(path: Path) -> np.ndarray:
    return map_array(path, "an array", "write it again")


def read_disps(path: Path) -> object:
    return open_inv_depths(path, 4)


def read_truth(path: Path) -> object:
    return read_ground_truth(path)


def count_lines(path: Path) -> list[str]:
    return read_lines(path, "a list", "write it again")
