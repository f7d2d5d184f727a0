"""Samples whose frames cannot be read (``--bad_frames skip``): another sample of the list takes their place in the batch.

Which one depends on the seed, the epoch and the sample alone, and on which files can be read: batches keep their size, every loader gets
the same ones, and so do any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from dataload.datasets.frame_table import FrameTable
from dataload.frames.bad_frames import BadFrames
from dataload.pipeline.plan import Plan
from splits.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# So many samples are tried; where this is not enough, hardly any can be read.
MOST_TRIES = 1000


class Replacing:
    """Reads the frames of samples, and replaces samples whose frames cannot be read; from any thread.

    Args:
        table: what the rows of plans mean.
        bad: the frames that are known; None stops at the first.

    Attributes:
        replaced: the positions in the list of the samples that were replaced.
    """

    def __init__(self, table: FrameTable, bad: BadFrames | None) -> None:
        self.table, self.bad = table, bad
        self.replaced: set[int] = set()

    def read(self, plan: Plan, sample: int, read: Callable[[int, int], object]) -> bool:
        """Read the frames of a sample by ``read`` (a row, and which of the sample's frames it is); whether the sample was replaced.

        Raises:
            InputError: a file is missing or damaged, or too many are.
        """
        if self._reads(plan.rows[sample], read):
            return False
        index = int(plan.drawn[sample])
        self.replaced.add(index)
        for other in islice(plan.others(index), MOST_TRIES):
            if self._reads(other.rows[0], read):
                plan.put(sample, other)
                return True
        raise InputError(f"hardly any sample of the list can be read: {MOST_TRIES} were tried in the place of one")

    def _reads(self, rows: NDArray[np.int32], read: Callable[[int, int], object]) -> bool:
        for place, row in enumerate(rows.tolist()):
            if self.bad is None:
                read(row, place)
            elif not self.bad.reads(self.table.path(row), partial(read, row, place)):
                return False
        return True
