"""Scores of an evaluation that several processes share, put together as one process would have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.evaluation.scores import Scores, exact_sum
from engine.parallel.ranks import Ranks
from engine.parallel.sharing import gather_rows


def gather_scores(ranks: Ranks, scores: Scores, positions: Sequence[int]) -> Scores:
    """The scores of all ranks, images in the list's order, to the last digit as one process has them; on each rank.

    Args:
        scores: of this rank's images, perhaps of none.
        positions: of these images in the list, ascending.
    """
    if ranks.world == 1:
        return scores
    per_image = gather_rows(ranks, scores.per_image, positions)
    ratios = None if scores.median_ratios is None else gather_rows(ranks, scores.median_ratios, positions)
    pooled = ranks.gather([scores.exact_bands.astype(str).tolist(), scores.histogram.tolist()])
    bands = exact_sum([np.array(part) for part, _ in pooled])
    return Scores(per_image, ratios, bands, np.sum([part for _, part in pooled], axis=0, dtype=np.int64))
