"""The place of this process among those that torchrun started together; read from the environment, without torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from splits.errors import InputError

# What torchrun sets, in the order of ``Launch``.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class Launch(NamedTuple):
    """Where a process stands among those that work together; a process that was started alone is rank 0 of a world of 1.

    Attributes:
        rank: its number among all, from 0. world: how many there are.
        local_rank, local_world: the same among those on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


ALONE = Launch()


def launch() -> Launch:
    """The place that torchrun gave this process.

    Raises:
        InputError: some of torchrun's variables are missing, or are no such numbers.
    """
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    # Schedulers set WORLD_SIZE too, and Kubernetes' operator RANK and WORLD_SIZE of a single process.
    if "LOCAL_RANK" not in given and ("RANK" not in given or given.get("WORLD_SIZE") == "1"):
        return ALONE
    try:
        place = Launch(*(int(given[name]) for name in VARIABLES))
    except (KeyError, ValueError) as error:
        shown = ", ".join(f"{name}={given.get(name, '(missing)')}" for name in VARIABLES)
        raise InputError(f"this process is said to be one of several, but not which: {shown}; start it with torchrun") from error
    if not (0 <= place.rank < place.world and 0 <= place.local_rank < place.local_world <= place.world):
        raise InputError(f"{place} is no place among processes that work together; start them with torchrun")
    return place
