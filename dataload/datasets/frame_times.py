"""The order of frames by their names: of the ways to read numbers in names, the one by which time runs evenly forward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# The numbers at a name's end, and what stands around them: cam0_1403715273.262.
ENDING = re.compile(r"(.*?)(\d+)(?:([._-])(\d+))?(\D*)")
# From here on a number is seconds since 1970, no counter.
LEAST_UNIX_S = 10**8
# Digits of seconds since 1970, and with nanoseconds after them.
UNIX_DIGITS, STAMP_DIGITS = 10, 19
# The mean of intervals against their median, each the smaller over the larger; times reach more, names read wrongly less.
LEAST_EVENNESS = 0.5
# Parts of a second by the digits that they have at most.
PARTS_OF_A_SECOND = {9: "nanoseconds", 6: "microseconds", 3: "milliseconds"}
MICROSECOND_DIGITS = 6


class Order(NamedTuple):
    """Names in order.

    Attributes:
        names: in order.
        times: of each, in a unit of no matter; None where names are no times and the number at their end is all there is.
        reading: how the names are read, where that is not the plain way; else empty.
        fault: why the order is not known; empty where it is.
    """

    names: list[str]
    times: list[int] | None = None
    reading: str = ""
    fault: str = ""


class _Ending(NamedTuple):
    """A name's parts: what stands before and after its last two numbers, which ``mark`` is between."""

    before: str
    whole: str
    mark: str
    part: str
    after: str


class _Reading(NamedTuple):
    label: str
    time_of: Callable[[_Ending], int]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``frame_9`` before ``frame_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def order_names(names: Sequence[str]) -> Order:
    """The names as people count, or where they are seconds with parts of unequal length, by the reading with the evenest intervals."""
    plain = sorted(names, key=natural_key)
    endings = {name: ending for name in plain if (ending := _ending(name))}
    readings = _readings(list(endings.values())) if len(endings) == len(plain) else []
    found = [order for reading in readings if (order := _order(plain, endings, reading))]
    if not found:
        return Order(plain, fault=_duplicates(plain))
    best = max(found, key=lambda order: _evenness(order, endings))
    if all(order.names == plain for order in found):
        return best._replace(reading="", fault=_duplicates(plain))
    is_even, are_times = _evenness(best, endings) >= LEAST_EVENNESS, _are_times(list(endings.values()))
    if is_even and (are_times or best.names != plain):
        return best
    if is_even or not are_times:
        # Counters of two levels, clip 1.9 before clip 1.10.
        return Order(plain, fault=_duplicates(plain))
    tried = ", nor as ".join(order.reading for order in found)
    return Order(plain, fault=f"names as {plain[0]} and {plain[len(plain) // 2]} give no even times, neither as {tried}")


def _ending(name: str) -> _Ending | None:
    match = ENDING.fullmatch(name)
    return _Ending(*(group or "" for group in match.groups())) if match else None


def _readings(endings: Sequence[_Ending]) -> list[_Reading]:
    """The ways to read names as times, where there are several."""
    parts = [ending.part for ending in endings]
    if not any(parts):
        return _concatenated(endings)
    if len({ending.mark for ending in endings if ending.mark}) > 1:
        return []
    digits = max(map(len, parts))
    decimal = _Reading("decimal seconds", lambda ending: int(ending.whole + ending.part.ljust(digits, "0")))
    if "." not in {ending.mark for ending in endings} and not _are_times(endings):
        return []
    unpadded = [_unpadded(number, unit) for number, unit in PARTS_OF_A_SECOND.items() if digits <= number] if all(parts) else []
    # The plain order first: where another is no evener, it stays.
    return [*unpadded, decimal]


def _unpadded(digits: int, unit: str) -> _Reading:
    return _Reading(f"seconds and {unit} without leading zeros", lambda ending: int(ending.whole) * 10**digits + int(ending.part))


def _concatenated(endings: Sequence[_Ending]) -> list[_Reading]:
    """Seconds and nanoseconds written one after the other without a mark, at unequal length."""
    lengths = {len(ending.whole) for ending in endings}
    if len(lengths) < 2 or min(lengths) <= UNIX_DIGITS or max(lengths) > STAMP_DIGITS:
        return []
    counted = _Reading("whole numbers", lambda ending: int(ending.whole))
    joined = [_joined(digits, unit) for digits, unit in PARTS_OF_A_SECOND.items() if max(lengths) <= UNIX_DIGITS + digits]
    return [counted, *joined]


def _joined(digits: int, unit: str) -> _Reading:
    return _Reading(
        f"seconds of {UNIX_DIGITS} digits with {unit} after them without leading zeros",
        lambda ending: int(ending.whole[:UNIX_DIGITS]) * 10**digits + int(ending.whole[UNIX_DIGITS:]),
    )


def _order(names: Sequence[str], endings: dict[str, _Ending], reading: _Reading) -> Order | None:
    """The names by a reading; None where two have the same time."""
    times = {name: reading.time_of(endings[name]) for name in names}
    places = {name: (natural_key(endings[name].before), times[name], natural_key(endings[name].after)) for name in names}
    ordered = sorted(names, key=places.__getitem__)
    if any(places[a] == places[b] for a, b in pairwise(ordered)):
        return None
    return Order(ordered, [times[name] for name in ordered], reading.label)


def _evenness(order: Order, endings: dict[str, _Ending]) -> float:
    """How even the intervals are, 0 to 1: each against the median, the smaller over the larger, so that a gap counts as one interval."""
    assert order.times is not None
    intervals = np.array(
        [
            float(second - first)
            for a, b, first, second in zip(order.names, order.names[1:], order.times, order.times[1:], strict=False)
            if endings[a].before == endings[b].before
        ]
    )
    if not intervals.size:
        return 1.0
    if (intervals <= 0).any():
        return 0.0
    usual = np.median(intervals)
    return float(np.mean(np.minimum(intervals / usual, usual / intervals)))


def _are_times(endings: Sequence[_Ending]) -> bool:
    """Whether the names' numbers can be nothing but times: seconds since 1970, or parts below a microsecond."""
    since_1970 = all(int(ending.whole) >= LEAST_UNIX_S for ending in endings)
    return since_1970 or any(ending.mark == "." and len(ending.part) > MICROSECOND_DIGITS for ending in endings)


def _duplicates(names: Sequence[str]) -> str:
    """The fault of neighbours in natural order whose numbers are the same; empty where there are none."""
    same = [(a, b) for a, b in pairwise(names) if natural_key(a) == natural_key(b)]
    return f"{same[0][0]} and {same[0][1]} have the same number" if same else ""
