"""Which split is meant: a published name where the dataset has such, else a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import splits
from dataload.datasets import locate
from dataload.ground_truth import default_path


def make_list(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "test_files.txt").write_text("own 0 l\n", encoding="utf-8")


def test_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_list(tmp_path / "eigen")
    make_list(tmp_path / "data" / "splits" / "eigen")
    data = Path("data")
    assert locate("kitti", data, "eigen") == (data, "eigen")
    assert default_path("eigen", data) == data / "gt_depths_eigen.npz"
    _, split = locate("kitti", data, "./eigen")
    assert splits.read_lines(split, "test") == ["own 0 l"]
    # Folders of one's own have no published names.
    _, split = locate("folder", data, "eigen")
    assert splits.read_lines(split, "test") == ["own 0 l"]
    assert default_path(split, data) == Path("eigen") / "gt_depths.npz"
