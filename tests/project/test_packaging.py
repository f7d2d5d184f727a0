"""The wheel carries the rooms and the facts, its commands work from elsewhere, and the rooms imported are ours."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT, ROOMS


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
