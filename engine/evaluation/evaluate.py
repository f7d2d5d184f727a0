"""An evaluation of depth as one call: from its config to scores by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataload.system.console import shown_console
from engine.evaluation.config import EvalConfig
from engine.evaluation.keeping import keep
from engine.evaluation.metrics import METRICS
from engine.evaluation.places import hold_outputs
from engine.evaluation.report import Candidate
from engine.evaluation.run import Evaluation, prepare, score_subjects
from engine.evaluation.subjects import find_subjects


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalResult:
    """The scores of one model, or of one file of predictions.

    Attributes:
        name: what it is called in md-eval's tables. epoch: of its weights, None where there is none.
        num_images: how many images were scored.
        abs_rel, sq_rel, rmse, rmse_log: errors (Eigen et al. 2014), means over the images; sq_rel and rmse in metres. Low is good.
        a1, a2, a3: shares of pixels whose ratio to the truth is below 1.25, 1.25^2, 1.25^3, means over the images. High is good.
        median_ratio: the median of the images' ratios of truth to prediction, median_ratio_std the standard deviation of those divided by
            it; None without median scaling.
        interval_95: by the names of the seven, bounds (low, high) of the mean's 95 % confidence interval, by bootstrap over the images.
        images: (N,) the split lines of the images. scores: (N, 7) float64, each image's errors, in the order of the seven above.
    """

    name: str
    epoch: int | None
    num_images: int
    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    a1: float
    a2: float
    a3: float
    median_ratio: float | None
    median_ratio_std: float | None
    interval_95: Mapping[str, tuple[float, float]]
    images: tuple[str, ...]
    scores: NDArray[np.float64]


def evaluate(config: EvalConfig) -> list[EvalResult]:
    """Evaluate depth as md-eval does, and write what the config asks for (JSON, CSV, report, predictions).

    Args:
        config: as ``EvalConfig.from_options`` makes it.

    Returns:
        The scores of each model, then of each file of predictions; empty where the config asks for predictions alone.

    Raises:
        InputError: whatever is missing, damaged or does not fit together.
        OSError: something cannot be written.
    """
    with prepared(config) as evaluation:
        candidates = score_subjects(evaluation)
        keep(evaluation, candidates)
        images = tuple(ref.line for ref in evaluation.scored_refs)
        return [_result(candidate, images) for candidate in candidates]


@contextmanager
def prepared(config: EvalConfig) -> Iterator[Evaluation]:
    """The evaluation of a config, prepared, with all that it will write held meanwhile; raises as ``hold_outputs`` and ``prepare``."""
    with shown_console(), hold_outputs(config, find_subjects(config)):
        yield prepare(config)


def _result(candidate: Candidate, images: tuple[str, ...]) -> EvalResult:
    scores = candidate.scores
    interval = {name: (low, high) for name, (low, high) in zip(METRICS, scores.interval().T.tolist(), strict=True)}
    return EvalResult(
        name=candidate.name, epoch=candidate.epoch, num_images=scores.num_images, **scores.means, median_ratio=scores.median_ratio,
        median_ratio_std=scores.median_ratio_std, interval_95=interval, images=images, scores=scores.per_image,
    )  # fmt: skip
