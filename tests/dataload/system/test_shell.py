"""Words of commands that messages suggest: what a shell makes of them is the name."""

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.system.shell import quoted

AWKWARD = [
    "",
    "-rf",
    "$(touch x)",
    "; touch x",
    "`id`",
    "'",
    "a'b\\",
    "a\\'b\n",
    "\x1b[31m0",
    "\udce9f",
    "é\u202e",
    "*",
    "~",
    "!x",
    "a\tb",
    "$'x'",
]


def of_bash(words: list[str]) -> list[str]:
    """The words that bash makes of them, one of its words each."""
    command = " ".join(["printf", r"'%s\0'", *map(quoted, words)])
    done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def test_a_shell_takes_each_for_the_name_that_it_is() -> None:
    assert of_bash(AWKWARD) == AWKWARD
    assert all(quoted(word).isprintable() for word in AWKWARD)
    assert quoted("plain/path_1.jpg") == "plain/path_1.jpg"


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(st.binary().filter(lambda name: b"\0" not in name), min_size=1))
def test_a_shell_takes_any_bytes_for_the_name_that_they_are(names: list[bytes]) -> None:
    words = [os.fsdecode(name) for name in names]
    assert of_bash(words) == words
