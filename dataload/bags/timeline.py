"""The choice of a recording's frames and of what belongs to each, by their stamps alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAIR_NS = 20_000_000  # at 50 km/h the car moves 28 cm in this time


class Timeline(NamedTuple):
    """Stamps in order, each once.

    Attributes:
        stamps_ns: (n,) int64, rising.
        numbers: (n,) the number of each message in the recording.
        repeated: how many messages bore a stamp that was there already.
        backwards: how many bore a stamp below that of the message before.
    """

    stamps_ns: NDArray[np.int64]
    numbers: NDArray[np.int64]
    repeated: int
    backwards: int


def sort_stamps(stamps_ns: list[int]) -> Timeline:
    """Sort by stamp; of messages with the same stamp the first counts."""
    stamps = np.array(stamps_ns, np.int64)
    unique, index = np.unique(stamps, return_index=True)
    return Timeline(unique, index.astype(np.int64), len(stamps) - len(unique), int((np.diff(stamps) < 0).sum()))


def subsample(stamps_ns: NDArray[np.int64], hz: float) -> NDArray[np.int64]:
    """Which of the rising stamps to keep: the nearest to each point of a grid of that rate from the first stamp on; all for 0.

    The first of each period would lose frames of a camera that runs at just this rate, whose stamps jitter around the grid.
    """
    if hz == 0 or not len(stamps_ns):
        return np.arange(len(stamps_ns))
    period = 1e9 / hz
    since = (stamps_ns - stamps_ns[0]).astype(np.float64)
    point = np.rint(since / period)
    off = np.abs(since - point * period)
    # The nearest frame of a grid point counts; of two equally near ones, the earlier.
    order = np.lexsort((since, off, point))
    _, first = np.unique(point[order], return_index=True)
    return np.sort(order[first])


def pair(targets_ns: NDArray[np.int64], others_ns: NDArray[np.int64], tolerance_ns: float) -> NDArray[np.int64]:
    """For each target the number of the nearest other stamp, -1 where none is within the tolerance; both rise."""
    if not len(others_ns) or not len(targets_ns):
        return np.full(len(targets_ns), -1, np.int64)
    after = np.searchsorted(others_ns, targets_ns).clip(0, len(others_ns) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(others_ns[before] - targets_ns) <= np.abs(others_ns[after] - targets_ns)
    nearest = np.where(nearer, before, after)
    return np.where(np.abs(others_ns[nearest] - targets_ns) <= tolerance_ns, nearest, -1)


def tolerance_ns(targets_ns: NDArray[np.int64], hz: float) -> float:
    """How far apart a pair may be: ``PAIR_NS``, or half a period where that is less."""
    if hz:
        return min(PAIR_NS, 0.5e9 / hz)
    return min(PAIR_NS, float(np.median(np.diff(targets_ns))) / 2) if len(targets_ns) > 1 else PAIR_NS
