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
# As earlier versions named them, whose runs and datasets may still hold some.
EARLIER = (
    re.compile(r"\.(?P<stem>.+)\.\d+\.(?P<kind>tmp)(?P<suffix>(\.[^.]*)?)"),
    re.compile(r"\.(?P<stem>(step|weights)_\d+|best)\.(?P<kind>tmp|old)(?P<suffix>)"),
    re.compile(r"\.(?P<stem>.+)\.(?P<kind>unpacking|partial)(?P<suffix>)"),
)
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
    return hidden if len(os.fsencode(hidden)) <= MAX_NAME_BYTES else f".{_hash(name)}{ending}"


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(hidden_name(path.stem, f".{os.getpid()}-{secrets.token_hex(4)}.{kind}{path.suffix}"))


def output_of(name: str) -> str | None:
    """The name of the output that a temporary name was made for, or its hash where it is too long; None for any other name."""
    match = _match(name)
    return None if match is None else match["stem"] + match["suffix"]


def is_leftover_of(name: str, output: Path) -> bool:
    """Whether a temporary name was made for this output."""
    return output_of(name) in (output.name, f"{_hash(output.stem)}{output.suffix}")


def is_aside(name: str) -> bool:
    """Whether a temporary name is of what was moved aside, to be put back where nothing has taken its place."""
    match = _match(name)
    return match is not None and match["kind"] == "old"


def clear_leftover(leftover: Path, output: Path) -> None:
    """Put an output back that was moved aside and not replaced, and remove what else was left; the caller holds the output's lock."""
    with suppress(OSError):  # on a disk that cannot be written the work itself will say so
        if is_aside(leftover.name) and not os.path.lexists(output):
            leftover.rename(output)
        else:
            remove_temporary(leftover)


def remove_temporary(path: Path) -> None:
    """Remove a file or folder of a temporary name as far as it can be: what stays is cleared by the next that holds the output."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _match(name: str) -> re.Match[str] | None:
    return next((match for form in (TEMPORARY, *EARLIER) if (match := form.fullmatch(name))), None)
