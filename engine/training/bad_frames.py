"""The frames that ``--bad_frames skip`` has skipped, named in a file of the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataload.system.console import console
from dataload.system.files import whole_file

BAD_FRAMES_FILE = "bad_frames.txt"


def name_bad_frames(run_folder: Path, found: Sequence[str]) -> None:
    """Add what is wrong with each of the frames that were found to what the file says already.

    Raises:
        OSError: it cannot be written.
    """
    path = run_folder / BAD_FRAMES_FILE
    before = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    named = list(dict.fromkeys([*before, *found]))
    if named == before:
        return
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in named), encoding="utf-8")
    console.warning("Bad frames  %d cannot be read and are skipped; %s names them", len(named), path)
