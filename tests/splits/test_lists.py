"""The regenerated lists equal the published ones: counts, SHA-256 of the sorted lines, and of the lines as they come."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

import splits
from splits.rules import facts

# split, subset, lines, SHA-256 of the sorted lines, SHA-256 of the published file where its order was not a shuffle
LISTS = [
    ("eigen_zhou", "train", 39810, "ef04937576ba23eed89803713e85389d2c8da60baffc61b289980e2bcc67ef75", None),
    ("eigen_zhou", "val", 4424, "ba106cbf66eb864b8a23153f4dd2dd0b9e1fe94f95ee35a61037181bc4bd8914", None),
    ("eigen_full", "train", 45200, "3e781a43c0f433f7eb7809641c2cd3bf5d392186136e9c239f5de29f1063dc68", None),
    ("eigen_full", "val", 1776, "038a76c9c1e7ce89b56767356ba8d333c3cd8ca34fefbdc1ebcc8a3a59067361", None),
    (
        "eigen",
        "test",
        697,
        "1ef11653252ec9bd799a41cacd8078317437f79ca26af21ae71d8f6a2d3bec67",
        "e226d4ca16e0e6e9695435014347dcf973588531330536fd8a68d298ef091a6b",
    ),
    (
        "eigen_benchmark",
        "test",
        652,
        "048373a901ac64dd09b204f580924777300304f8becaa246c64a7558c5cac2ff",
        "d56e5e509e6960a01fb93795f85028ac6e4a82ad40e64b6e968988e4db95b9be",
    ),
    ("benchmark", "train", 72084, "8a18f9d55309e78146521badf544d3dcba16b5616618e28e32931b76ef008133", None),
    (
        "benchmark",
        "val",
        6060,
        "cbe4d895ac8ed2ec0bdf5924608fce76397ab762b9d9f6e52ea7cb68ef3086bd",
        "5c65577de234037bec0c792d7bf44c60b7fb367449266054eb4612a5e92bfa08",
    ),
    (
        "benchmark",
        "test",
        500,
        "e8dfb72a3e4aa18cdd7f44275ea8551bcaba4f982d076a47eff72eb6e4a5b3ad",
        "b9b0746d2e5263d975fd082d6e82d592971adc9e6a2fdf370a8cf78519161d28",
    ),
    ("odom", "train", 36671, "2fee2821d91ac95a5a1e7275c6b8b90940bec164b1a6d38a6826f1b0fd6bf984", None),
    ("odom", "val", 4075, "57243e88611c414bbfaa44452fb8569e7fe9917ea61f8c527d33fd218a3be57a", None),
    (
        "odom",
        "test_09",
        1590,
        "111ecb111267039f6cd131f90e4299ee244fb494bbb5837a3fa3ac78c916c05a",
        "8b999b6f974041663ba2f8aa6456ea338089a272119b7edd702f352278f43d26",
    ),
    (
        "odom",
        "test_10",
        1200,
        "046a0b482b7d189d1bc27daa97c08e8b6c6c5c4bc486311fb580699e6dc9e680",
        "f39c47e0c21f65d4503476375f2a786def34f54bd5d1cabf28c7e68f002986a1",
    ),
]
ARCHIVES_SHA256 = "9899630a856ea2661a06d223440561395792e15538ebe97f3b719a04b91e4386"
IDS_SHA256 = "423edc393b2ef1bc4006bf727f93f3ff5c7ca361b40a3585aecbe3628e7e6441"


def sha256(lines: list[str]) -> str:
    return hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()


@pytest.mark.parametrize(("split", "subset", "count", "sorted_sha256", "file_sha256"), LISTS, ids=[f"{row[0]}-{row[1]}" for row in LISTS])
def test_list_equals_the_published_one(split: str, subset: str, count: int, sorted_sha256: str, file_sha256: str | None) -> None:
    lines = splits.read_lines(split, subset)
    assert len(lines) == count
    assert sha256(sorted(lines)) == sorted_sha256
    if file_sha256 is not None:
        assert sha256(lines) == file_sha256


def test_every_list_is_covered_here() -> None:
    assert [(row[0], row[1]) for row in LISTS] == [(name, subset) for name in splits.NAMES for subset in splits.subsets(name)]


def test_archives_and_ids_equal_the_published_ones() -> None:
    assert sha256(splits.archives()) == ARCHIVES_SHA256
    ids = splits.eigen_to_benchmark_ids()
    assert hashlib.sha256(np.array(ids, dtype="<i8").tobytes()).hexdigest() == IDS_SHA256


def test_eigen_benchmark_is_eigen_at_the_ids() -> None:
    eigen, benchmark = splits.read_lines("eigen", "test"), splits.read_lines("eigen_benchmark", "test")
    assert [(folder, int(frame)) for folder, frame, _ in map(str.split, benchmark)] == [
        (eigen[i].split()[0], int(eigen[i].split()[1])) for i in splits.eigen_to_benchmark_ids()
    ]


@pytest.mark.parametrize("split", ["eigen_zhou", "eigen_full", "benchmark", "odom"])
def test_train_val_and_eigen_test_drives_are_apart(split: str) -> None:
    train, val = splits.read_lines(split, "train"), splits.read_lines(split, "val")
    assert not set(train) & set(val)
    assert len(set(train)) == len(train)
    if split.startswith("eigen"):
        test_drives = {line.split()[0] for line in splits.read_lines("eigen", "test")}
        assert not test_drives & {line.split()[0] for line in itertools.chain(train, val)}


def test_eigen_zhou_has_both_neighbours() -> None:
    frames = {drive.replace("/", "_drive_"): count for drive, count in facts()["drive_frames"].items()}
    for line in splits.read_lines("eigen_zhou", "train")[::97]:
        folder, frame, _ = line.split()
        assert 1 <= int(frame) <= frames[folder.split("/")[1].removesuffix("_sync")] - 2


def test_written_splits_read_back_equal(tmp_path: Path) -> None:
    written = splits.write_splits(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")}
    for split, subset, *_ in LISTS:
        assert splits.read_lines(str(tmp_path / split), subset) == splits.read_lines(split, subset)
    assert (tmp_path / "odom" / "test_files_09.txt").is_file()
    assert np.load(tmp_path / "benchmark" / splits.IDS_FILE).tolist() == splits.eigen_to_benchmark_ids()


def test_readme_states_these_counts_and_checksums() -> None:
    readme = Path(splits.__file__).with_name("README.md").read_text(encoding="utf-8")
    for _, _, count, sorted_sha256, _ in LISTS:
        assert f"| {count} | `{sorted_sha256}` |" in readme
    assert ARCHIVES_SHA256 in readme
    assert IDS_SHA256 in readme
