"""The time that training waits for its data: on a CPU by the clock, on a GPU by the GPU's own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from torch.cuda import Event

T = TypeVar("T")
# Batches that the CPU may be ahead of the GPU: what it hands over is kept until the GPU has used it.
UNUSED_BATCHES = 2


class HostWaits:
    """Measures the time between asking for an item and getting it.

    Attributes:
        waited_s: the sum over all items, in seconds.
    """

    def __init__(self) -> None:
        self.waited_s = 0.0

    def measure(self, items: Iterator[T]) -> Iterator[T]:
        """Yields the items, and adds up how long each was waited for."""
        while True:
            begin_s = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.waited_s += time.perf_counter() - begin_s
            yield item


class GpuWaits:
    """Measures the time that the caller's GPU stream is idle for an item: none, as long as it still has earlier work.

    Waits for the GPU where the caller is ``UNUSED_BATCHES`` ahead of it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pending: deque[tuple[Event, Event]] = deque()
        self._done_s = 0.0

    @property
    def waited_s(self) -> float:
        """The sum over all items that the stream has reached, in seconds."""
        while self._pending and self._pending[0][1].query():
            self._take()
        return self._done_s

    def measure(self, items: Iterator[T]) -> Iterator[T]:
        """Yields the items, and adds up how long each was waited for."""
        while True:
            asked = self._now()
            try:
                item = next(items)
            except StopIteration:
                return
            self._pending.append((asked, self._now()))
            if len(self._pending) > UNUSED_BATCHES:
                self._pending[0][1].synchronize()
                self._take()
            yield item

    def _now(self) -> Event:
        # Whoever waits sleeps: a GPU that is always busy would else keep a core spinning, which the loader needs.
        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _take(self) -> None:
        asked, had = self._pending.popleft()
        self._done_s += asked.elapsed_time(had) / 1e3
