"""The place of a process among those that torchrun started."""

import pytest

from dataload.system.launch import ALONE, VARIABLES, Launch, launch
from splits.errors import InputError


@pytest.fixture
def given(monkeypatch):
    """Sets the variables that a launcher gives, and no others."""

    def set_all(values):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("values", [{}, {"WORLD_SIZE": "8"}, {"RANK": "0", "WORLD_SIZE": "1"}], ids=str)
def test_a_process_alone(given, values) -> None:
    given(values)
    assert launch() == ALONE


def test_one_of_several(given) -> None:
    given(dict(zip(VARIABLES, ("5", "8", "1", "4"), strict=True)))
    assert launch() == Launch(rank=5, world=8, local_rank=1, local_world=4)


def test_variables_that_are_missing_are_named(given) -> None:
    given({"RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(InputError, match=r"RANK=1, WORLD_SIZE=2, LOCAL_RANK=\(missing\), .*; start it with torchrun"):
        launch()


@pytest.mark.parametrize("values", [("2", "2", "0", "1"), ("0", "2", "1", "1"), ("0", "2", "0", "3")], ids=str)
def test_a_place_that_cannot_be_is_refused(given, values) -> None:
    given(dict(zip(VARIABLES, values, strict=True)))
    with pytest.raises(InputError, match="is no place among processes that work together"):
        launch()
