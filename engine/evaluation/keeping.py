"""Keeping an evaluation: its scores as JSON and CSV, and its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.frames.picture import read_picture
from dataload.system.console import console
from engine.evaluation.config import EvalConfig
from engine.evaluation.metrics import ALL_GT
from engine.evaluation.output import write_csv, write_json
from engine.evaluation.report import Candidate, Example, pick_images, write_report
from engine.evaluation.run import Evaluation, open_predictions, rules_of
from engine.evaluation.scoring import aligned_depth_m, fit, scored_mask, scored_pixels
from engine.evaluation.truths import Truths


def keep(evaluation: Evaluation, candidates: Sequence[Candidate]) -> None:
    """Write what was asked for of the scores: JSON, CSV, the report; nothing where there are none. Of several processes the first does."""
    config, truths = evaluation.config, evaluation.truths
    if truths is None or not evaluation.ranks.is_first:
        return
    if config.json_path is not None:
        write_json(config.json_path, candidates, settings(config))
    if config.csv_path is not None:
        write_csv(config.csv_path, candidates, [ref.line for ref in truths.refs])
    if config.report is not None:
        _keep_report(evaluation, truths, candidates)


def settings(config: EvalConfig) -> dict[str, Any]:
    """The settings under which the scores were taken."""
    protocol = rules_of(config).protocol
    return {
        "eval_split": config.eval_split, "crop": protocol.crop, "min_gt_m": protocol.min_gt_m,
        "max_gt_m": protocol.max_gt_m if np.isfinite(protocol.max_gt_m) else None, "max_pred_m": protocol.max_pred_m,
        "alignment": config.alignment, "scale_factor": config.scale_factor, "post_process": config.post_process,
    }  # fmt: skip


def _keep_report(evaluation: Evaluation, truths: Truths, scored: Sequence[Candidate]) -> None:
    """Write the report; its pictures are the first model's, with several epochs the best one's; they are predicted or read again."""
    config = evaluation.config
    number = int(np.argmin([candidate.scores.means["abs_rel"] for candidate in scored])) if config.all_weights else 0
    chosen = scored[number]
    assert config.report is not None
    picked = pick_images(chosen.scores.per_image[:, 0])
    with open_predictions(evaluation, evaluation.subjects[number], [truths.positions[index] for _, index in picked]) as blocks:
        inv_depths = [inv_depth for block in blocks for inv_depth in block]
    images = [_make_image(evaluation, truths, chosen, *each, inv_depth) for each, inv_depth in zip(picked, inv_depths, strict=True)]
    facts = {name: str(value) for name, value in settings(config).items()} | {"images": str(len(truths.refs))}
    title = f"Depth evaluation on {config.eval_split}"
    console.info("Report: %s", write_report(config.report, scored, images, settings=facts, title=title, number=number))


def _make_image(
    evaluation: Evaluation, truths: Truths, candidate: Candidate, rank: str, index: int, inv_depth: NDArray[np.float32]
) -> Example:
    ref, truth, rules = truths.refs[index], truths.depths[index], rules_of(evaluation.config)
    scored = scored_pixels(inv_depth[None], [truth], rules.protocol)
    everywhere = scored_pixels(inv_depth[None], [truth], ALL_GT)
    found = fit(scored.inv_depth, scored.gt, rules)
    depth_m = aligned_depth_m(everywhere.inv_depth, [found], everywhere.ends[1:], rules.protocol)
    errors = candidate.scores.per_image[index]
    path = evaluation.dataset.image_path(ref)
    image = read_picture(path) if path.is_file() else None  # scoring needs no images
    return Example(rank, ref.line, errors, image, inv_depth, truth, depth_m, scored_mask(truth, rules.protocol))
