"""What all processes of a run must have alike, compared before it starts: else it would hang later, or have a wrong result."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.parallel.ranks import Ranks
from splits.errors import InputError
from splits.version import version

# Options that may differ between processes: what belongs to a machine, and changes no number.
OF_A_MACHINE = ("data_path", "frame_store", "frame_store_dir", "num_workers")

# A file that another machine has just written may be seen some seconds later on a shared file system.
SEEN_WITHIN_S, LOOK_S = 30.0, 0.5


def require_same(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Raise the same ``InputError`` on all ranks where one has other facts than rank 0; names the first difference.

    Args:
        facts: what this process has, by the name that a message gives it; values that JSON has.
    """
    first, *others = ranks.gather({"host": socket.gethostname(), "facts": facts})
    for rank, other in enumerate(others, 1):
        for name in [*first["facts"], *(name for name in other["facts"] if name not in first["facts"])]:
            mine, theirs = (said["facts"].get(name, "(unknown)") for said in (first, other))
            if mine != theirs:
                raise InputError(
                    f"{name} differs between the processes: {_text(mine)} on rank 0 ({first['host']}), {_text(theirs)} on rank {rank} "
                    f"({other['host']}); start all of them with the same command, version and data"
                )


def versions() -> dict[str, str]:
    """The versions on which numbers depend, as facts for ``require_same``; imports torch."""
    import torch

    return {"the version of this engine": version(), "torch's version": torch.__version__}


def config_facts(config: Any) -> dict[str, Any]:
    """What all processes of an evaluation must have alike, as facts for ``require_same``: versions, and all options but a machine's own.

    Args:
        config: a dataclass.
    """
    options = json.loads(json.dumps(asdict(config), default=str))
    return {name: value for name, value in options.items() if name not in OF_A_MACHINE} | versions()


def digest(lines: Iterable[str]) -> str:
    """A short text that is another one for other lines."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def require_shared(ranks: Ranks, folder: Path, remedy: str) -> None:
    """``InputError`` on all ranks where one does not see in ``folder`` what rank 0 writes there: on another machine, not the same disk.

    Args:
        folder: rank 0 has it.
        remedy: what to do about it.
    """
    if ranks.world == 1:
        return
    mark = Path(ranks.of_first(str(folder / f".seen-by-all-{time.time_ns()}")))
    if ranks.is_first:
        mark.touch()
    try:
        ranks.meet()
        blind = [host for host in ranks.gather(None if _appears(mark) else socket.gethostname()) if host is not None]
    finally:
        if ranks.is_first:
            with suppress(OSError):
                mark.unlink()
    if blind:
        raise InputError(f"{folder} is not on a file system that all machines share: what rank 0 writes is missing on {blind[0]}; {remedy}")


def _appears(mark: Path) -> bool:
    until_s = time.monotonic() + SEEN_WITHIN_S
    while not mark.exists():
        if time.monotonic() > until_s:
            return False
        with suppress(OSError):  # asks a network file system again
            list(mark.parent.iterdir())
        time.sleep(LOOK_S)
    return True


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
