"""The line that the documentation gives for completion in bash, evaluated by a real one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

(LINE,) = re.findall(r"^for .*_COMPLETE=bash_source.*$", (PROJECT / "docs" / "first_steps.md").read_text(encoding="utf-8"), re.MULTILINE)
# Asks as bash does when the tab key is pressed at the end of the words given.
ASK = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_md_${1#md-}_completion" "$1"; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the five commands, as an installation puts them there."""
    folder = tmp_path_factory.mktemp("bin")
    entries = re.findall(r'"(md-\w+) = ([\w.]+):(\w+)"', (PROJECT / "setup.py").read_text(encoding="utf-8"))
    assert len(entries) == 5
    for name, module, function in entries:
        path = folder / name
        path.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
        path.chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("md-data", "do"), ["doctor", "download"]),
        (("md-train", "--frame_store", ""), ["none", "disk", "gpu", "auto"]),
        (("md-eval", "--alig"), ["--alignment"]),
        (("md-export", "--precision", "f"), ["fp32", "fp16"]),
        (("md-predict", "--provider", "c"), ["cpu", "cuda"]),
    ],
)
def test_bash_completes(commands: Path, words: tuple[str, ...], found: list[str]) -> None:
    given = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(["bash", "-c", f"{LINE}\n{ASK}", "bash", *words], env=given, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == found
