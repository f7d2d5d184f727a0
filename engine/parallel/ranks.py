"""The processes that work together, as one of them sees them: who it is, what the others say, and which of them is lost.

What is said before training goes through torch's key-value store, which waits as long as all are alive: one of them may have to make a
frame store first. What is said in each step goes through the process group (see ``exchange``).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from dataload.system.console import console
from dataload.system.interrupts import exit_status, signal_of
from dataload.system.launch import ALONE as ONE_PLACE
from dataload.system.launch import Launch, launch
from engine.parallel.beats import ENDED, Beat, Heart, beats_of, behind, describe, silent_ranks
from engine.parallel.meeting import COME_WITHIN_S, leave, meet
from splits.errors import InputError
from splits.faults import first_line

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

EXIT_FAULT = 1
# A wait for the others looks whether it is over more and more seldom, then also whether they live; it says this often that it waits.
LOOK_S, SAY_S = (0.01, 2.0), 60.0
# Characters that are left in one piece; the store breaks off at 8 MiB.
PIECE = 2**22
# A process that imports libraries from a slow disk may be silent for a while; when it trains it has them. torchrun kills the others 30 s
# after one has died.
SILENT_S, SILENT_IN_TRAINING_S = 60.0, 20.0
# How torch's libraries name that another process is gone or does not answer.
LOST = re.compile(
    r"gloo|nccl|ProcessGroup|process group|Connection (closed|reset|refused)|Timed out waiting|Broken pipe|socket", re.IGNORECASE
)


class Lost(InputError):
    """Processes that work together have lost one of them, or each other; says what to do."""


class FaultElsewhere(Exception):
    """Another process has ended with a fault, which it reports itself; this one ends with the same status, and says nothing."""

    def __init__(self, rank: int, status: int) -> None:
        super().__init__(f"rank {rank} has reported why")
        self.status = status


class Ranks:
    """The processes that work together, seen by one of them. Every method is called by all of them, in the same order.

    Args:
        place: of this process.
        store: where they leave word for each other; None where there is one process alone.
        remedy: what to do where one of them is lost.

    Attributes:
        place: of this process. rank, world: its number among how many.
        is_first: whether this is rank 0, which alone logs and writes.
    """

    def __init__(self, place: Launch, store: Store | None = None, remedy: str = "") -> None:
        self.place, self.rank, self.world = place, place.rank, place.world
        self.is_first = self.rank == 0
        self.heart = Heart(self.rank, store)
        self._store, self._remedy = store, remedy
        self._words = 0

    def client(self) -> Store:
        """Another client of the store."""
        assert self._store is not None
        return self._store.clone()

    def gather(self, value: Any) -> list[Any]:
        """What each rank gives, by rank; values that JSON has.

        Raises:
            InputError: a rank has died, or does not answer.
            FaultElsewhere: another rank has reported a fault.
        """
        if self._store is None:
            return [value]
        self._words += 1
        key = f"said/{self._words}"
        self._say(f"{key}/{self.rank}", value)
        if self.is_first:
            values = [self._await(f"{key}/{rank}") for rank in range(self.world)]
            self._say(key, values)
            # All have read what was said before, as they speak again.
            for old in [f"said/{self._words - 1}", *(f"{key}/{rank}" for rank in range(self.world))]:
                self._forget(old)
            return values
        gathered: list[Any] = self._await(key)
        return gathered

    def of_first(self, value: Any) -> Any:
        """What rank 0 gives; raises as ``gather``."""
        return self.gather(value if self.is_first else None)[0]

    def meet(self) -> None:
        """Wait until all ranks have come here; raises as ``gather``."""
        self.gather(None)

    @contextmanager
    def machine_first(self) -> Iterator[None]:
        """The block by the first rank of each machine, then by the others: they find what it has made or downloaded."""
        if self.place.local_rank != 0:
            self.meet()
        yield
        if self.place.local_rank == 0:
            self.meet()

    def _say(self, key: str, value: Any) -> None:
        """Leave a value under a key; a long one in pieces, as the store takes no longer ones."""
        assert self._store is not None
        text = json.dumps(value)
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces[1:], 1):
            self._store.set(f"{key}+{number}", piece)
        # Last, for those who wait for it.
        self._store.set(key, f"{len(pieces)} {pieces[0]}")

    def _forget(self, key: str) -> None:
        """Take away what ``_say`` left."""
        assert self._store is not None
        number = 1
        while self._store.delete_key(f"{key}+{number}"):
            number += 1
        self._store.delete_key(key)

    def _heard(self, key: str) -> Any:
        """The value that is left under a key."""
        assert self._store is not None
        pieces, _, first = self._store.get(key).decode().partition(" ")
        rest = [self._store.get(f"{key}+{number}").decode() for number in range(1, int(pieces))]
        return json.loads("".join([first, *rest]))

    def _await(self, key: str) -> Any:
        """The value of a key, once it is there."""
        assert self._store is not None
        began_s = said_s = time.monotonic()
        pause_s = LOOK_S[0]
        # Not by the store's own wait, whose time-out torch reports each time.
        while not self._store.check([key]):
            time.sleep(pause_s)
            if pause_s < LOOK_S[1]:
                pause_s = min(2 * pause_s, LOOK_S[1])
                continue
            self._raise_fault_elsewhere()
            longer_s = SILENT_IN_TRAINING_S if self.heart.in_training else SILENT_S
            lost = silent_ranks(self._store, self.world, self.heart.seen, longer_s)
            if lost:
                raise Lost(self._lost(lost))
            if time.monotonic() - said_s > SAY_S:
                said_s = time.monotonic()
                others = [beat for beat in beats_of(self._store, self.world).values() if beat.rank != self.rank]
                shown = "; ".join(describe(beat) for beat in others[:3])
                console.info("Waiting for the other processes for %.0f s: %s", said_s - began_s, shown)
        return self._heard(key)

    def _raise_fault_elsewhere(self) -> None:
        """``FaultElsewhere`` once another rank has reported a fault."""
        ended = self.heart.ended
        if ended is None and self._store is not None and self._store.check([ENDED]):
            ended = json.loads(self._store.get(ENDED))
        if ended is not None and ended["rank"] != self.rank:
            raise FaultElsewhere(ended["rank"], ended["status"])

    def concluded(self, error: BaseException) -> BaseException:
        """What a process that leaves with ``error`` raises.

        Of all that end, the first to come here reports its fault; the others keep quiet. An error of torch's communication becomes an
        ``InputError`` that names the rank that is lost.
        """
        if self._store is None or isinstance(error, FaultElsewhere):
            return error
        try:
            if not isinstance(error, InputError) and is_lost_peer(error):
                error = self._named(error)
            status = exit_status(signal_of(error)) if isinstance(error, KeyboardInterrupt) else EXIT_FAULT
            ended = json.loads(self._store.compare_set(ENDED, "", json.dumps({"rank": self.rank, "status": status})))
        except FaultElsewhere as elsewhere:
            return elsewhere
        except RuntimeError as gone:  # the store, and with it the process that keeps it
            if is_lost_peer(error):
                return Lost(f"torchrun, or the first machine, has ended or cannot be reached ({first_line(gone)}). {self._remedy}")
            return error
        if ended["rank"] == self.rank or not isinstance(error, (InputError, OSError, KeyboardInterrupt)):
            return error
        return FaultElsewhere(ended["rank"], ended["status"])

    def _named(self, error: BaseException) -> InputError:
        """Which rank is lost, now that torch's communication has failed."""
        assert self._store is not None
        self._raise_fault_elsewhere()
        silent_ranks(self._store, self.world, self.heart.seen, 0)
        time.sleep(3 * self.heart.EVERY_S)
        self._raise_fault_elsewhere()
        lost = silent_ranks(self._store, self.world, self.heart.seen, 2 * self.heart.EVERY_S)
        lost = lost or behind(beats_of(self._store, self.world).values())
        return Lost(self._lost(lost) if lost else f"the processes have lost each other ({first_line(error)})")

    def _lost(self, lost: Sequence[Beat]) -> str:
        others = f", and {len(lost) - 3} more" if len(lost) > 3 else ""
        named = "; ".join(describe(beat) for beat in lost[:3])
        return f"lost {named}{others}: it died, hangs, or its machine cannot be reached. {self._remedy}"


