"""The wheel carries the rooms and the facts, its commands work from elsewhere, and the rooms imported are ours."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import PROJECT, ROOMS

from dataload.system.installing import EXTRA_PACKAGES, pip_install
from splits.version import DISTRIBUTION


@pytest.fixture(scope="module")
def metadata(installed: Path) -> PathDistribution:
    """What the wheel says of itself."""
    return PathDistribution(next(installed.glob("*.dist-info")))


def requirements(metadata: PathDistribution, extra: str, **environment: str) -> list[Requirement]:
    """What is installed with an extra ("" for none) where the environment's markers say so."""
    asked = [Requirement(text) for text in metadata.requires or []]
    given = environment | {"extra": extra}
    return [each for each in asked if each.marker is None or each.marker.evaluate(given)]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_ours(room):
    # The rooms have plain names; another package of the same name must not shadow them.
    assert Path(importlib.import_module(room).__file__).parent == PROJECT / room


def test_the_wheel_works_from_elsewhere(installed, tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import engine, splits\n"
        f"assert engine.__file__.startswith({str(installed)!r}), engine.__file__\n"
        "assert len(splits.read_lines('eigen', 'test')) == 697\n"
        "from engine.commands.md_train import md_train; md_train(['--dry_run', '--height', '96'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["height"] == 96


def test_the_wheel_names_the_commands(installed):
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    for command in ("md-train", "md-eval", "md-export", "md-predict", "md-data"):
        assert f"{command} = " in entry_points


@pytest.mark.parametrize(
    "name", ["engine/colormaps.png", "export/targets/model_card.md.j2", "export/targets/page/index.html", "export/targets/page/sw.js"]
)
def test_the_wheel_carries_what_is_no_python(installed, name):
    assert (installed / name).read_bytes() == (PROJECT / name).read_bytes()


def test_the_wheel_holds_nothing_but_the_rooms_and_what_it_says_of_itself(installed):
    tops = {path.name for path in installed.iterdir()}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(ROOMS)
    endings = {path.suffix for path in installed.rglob("*") if path.is_file() and "dist-info" not in str(path)}
    assert endings <= {".py", ".typed", ".json", ".md", ".png", ".j2", ".js", ".css", ".html", ".svg"}


@pytest.mark.parametrize("extra", list(EXTRA_PACKAGES))
def test_messages_name_the_packages_of_the_extra(metadata, extra):
    plain = {str(each) for each in requirements(metadata, "")}
    wanted = [each for each in requirements(metadata, extra) if str(each) not in plain]
    said = [Requirement(text) for text in EXTRA_PACKAGES[extra]]
    assert [canonicalize_name(each.name) for each in said] == [canonicalize_name(each.name) for each in wanted]
    for ours, theirs in zip(said, wanted, strict=True):
        upper = {str(bound) for bound in theirs.specifier if bound.operator in ("<", "<=", "==", "~=")}
        assert {str(bound) for bound in ours.specifier} == upper, "a bound that pip would need"


def test_the_commands_to_install_are_ready_for_a_shell():
    assert pip_install("bags") == "pip install 'rosbags<0.12' apsw lz4"
    assert pip_install("video") == "pip install av"


def test_elsewhere_than_on_linux_nothing_is_required_that_has_no_wheels_there(metadata):
    here = {each.name for each in requirements(metadata, "", sys_platform="linux")}
    for platform in ("darwin", "win32"):
        there = {each.name for each in requirements(metadata, "", sys_platform=platform)}
        assert here - there == {"nvidia-dali-cuda130", "onnxruntime-gpu"}
        assert there - here == {"onnxruntime"}
    assert metadata.metadata["Name"] == DISTRIBUTION
