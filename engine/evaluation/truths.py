"""What predictions are scored against: the ground truth of a list, of which each process makes that of its own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import Dataset
from dataload.datasets.presence import require_data_path
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth
from dataload.ground_truth import (
    dataset_for,
    default_path,
    ground_truth,
    lazy_ground_truth,
    read_scored,
    require_current,
    scored_positions,
)
from dataload.system.console import console
from engine.evaluation.config import EvalConfig
from engine.parallel.ranks import Ranks
from engine.parallel.sameness import digest, require_same


class Truths(NamedTuple):
    """The ground truth of the images that are scored.

    Attributes:
        refs: those images, of all processes. positions: theirs in the whole list.
        depths: their truth; that of another process's image may be made when it is taken.
        own_numbers: which of them are this process's, ascending. own: the truth of those.
        rows: their places among all images of this process.
    """

    refs: Sequence[FrameRef]
    positions: Sequence[int]
    depths: Sequence[SparseDepth]
    own_numbers: Sequence[int]
    own: Sequence[SparseDepth]
    rows: NDArray[np.intp]

    @property
    def own_refs(self) -> list[FrameRef]:
        """The scored images of this process."""
        return [self.refs[number] for number in self.own_numbers]


def find_truths(config: EvalConfig, dataset: Dataset, refs: Sequence[FrameRef], ranks: Ranks, share: Sequence[int]) -> Truths:
    """The ground truth of a list: from its file where there is one, else made from the dataset's own.

    Args:
        share: the positions of this process's images in the list, ascending.

    Raises:
        InputError: it is missing, damaged, or of other images.
        FaultElsewhere: another of several processes reports such a fault.
    """
    path, by_rule = default_path(config.eval_split, dataset.data_path), dataset_for(config.eval_split, dataset)
    kept: Sequence[SparseDepth] | None = None
    if path.is_file() and not config.from_files:
        console.info("Ground truth from %s", path)
        scored, kept = read_scored(path, dataset, refs)
        require_current(path, by_rule, [refs[index] for index in scored], kept)
    else:
        require_data_path(dataset)
        scored = scored_positions(dataset, refs)
        console.info("Ground truth made on the fly (md-data gt would keep it in %s)", path)
    scored_refs = [refs[index] for index in scored]
    require_same(ranks, {"the list of images with ground truth": digest(ref.line for ref in scored_refs)})
    numbers = np.flatnonzero(np.isin(scored, share)).tolist()
    rows = np.searchsorted(share, [scored[number] for number in numbers]).astype(np.intp)
    if kept is not None:
        return Truths(scored_refs, scored, kept, numbers, [kept[number] for number in numbers], rows)
    own = ground_truth(by_rule, [scored_refs[number] for number in numbers], progress=True)
    depths = own if ranks.world == 1 else lazy_ground_truth(by_rule, scored_refs)
    return Truths(scored_refs, scored, depths, numbers, own, rows)
