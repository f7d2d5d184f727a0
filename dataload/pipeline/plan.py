"""The plan of a batch: what it is to hold, known before any of its images is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from dataload.pipeline.order import Draw

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# The fields of a batch that are no images.
GEOMETRY = ("K", "T_stereo", "indices")


class Plan(NamedTuple):
    """What a batch of B samples is to hold.

    Attributes:
        indices: (B,) int64 positions in the split list.
        rows: (B, 1 + S) int32 rows of the frame table: the target, then the sources in the order of ``Batch.sources``.
        draws: how each sample is augmented.
        K, T_stereo: (B, 3, 3) and (B, 4, 4) float32, as in ``Batch``.
        others: what may take the place of a sample whose frames cannot be read: plans of one sample each, without end, by its index.
        drawn: (B,) int64 positions as the order of the epoch has them, whatever has taken their places.
    """

    indices: NDArray[np.int64]
    rows: NDArray[np.int32]
    draws: list[Draw]
    K: NDArray[np.float32]
    T_stereo: NDArray[np.float32]
    others: Callable[[int], Iterator[Plan]]
    drawn: NDArray[np.int64]

    def put(self, sample: int, other: Plan) -> None:
        """Give a sample's place to the one sample of another plan."""
        for mine, its in zip(self[:5], other[:5], strict=True):
            mine[sample] = its[0]  # type: ignore[index]

    @property
    def geometry(self) -> dict[str, Tensor]:
        """What a batch holds beside images."""
        return {name: torch.from_numpy(getattr(self, name)) for name in GEOMETRY}
