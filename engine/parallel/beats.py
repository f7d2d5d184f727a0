"""Signs of life: each process writes every second how far it is, so that one that died or hangs can be named."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from engine.parallel.meeting import say_left

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# Where the first process that ends with a fault says so.
ENDED = "ended"


class Beat(NamedTuple):
    """A sign of life: of which rank, the how-manieth, and where it stands; ``host`` and ``pid`` are empty before the first."""

    rank: int
    number: int = 0
    step: int = 0
    doing: str = "joining"
    host: str = ""
    pid: int = 0


class Heart:
    """Writes this process's signs of life.

    Args:
        rank: of this process.
        store: where they go; None where nobody reads them.

    Attributes:
        seen: of each rank, the number of its last one and when it was new, by this process's clock.
        ended: which rank has ended with a fault, and with which status, once one has said so.
    """

    EVERY_S = 1.0

    def __init__(self, rank: int, store: Store | None) -> None:
        self._store = store
        self._beat = Beat(rank, host=socket.gethostname(), pid=os.getpid())
        self._stopped = threading.Event()
        self.seen: dict[int, tuple[int, float]] = {}
        self.ended: dict[str, int] | None = None

    def tell(self, doing: str, step: int | None = None) -> None:
        """What this process begins to do, and in which step."""
        self._beat = self._beat._replace(doing=doing, step=self._beat.step if step is None else step)

    @property
    def in_training(self) -> bool:
        """Whether this process has trained already."""
        return self._beat.step > 0

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Within the block the others see that this process lives."""
        if self._store is None:
            yield
            return
        # A client of its own: another's wait would hold it up.
        thread = threading.Thread(target=self._run, args=(self._store.clone(),), name="heart", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self, store: Store) -> None:
        count = 0
        while not self._stopped.wait(self.EVERY_S if count else 0):
            count += 1
            try:
                store.set(_key(self._beat.rank), json.dumps(self._beat._replace(number=count)))
                # Kept here, as the work learns that another process has ended when the store has perhaps ended with it.
                if self.ended is None and store.check([ENDED]):
                    self.ended = json.loads(store.get(ENDED))
                    say_left(store, self._beat.rank)
            except RuntimeError:  # whoever keeps the store has ended; the work itself says what follows
                return


def beats_of(store: Store, world: int) -> dict[int, Beat]:
    """The last sign of life of each rank."""
    keys = [_key(rank) for rank in range(world)]
    # One question where all have begun: many processes that wait ask it at the same time.
    there = list(range(world)) if store.check(keys) else [rank for rank, key in enumerate(keys) if store.check([key])]
    last = {rank: Beat(*json.loads(value)) for rank, value in zip(there, store.multi_get([keys[rank] for rank in there]), strict=True)}
    return {rank: last.get(rank, Beat(rank)) for rank in range(world)}


def silent_ranks(store: Store, world: int, seen: dict[int, tuple[int, float]], longer_s: float) -> list[Beat]:
    """The last signs of life of those ranks that have given none for longer than that, as far as this process has looked.

    Args:
        seen: of each rank, the number of its last one and when it was new; brought up to date.
    """
    now, silent = time.monotonic(), []
    for rank, beat in beats_of(store, world).items():
        if rank not in seen or seen[rank][0] != beat.number:
            seen[rank] = beat.number, now
        elif now - seen[rank][1] > longer_s:
            silent.append(beat)
    return silent


def behind(beats: Iterable[Beat]) -> list[Beat]:
    """Those that are less far than others: what the others wait for."""
    found = list(beats)
    order = [(beat.step, beat.doing != "loading") for beat in found]
    least, most = min(order, default=(0, True)), max(order, default=(0, True))
    return [beat for beat, place in zip(found, order, strict=True) if place == least] if least != most else []


def describe(beat: Beat) -> str:
    """A rank, where it runs and what it did last."""
    if not beat.host:
        return f"rank {beat.rank} (not started)"
    where = f"{beat.doing}, step {beat.step}" if beat.step else beat.doing
    return f"rank {beat.rank} (process {beat.pid} on {beat.host}, last {where})"


def _key(rank: int) -> str:
    return f"beat/{rank}"
