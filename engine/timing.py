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


class Stopwatch:
    """Wall time and loader waits since the last reading."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
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

    def read(self) -> Pace:
        """The pace since the last reading, and start anew."""
        elapsed_s = max(time.perf_counter() - self._start_s, 1e-9)
        pace = Pace(self._samples / elapsed_s, min(self._wait_s / elapsed_s, 1.0))
        self.__init__()  # type: ignore[misc]
        return pace


def clock(seconds: float) -> str:
    """Seconds as ``00h00m00s``, Monodepth2's form."""
    whole = int(seconds)
    return f"{whole // 3600:02d}h{whole % 3600 // 60:02d}m{whole % 60:02d}s"
