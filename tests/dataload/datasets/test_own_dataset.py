"""Datasets of one's own: a class in a file beside, or of an installed package, by the name that --dataset takes."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataload.datasets import dataset_class
from dataload.datasets.base import Dataset
from engine.commands.md_train import md_train
from splits.errors import InputError

SOURCE = """
import numpy as np
from dataload.datasets.base import Dataset


class Mine(Dataset):
    default_split = "mine"

    def image_folder(self, folder, side):
        return self.data_path / folder / side

    def image_name(self, folder, side, frame_index):
        return f"{frame_index}.jpg"

    def K(self, ref, height_px, width_px):
        return np.diag([width_px, width_px, 1]).astype(np.float32)


class Other:
    pass
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a file of one's own in it."""
    (tmp_path / "my_own_data.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_own_data", "needs_more"):
        sys.modules.pop(name, None)


def test_a_class_in_a_file_of_the_current_folder_is_a_dataset(place: Path) -> None:
    cls = dataset_class("my_own_data:Mine")
    assert issubclass(cls, Dataset)
    assert cls.__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_own_data:Mina", "my_own_data has no class 'Mina' that is a dataload.datasets.base.Dataset"),
        ("my_own_data:Other", "my_own_data has no class 'Other' that is a dataload.datasets.base.Dataset"),
        ("my_own_daat:Mine", "no module my_own_daat; install it, or run where my_own_daat.py lies"),
        ("my.own.data:Mine", "no module my; install it, or run where my.py lies"),
    ],
)
def test_a_class_that_is_not_there_is_one_message(place: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        dataset_class(name)
    assert str(caught.value) == f"dataset {name!r}: {message}"


def test_what_a_file_of_ones_own_lacks_keeps_its_traceback(place: Path) -> None:
    (place / "needs_more.py").write_text("import absent_package_of_mine\n")
    with pytest.raises(ModuleNotFoundError, match="absent_package_of_mine"):
        dataset_class("needs_more:Mine")


def install(site: Path, entry_points: str) -> None:
    """A package with those entry points."""
    info = site / "robot_data-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robot-data\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_the_entry_points_of_before_are_read_with_a_warning(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "old", "[md_engine.datasets]\nrobot = my_own_data:Mine\n")
    monkeypatch.syspath_prepend(place / "old")
    message = (
        r"^the entry point group md_engine\.datasets \(of dataset 'robot', my_own_data:Mine\) is deprecated and will be gone in "
        r"version 0\.4; use monodepth_engine\.datasets$"
    )
    with pytest.warns(DeprecationWarning, match=message) as warned:
        assert dataset_class("robot").__name__ == "Mine"
    assert len(warned) == 1
    install(place / "both", "[md_engine.datasets]\nrobot = nothing:There\n[monodepth_engine.datasets]\nrobot = my_own_data:Mine\n")
    monkeypatch.syspath_prepend(place / "both")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataset_class("robot").__name__ == "Mine"


def test_an_installed_packages_entry_point_is_a_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "site", "[monodepth_engine.datasets]\nrobot = my_own_data:Mine\n")
    monkeypatch.syspath_prepend(place / "site")
    assert dataset_class("robot").__name__ == "Mine"
    with pytest.raises(
        InputError, match=r"dataset 'robt' is unknown; did you mean 'robot'\? choose from kitti, .*, robot, or name a class"
    ):
        dataset_class("robt")
    dry = CliRunner().invoke(md_train, ["--dataset", "robot", "--data_path", ".", "--split", ".", "--dry_run"])
    assert dry.exit_code == 0, dry.output
    assert '"dataset": "robot"' in dry.output


def test_options_that_a_dataset_cannot_be_given_are_refused(place: Path) -> None:
    with pytest.raises(InputError, match=r"^dataset Mine knows no --intrinsics; leave it out$"):
        dataset_class("my_own_data:Mine")(place, ".jpg", intrinsics=(1, 1, 1, 1))


def test_console_scripts_find_a_file_of_the_current_folder(place: Path) -> None:
    """They do not have it on their path; the interpreter is asked to forget it too."""
    code = "import sys; sys.path.remove(''); from engine.commands.md_train import md_train; md_train()"
    arguments = ["--dataset", "my_own_data:Mine", "--data_path", ".", "--dry_run"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=place, check=False)
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(
        "no split 'mine' and no folder splits/mine; md-data splits --from . --dataset my_own_data:Mine makes one there"
    )
