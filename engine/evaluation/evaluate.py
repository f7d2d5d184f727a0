"""An evaluation of depth as one call: from its config to scores by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.system.console import said_by_first, shown_console
from engine.evaluation.config import EvalConfig
from engine.evaluation.keeping import keep
from engine.evaluation.metrics import METRICS
from engine.evaluation.places import hold_outputs
from engine.evaluation.report import Candidate
from engine.evaluation.run import Evaluation, prepare, score_subjects
from engine.evaluation.subjects import find_subjects
from engine.parallel.ranks import joined
from engine.parallel.sameness import config_facts, require_same


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

    Processes that torchrun has started share the images, where all of them call this with the same config: each returns all scores.

    Args:
        config: as ``EvalConfig.from_options`` makes it.

    Returns:
        The scores of each model, then of each file of predictions; empty where the config asks for predictions alone.

    Raises:
        InputError: whatever is missing, damaged or does not fit together; processes that do not fit together, or have lost one of them.
        FaultElsewhere: another of several processes reports such a fault.
        OSError: something cannot be written.
    """
    with prepared(config) as evaluation:
        candidates = score_subjects(evaluation)
        keep(evaluation, candidates)
        images = () if evaluation.truths is None else tuple(ref.line for ref in evaluation.truths.refs)
        return [_result(candidate, images) for candidate in candidates]


@contextmanager
def prepared(config: EvalConfig) -> Iterator[Evaluation]:
    """The evaluation of a config, prepared, with all that it will write held meanwhile; raises as ``hold_outputs`` and ``prepare``.

    Processes that torchrun has started enter the block together, and none leaves it alone.
    """
    with joined() as ranks, shown_console():
        if ranks.world > 1:
            require_same(ranks, _common_facts(config))
        with ranks.machine_first():  # weights may have to be fetched
            subjects = find_subjects(config)
        require_same(ranks, {"the weights": [subject.name for subject in subjects]})
        with hold_outputs(config, subjects, ranks):
            with said_by_first():
                evaluation = prepare(config, ranks=ranks)
            ranks.heart.tell("evaluating")
            yield evaluation


def _common_facts(config: EvalConfig) -> dict[str, Any]:
    """What all processes must have alike before they load anything."""
    # A dataset's own list may lie in its folder, which may be another one on each machine; its lines are compared later.
    facts = config_facts(config) | {"eval_split": Path(config.eval_split).name}
    if config.weights_folders:
        from engine.precision import pick_device

        facts["the device"] = pick_device(no_cuda=config.no_cuda).type
    return facts


def _result(candidate: Candidate, images: tuple[str, ...]) -> EvalResult:
    scores = candidate.scores
    interval = {name: (low, high) for name, (low, high) in zip(METRICS, scores.interval().T.tolist(), strict=True)}
    return EvalResult(
        name=candidate.name, epoch=candidate.epoch, num_images=scores.num_images, **scores.means, median_ratio=scores.median_ratio,
        median_ratio_std=scores.median_ratio_std, interval_95=interval, images=images, scores=scores.per_image,
    )  # fmt: skip
