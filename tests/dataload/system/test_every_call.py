"""Publishing, replacing and removing, killed at every file-system call and failing at every one: readers find the old or the new, whole."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_disk import ERRORS
from places import PROJECT
from publishing import SCENARIOS

# The fewest calls that each makes; fewer would mean that some are not seen.
FEWEST = {
    "lock": 10,
    "file": 15,
    "file over another": 15,
    "removal": 25,
    "store": 25,
    "export over another": 30,
    "JPEG for a PNG": 20,
    "split lists over others": 30,
    "model with its pose network": 30,
}
QUICK = ("file over another", "folder over another", "folder over another in two steps", "removal")


def assert_old_or_new(name: str, kind: str) -> None:
    """Fails with the calls after which something was torn, lost or left behind."""
    program = Path(__file__).parents[2] / "support" / "publishing.py"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, program, name, kind], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *wrong, calls = done.stdout.splitlines()
    assert not wrong, "\n".join(wrong)
    assert int(calls.split()[0]) >= FEWEST.get(name, 40)


@pytest.mark.parametrize("name", QUICK)
def test_a_kill_between_any_two_calls_leaves_the_old_or_the_new(name):
    assert_old_or_new(name, "kill")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in QUICK])
def test_a_kill_between_any_two_calls_of_whatever_is_published_leaves_the_old_or_the_new(name):
    assert_old_or_new(name, "kill")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_any_call_that_fails_is_one_error_and_leaves_the_old_or_the_new(name, number):
    assert_old_or_new(name, str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_disk_that_is_full_from_any_call_on_leaves_the_old_or_the_new(name):
    assert_old_or_new(name, str(-errno.ENOSPC))
