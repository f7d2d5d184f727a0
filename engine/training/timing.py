"""The pace of training, the share of time that it waits for data, and what other programs take from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from dataload.system.console import console
from dataload.system.machine import OtherPrograms

# So much of a core may lack before it is worth a line: a desktop takes some too.
LACKS_CORES = 0.4


class Pace(NamedTuple):
    """Speed over a span: samples per second of training, and the share of that time spent waiting for the loader."""

    samples_per_s: float
    wait_share: float


class Mark(NamedTuple):
    """A moment: the clock's time, and what was counted by then."""

    time_s: float
    paused_s: float
    wait_s: float
    samples: int


class Stopwatch:
    """Time, samples and waits for the loader.

    Args:
        waited_s: how long the loader has been waited for, in all.
        now_s: the clock.
    """

    def __init__(self, waited_s: Callable[[], float], now_s: Callable[[], float] = time.perf_counter) -> None:
        self._waited_s, self._now_s = waited_s, now_s
        self._samples, self._paused_s = 0, 0.0
        self._start = self.mark()

    def restart(self) -> None:
        """Exclude everything so far from every later pace, and from ``left_s``."""
        self._start = self.mark()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block from every pace, not from ``left_s``: what is no training, though a run needs it.

        A GPU may still have work from before, which the pause then hides: read something from it first.
        """
        begin_s = self._now_s()
        try:
            yield
        finally:
            self._paused_s += self._now_s() - begin_s

    def count(self, samples: int) -> None:
        """Add used samples."""
        self._samples += samples

    def mark(self) -> Mark:
        """The mark of this moment."""
        return Mark(self._now_s(), self._paused_s, self._waited_s(), self._samples)

    def pace(self, since: Mark | None = None) -> Pace | None:
        """The pace of training from a mark, or the start, until now; None where no sample has been used since."""
        begin, end = self._start if since is None else max(since, self._start), self.mark()
        if end.samples == begin.samples:
            return None
        trained_s = max(end.time_s - begin.time_s - (end.paused_s - begin.paused_s), 1e-9)
        return Pace((end.samples - begin.samples) / trained_s, min((end.wait_s - begin.wait_s) / trained_s, 1.0))

    def left_s(self, samples: int) -> float | None:
        """How long so many more samples take, with pauses, at the mean speed since the start; None where none has been used since."""
        begin, end = self._start, self.mark()
        if end.samples == begin.samples:
            return None
        return samples * (end.time_s - begin.time_s) / (end.samples - begin.samples)


class Crowd:
    """Says once that other programs take cores on which PyTorch's threads count: each part of the work then waits for the last thread.

    Args:
        threads: that compute together; of one, none waits for another.
        others: what tells of other programs.
    """

    def __init__(self, threads: int, others: OtherPrograms | None = None) -> None:
        self._threads = threads
        self._others = others or OtherPrograms()

    def look(self) -> None:
        """Say it, if it is so since the last look and was not said."""
        found = self._others.cores_taken() if self._threads > 1 else None
        if found is None:
            return
        taken, cores = found
        if self._threads - (cores - taken) >= LACKS_CORES:
            fewer = max(1, min(self._threads - 1, round(cores - taken)))
            console.info(
                "Other programs take %.1f of %d cores, so PyTorch's %d threads wait for each other, slowly; --threads %d may be faster",
                taken, cores, self._threads, fewer,
            )  # fmt: skip
            self._threads = 1


def clock(seconds: float | None) -> str:
    """Seconds as ``00h00m00s``, Monodepth2's form; None is not known yet."""
    if seconds is None:
        return "--h--m--s"
    whole = int(seconds)
    return f"{whole // 3600:02d}h{whole % 3600 // 60:02d}m{whole % 60:02d}s"
