"""The pace of training, and the share of time that it waits for data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Pace(NamedTuple):
    """Speed over a span: samples per second of wall time, and the share of it spent waiting for the loader."""

    samples_per_s: float
    wait_share: float


class Mark(NamedTuple):
    """A moment: the clock's time, and what was counted by then."""

    time_s: float
    wait_s: float
    samples: int


class Stopwatch:
    """Wall time, samples and waits for the loader.

    Args:
        waited_s: how long the loader has been waited for, in all.
    """

    def __init__(self, waited_s: Callable[[], float]) -> None:
        self._waited_s = waited_s
        self._samples = 0
        self._start = self.mark()

    def restart(self) -> None:
        """Exclude everything so far from every later pace."""
        self._start = self.mark()

    def count(self, samples: int) -> None:
        """Add used samples."""
        self._samples += samples

    def mark(self) -> Mark:
        """The mark of this moment."""
        return Mark(time.perf_counter(), self._waited_s(), self._samples)

    def pace(self, since: Mark | None = None) -> Pace | None:
        """The pace from a mark, or the start, until now; None where no sample has been used since."""
        mark = self._start if since is None else max(since, self._start)
        if self._samples == mark.samples:
            return None
        elapsed_s = max(time.perf_counter() - mark.time_s, 1e-9)
        return Pace((self._samples - mark.samples) / elapsed_s, min((self._waited_s() - mark.wait_s) / elapsed_s, 1.0))


def clock(seconds: float | None) -> str:
    """Seconds as ``00h00m00s``, Monodepth2's form; None is not known yet."""
    if seconds is None:
        return "--h--m--s"
    whole = int(seconds)
    return f"{whole // 3600:02d}h{whole % 3600 // 60:02d}m{whole % 60:02d}s"
