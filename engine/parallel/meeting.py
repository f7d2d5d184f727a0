"""How processes that were started together find out that they are, and leave each other.

torchrun keeps its store when it starts them again, with all that earlier ones left in it. Other launchers keep none: then it is rank 0's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from dataload.system.launch import Launch
from splits.errors import InputError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# How long one process waits for the others to come or to leave, and how often it looks: more and more seldom.
COME_WITHIN_S, LEAVE_WITHIN_S, LOOK_S = 300.0, 10.0, (0.01, 0.5)


def meet(store: Store, place: Launch) -> Store:
    """The part of a store that only those processes use that were started together; called by all of them.

    Each says that it is here by a word of its own, new at each start. Rank 0 repeats the words that it finds, until all have found theirs
    among them.

    Raises:
        InputError: some do not come.
    """
    from torch._C._distributed_c10d import PrefixStore

    mine = uuid4().hex
    store.set(_here(place.rank), mine)
    return PrefixStore(_call(store, place.world, mine) if place.rank == 0 else _answer(store, place, mine), store)


def _call(store: Store, world: int, name: str) -> str:
    said = None
    missing: list[int] = []
    for _ in _looks(COME_WITHIN_S):
        here = [store.get(_here(rank)).decode() if store.check([_here(rank)]) else "" for rank in range(world)]
        if here != said:
            store.set("called", json.dumps([name, *here]))
            said = here
        missing = [rank for rank in range(1, world) if not store.check([_found(name, rank)])]
        if not missing:
            return name
    raise InputError(
        f"{len(missing)} of {world} processes have not come within {COME_WITHIN_S:.0f} s, rank {missing[0]} is one of them; "
        "start torchrun on all machines, with the same --nnodes and --rdzv_endpoint"
    )


def _answer(store: Store, place: Launch, mine: str) -> str:
    rank = place.rank
    for _ in _looks(COME_WITHIN_S):
        if store.check(["called"]):
            name, *here = json.loads(store.get("called"))
            if here[rank : rank + 1] == [mine]:
                if len(here) != place.world:
                    raise InputError(
                        f"rank 0 is one of {len(here)} processes, rank {rank} one of {place.world}; start all of them with the same "
                        "--nnodes and --nproc_per_node"
                    )
                store.set(_found(name, rank), "")
                return str(name)
    raise InputError(f"rank 0 has not come within {COME_WITHIN_S:.0f} s, rank {rank} has waited for it; start torchrun on all machines")


def leave(store: Store, place: Launch) -> None:
    """Say that this process needs the store no more; called by all of them, also where they end with an error.

    Where rank 0 keeps the store, it waits until the others have said so too, as they could not learn why it has ended; for a while only,
    as some may be lost.
    """
    with suppress(RuntimeError):  # whoever kept the store has ended
        say_left(store, place.rank)
        if place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            for _ in _looks(LEAVE_WITHIN_S):
                if all(store.check([f"left/{rank}"]) for rank in range(place.world)):
                    return


def say_left(store: Store, rank: int) -> None:
    """That a process needs the store no more, or has read in it that another ends with a fault."""
    store.set(f"left/{rank}", "")


def _looks(within_s: float) -> Iterator[None]:
    began_s, pause_s = time.monotonic(), LOOK_S[0]
    while time.monotonic() - began_s < within_s:
        yield
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_S[1])


def _here(rank: int) -> str:
    return f"here/{rank}"


def _found(name: str, rank: int) -> str:
    return f"{name}/found/{rank}"
