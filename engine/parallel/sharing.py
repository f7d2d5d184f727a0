"""A list shared out over several processes: which of its images are whose, and what they made of them put together in its order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.pipeline.order import epoch_batches
from dataload.system.files import whole_file
from engine.parallel.ranks import Ranks
from splits.faults import name_faults


def share_of(ranks: Ranks, num_images: int, batch_size: int) -> list[int]:
    """The positions of this rank's images in a list, ascending: whole batches, so that a network computes each as in one process."""
    batches = epoch_batches(
        num_images, batch_size=batch_size, seed=0, epoch=0, rank=ranks.rank, world=ranks.world, shuffle=False, drop_last=False
    )
    return [int(index) for batch in batches for index in batch]


def gather_rows(ranks: Ranks, rows: NDArray[Any], positions: Sequence[int]) -> NDArray[Any]:
    """The rows of all ranks in the list's order, on each of them; for numbers, not for images.

    Args:
        rows: one per image of this rank, perhaps of none.
        positions: of these images in the list.
    """
    if ranks.world == 1:
        return rows
    parts = ranks.gather([list(positions), rows.tolist()])
    order = np.argsort([position for places, _ in parts for position in places])
    every = np.array([row for _, part in parts for row in part], rows.dtype).reshape(-1, *rows.shape[1:])
    return every[order.astype(np.intp)]


@contextmanager
def whole_file_of_all(ranks: Ranks, path: Path) -> Iterator[Path]:
    """As ``whole_file``, the same temporary path for all ranks, each of which writes its part of the file; it lies on a shared disk."""
    with whole_file(path) if ranks.is_first else nullcontext(path) as mine:
        temporary = Path(ranks.of_first(str(mine)))
        with name_faults(path, temporary):
            yield temporary
        ranks.meet()
