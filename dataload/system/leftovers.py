"""Temporary names of outputs, unique to a process; and clearing what a killed process has left under them."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

# The process, and something random: two hosts that write to one disk may have processes of the same number.
TOKEN = r"\d+-[0-9a-f]{8}"
TEMPORARY = re.compile(rf"\.(?P<stem>.+)\.{TOKEN}\.(?P<kind>tmp|old)(?P<suffix>(\.[^.]*)?)")
MAX_NAME_BYTES = 255


def temporary_of(path: Path) -> Path:
    """A name beside ``path`` to write under that no other process has; the ending stays, by which some writers choose the format."""
    return _beside(path, "tmp")


def aside_of(path: Path) -> Path:
    """A name beside ``path`` for what is there until something new is in its place."""
    return _beside(path, "old")


def hidden_name(name: str, ending: str) -> str:
    """``.<name><ending>``; a name for which that is too long is replaced by its hash."""
    hidden = f".{name}{ending}"
    return hidden if len(os.fsencode(hidden)) <= MAX_NAME_BYTES else f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{ending}"


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(hidden_name(path.stem, f".{os.getpid()}-{secrets.token_hex(4)}.{kind}{path.suffix}"))


def output_of(name: str) -> str | None:
    """The name of the output that a temporary name was made for; None for any other name."""
    match = TEMPORARY.fullmatch(name)
    return None if match is None else match["stem"] + match["suffix"]


def clear_leftover(leftover: Path) -> None:
    """Put an output back that was moved aside and not replaced, and remove what else was left; the caller holds the output's lock."""
    name = output_of(leftover.name)
    assert name is not None, leftover
    with suppress(OSError):  # on a disk that cannot be written the work itself will say so
        if TEMPORARY.fullmatch(leftover.name)["kind"] == "old" and not os.path.lexists(leftover.with_name(name)):  # type: ignore[index]
            leftover.rename(leftover.with_name(name))
        elif leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
