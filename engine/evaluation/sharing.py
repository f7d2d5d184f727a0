"""An evaluation shared out over several processes: which images are whose, and scores put together as one process would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataload.pipeline.order import epoch_batches
from engine.evaluation.scores import Scores
from engine.parallel.ranks import Ranks


def share_of(ranks: Ranks, num_images: int, batch_size: int) -> list[int]:
    """The positions of this rank's images in a list, ascending: whole batches, so that a network computes each as in one process."""
    batches = epoch_batches(
        num_images, batch_size=batch_size, seed=0, epoch=0, rank=ranks.rank, world=ranks.world, shuffle=False, drop_last=False
    )
    return [int(index) for batch in batches for index in batch]


def gather_scores(ranks: Ranks, scores: Scores, positions: Sequence[int]) -> Scores:
    """The scores of all ranks, images in the list's order.

    Args:
        scores: of this rank's images, perhaps of none.
        positions: of these images in the list, ascending.
    """
    if ranks.world == 1:
        return scores
    parts = [(part["positions"], _scores_of(part)) for part in ranks.gather({"positions": list(positions), **_plain(scores)})]
    order = np.argsort(np.concatenate([places for places, _ in parts]).astype(np.intp))
    ratios = [part.median_ratios for _, part in parts]
    return Scores(
        np.concatenate([part.per_image for _, part in parts])[order],
        None if any(of_part is None for of_part in ratios) else np.concatenate([r for r in ratios if r is not None])[order],
        np.sum([part.bands for _, part in parts], axis=0),
        np.sum([part.histogram for _, part in parts], axis=0),
    )


def _plain(scores: Scores) -> dict[str, Any]:
    return {name: None if value is None else value.tolist() for name, value in scores._asdict().items()}


def _scores_of(part: Mapping[str, Any]) -> Scores:
    per_image = np.array(part["per_image"], np.float64).reshape(len(part["positions"]), -1)
    ratios = None if part["median_ratios"] is None else np.array(part["median_ratios"], np.float64)
    return Scores(per_image, ratios, np.array(part["bands"], np.float64), np.array(part["histogram"], np.int64))
