"""A split is a name or a folder; what is wrong with it is said with its place and remedy."""

from pathlib import Path

import pytest

import splits
from splits.errors import InputError


def test_folder_is_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "train_files.txt").write_text("drive 1 l\r\n\r\ndrive 2 l\r\n", encoding="utf-8")
    assert splits.read_lines(str(tmp_path), "train") == ["drive 1 l", "", "drive 2 l"]
    assert splits.subset_source(str(tmp_path), "train") == str(tmp_path / "train_files.txt")
    assert splits.subset_source("eigen_zhou", "train") == "split eigen_zhou, train"


def test_a_published_name_wins_and_a_path_means_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    published = {name: {subset: splits.read_lines(name, subset) for subset in splits.subsets(name)} for name in splits.NAMES}
    for name, lists in published.items():
        (tmp_path / name).mkdir()
        for subset, lines in lists.items():
            assert splits.read_lines(name, subset) == lines
            assert splits.subset_source(name, subset) == f"split {name}, {subset}"
    (tmp_path / "eigen" / "test_files.txt").write_text("mine 0 l\n", encoding="utf-8")
    for path in ("./eigen", "eigen/", str(tmp_path / "eigen")):
        assert splits.read_lines(path, "test") == ["mine 0 l"]
        assert splits.subset_source(path, "test") == str(Path(path) / "test_files.txt")


def test_typo_names_the_near_one_and_all_choices() -> None:
    with pytest.raises(InputError, match=r"'eigen_zhuo' is neither a folder nor a known name; did you mean 'eigen_zhou'\?.*odom"):
        splits.read_lines("eigen_zhuo", "train")


def test_file_given_for_folder(tmp_path: Path) -> None:
    path = tmp_path / "train_files.txt"
    path.write_text("a 0 l\n", encoding="utf-8")
    with pytest.raises(InputError, match="is a file; give its folder"):
        splits.read_lines(str(path), "train")


def test_named_split_without_that_list() -> None:
    with pytest.raises(InputError, match=r"eigen has no train list, only test; splits with train: eigen_zhou"):
        splits.read_lines("eigen", "train")


def test_folder_without_that_list_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val_files.txt is missing; the folder has no \*_files.txt at all"):
        splits.read_lines(str(tmp_path), "val")
    (tmp_path / "test_files.txt").write_text("a 0 l\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"val_files.txt is missing; the folder has test_files.txt"):
        splits.read_lines(str(tmp_path), "val")


@pytest.mark.parametrize(("content", "message"), [(b"\n \n", "is empty; write one"), (b"\xff\xfe\x00a", "is not UTF-8 text")])
def test_unusable_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train_files.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        splits.read_lines(str(tmp_path), "train")
