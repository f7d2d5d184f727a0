"""How processes find out that they were started together."""

import threading
from typing import Any

import pytest
from torch.distributed import HashStore

from dataload.system.launch import Launch
from engine.parallel import meeting
from engine.parallel.meeting import meet
from splits.errors import InputError


def met(places: list[Launch], store: HashStore) -> dict[int, Any]:
    """What each of them finds: their part of the store, or why there is none."""
    found: dict[int, Any] = {}

    def one(place: Launch) -> None:
        try:
            found[place.rank] = meet(store, place)
        except InputError as error:
            found[place.rank] = str(error)

    threads = [threading.Thread(target=one, args=[place]) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_those_that_start_again_do_not_take_up_what_was_left() -> None:
    store = HashStore()
    for _ in range(3):
        parts = met([Launch(rank, 3, rank, 3) for rank in range(3)], store).values()
        assert not any(part.check(["left"]) for part in parts)
        next(iter(parts)).set("left", "")
        assert all(part.check(["left"]) for part in parts)


def test_another_number_of_processes_on_one_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "COME_WITHIN_S", 2.0)
    found = met([Launch(0, 2, 0, 1), Launch(1, 3, 0, 1)], HashStore())
    assert "rank 0 is one of 2 processes, rank 1 one of 3; start all of them with the same --nnodes" in str(found[1])
    assert "1 of 2 processes have not come within 2 s, rank 1 is one of them" in str(found[0])