ALONE = Ranks(ONE_PLACE)


def is_lost_peer(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that another process does not answer."""
    import torch.distributed as dist

    while error is not None:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and LOST.search(str(error))):
            return True
        error = error.__cause__
    return False


@contextmanager
def joined(remedy: str = "Start all processes again") -> Iterator[Ranks]:
    """The processes that torchrun started together, for the block; one that was started alone is a world of its own.

    Where one leaves the block with an error, all of them do, and the first alone reports it.

    Args:
        remedy: what to do where one of them is lost.

    Raises:
        InputError: the processes do not find each other, or one of them is lost.
        FaultElsewhere: another rank reports a fault.
    """
    place = launch()
    if place.world == 1:
        yield Ranks(place)
        return
    import torch.distributed as dist

    store = meet(_store_of(place), place)
    ranks = Ranks(place, store, remedy)
    in_group, failed = dist.is_initialized(), True
    # The heart beats until it is known who is lost, or this process would name itself.
    with ranks.heart.beating():
        try:
            yield ranks
            ranks.meet()
            failed = False
        except BaseException as error:
            concluded = ranks.concluded(error)
            if concluded is error:
                raise
            raise concluded from error
        finally:
            # The group first: the others learn from it that this process leaves.
            if not in_group:  # the caller's own
                _leave_group(failed=failed)
            leave(store, place)


@cache
def _store_of(place: Launch) -> Store:
    """The store of these processes, which lives as long as they do."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    address = f"{os.environ.get('MASTER_ADDR', '(no MASTER_ADDR)')}:{os.environ.get('MASTER_PORT', '(no MASTER_PORT)')}"
    try:
        store, _, _ = next(rendezvous("env://", place.rank, place.world, timeout=timedelta(seconds=COME_WITHIN_S)))
    except (dist.DistError, RuntimeError, ValueError) as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error):
            raise InputError(
                f"another job uses port {address}; give torchrun another --master_port, or --standalone on a single machine"
            ) from error
        raise InputError(
            f"rank {place.rank} finds no others at {address} ({first_line(error)}); start all processes with torchrun"
        ) from error
    return store


def _leave_group(*, failed: bool) -> None:
    """Leave torch's groups; where something ``failed``, without waiting for gradients on their way, which NCCL would wait for for ever."""
    import torch.distributed as dist

    if dist.is_initialized():
        with suppress(RuntimeError):  # of a group in which another process is gone
            if failed:
                dist.distributed_c10d._abort_process_group()
            else:
                dist.destroy_process_group()
