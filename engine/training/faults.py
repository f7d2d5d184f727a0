"""Faults in the middle of a run: what they leave, and where the run stands then, in the one line that names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.parallel.ranks import Lost
from engine.training.checkpoint import latest_resumable
from splits.errors import InputError
from splits.faults import describe_fault


class Diverged(InputError):
    """A loss or weight is no number any more; to repeat what led there is no remedy."""


def last_checkpoint(models: Path) -> Path | None:
    """The checkpoint from which a run continues; None where it has none that is sound."""
    try:
        return latest_resumable(models)
    except (InputError, OSError):
        return None


@contextmanager
def told_where_it_stands(models: Path) -> Iterator[None]:
    """Within the block, what a user can mend says how to continue then.

    Raises:
        InputError: in the block something is missing, damaged, or cannot be written.
    """
    try:
        yield
    except (Diverged, Lost):  # which say it themselves
        raise
    except (InputError, OSError) as fault:
        folder = last_checkpoint(models)
        if folder is None:
            raise InputError(f"{describe_fault(fault)}. Nothing of this run is saved yet: mend that, then start again") from fault
        raise InputError(
            f"{describe_fault(fault)}. The run is saved in {folder}: mend that, then repeat the command with --resume"
        ) from fault
