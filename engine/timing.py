"""How fast training goes and how much of the time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


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
    """Wall time, samples and waits for the loader."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._samples = 0

    def timed(self, batches: Iterable[T], batch_size: int) -> Iterator[T]:
        """Pass ``batches`` through, counting their samples and the seconds the consumer waited for each."""
        source = iter(batches)
        while True:
            asked_s = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._wait_s += time.perf_counter() - asked_s
            self._samples += batch_size
            yield batch

    def mark(self) -> Mark:
        """Now."""
        return Mark(time.perf_counter(), self._wait_s, self._samples)

    def pace(self, since: Mark) -> Pace:
        """The pace from a mark until now."""
        elapsed_s = max(time.perf_counter() - since.time_s, 1e-9)
        return Pace((self._samples - since.samples) / elapsed_s, min((self._wait_s - since.wait_s) / elapsed_s, 1.0))


def clock(seconds: float) -> str:
    """Seconds as ``00h00m00s``, Monodepth2's form."""
    whole = int(seconds)
    return f"{whole // 3600:02d}h{whole % 3600 // 60:02d}m{whole % 60:02d}s"
