"""Frames that cannot be read and are skipped (``--bad_frames skip``): known once, named, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from dataload.system.console import console
from splits.errors import InputError

# More is no damage to single files: a disk that is gone, or a dataset that was copied in part.
MOST_SHARE, MOST_OF_FEW = 0.01, 10
# So many are named in the log.
NAMED = 3


class TooManyBadFrames(InputError):
    """More frames cannot be read than are skipped."""


class BadFrames:
    """The frames that this process could not read; from any thread.

    Args:
        num_samples: of all lists of the run, by which their number is bounded.
    """

    def __init__(self, num_samples: int) -> None:
        self.most = max(MOST_OF_FEW, int(MOST_SHARE * num_samples))
        self._faults: dict[Path, str] = {}
        self._lock = threading.Lock()

    def reads(self, path: Path, read: Callable[[], object]) -> bool:
        """Whether ``read`` reads the frame of a file; once it could not, it is not tried again.

        Raises:
            TooManyBadFrames: this one is one too many.
        """
        if path in self._faults:
            return False
        try:
            read()
        except InputError as fault:
            self._add(path, fault)
            return False
        return True

    def lines(self) -> list[str]:
        """What is wrong with each, in the order in which they were found."""
        with self._lock:
            return list(self._faults.values())

    def _add(self, path: Path, fault: InputError) -> None:
        with self._lock:
            self._faults.setdefault(path, str(fault))
            number = len(self._faults)
        if number > self.most:
            raise TooManyBadFrames(
                f"{number} frames cannot be read, and --bad_frames skip skips {self.most} at most: is their disk still there? "
                f"The last of them: {fault}"
            )
        if number <= NAMED:
            rest = "; further ones are not named here" if number == NAMED else ""
            console.warning("Bad frame   skipped: %s%s", fault, rest)
