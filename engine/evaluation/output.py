"""The output of an evaluation: the published table, a comparison, JSON, a row for each image as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataload.system.files import whole_file
from dataload.system.json_text import json_text
from engine.evaluation.metrics import HIGHER_IS_BETTER, METRICS
from engine.evaluation.report import Candidate
from engine.evaluation.scores import BAND_EDGES_M, CONFIDENCE, Scores

HEADER = "".join(f"{name:>8} | " for name in METRICS)
# What a table program takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
INTERVAL = f"{CONFIDENCE:.0%} over images"


def published_table(scores: Scores) -> str:
    """Monodepth2's output: the line of ratios where there is one, the header, the row for LaTeX; below it the bootstrap's bounds."""
    ratios = ""
    if scores.median_ratios is not None:
        ratios = f" Scaling ratios | med: {scores.median_ratio:0.3f} | std: {scores.median_ratio_std:0.3f}\n"
    row = "".join(f"&{value: 8.3f}  " for value in scores.means.values())
    low, high = ("".join(f"{value: 9.3f}  " for value in bound) for bound in scores.interval())
    return f"{ratios}\n  {HEADER}\n{row}\\\\\n{low} low,  {INTERVAL}\n{high} high"


def comparison_table(candidates: Sequence[Candidate]) -> str:
    """A row for each candidate, the best value of each column starred, and the bounds of abs_rel."""
    width = max(len(candidate.name) for candidate in candidates)
    values = np.array([list(candidate.scores.means.values()) for candidate in candidates])
    best = [int(np.argmax(values[:, m]) if name in HIGHER_IS_BETTER else np.argmin(values[:, m])) for m, name in enumerate(METRICS)]
    lines = [f"{'':{width}}    {HEADER}abs_rel, {INTERVAL}"]
    for number, candidate in enumerate(candidates):
        cells = "".join(f"&{value: 8.3f}{'*' if best[m] == number else ' '} " for m, value in enumerate(values[number]))
        low, high = candidate.scores.interval()[:, 0]
        lines.append(f"{candidate.name:{width}}  {cells}\\\\ {low:.3f} to {high:.3f}")
    return "\n".join([*lines, "* best of its column"])


def distance_table(scores: Scores) -> str:
    """The errors by distance of the truth, pooled over the pixels of all images."""
    lines = [f"  distance m      pixels  {HEADER}"]
    for number, errors in enumerate(scores.band_errors()):
        cells = "".join(f"{value:9.3f}  " if np.isfinite(value) else f"{'-':>9}  " for value in errors)
        low, high = BAND_EDGES_M[number : number + 2]
        lines.append(f"  {low:>4} to {high:<3} {scores.bands[number, 0]:>11.0f} {cells}".rstrip())
    return "\n".join(lines)


def write_json(path: Path, candidates: Sequence[Candidate], settings: Mapping[str, Any]) -> None:
    """Write settings and, for each candidate under ``models``, means, bounds, ratios and the errors by distance."""
    models = [_as_json(candidate) for candidate in candidates]
    with whole_file(path) as temporary:
        temporary.write_text(json_text({"settings": dict(settings), "models": models}, 2) + "\n", encoding="utf-8")


def _as_json(candidate: Candidate) -> dict[str, Any]:
    scores = candidate.scores
    interval = dict(zip(METRICS, scores.interval().T.tolist(), strict=True))
    bands = [
        {"from_m": BAND_EDGES_M[b], "to_m": BAND_EDGES_M[b + 1], "pixels": int(scores.bands[b, 0])}
        | dict(zip(METRICS, errors.tolist(), strict=True))
        for b, errors in enumerate(scores.band_errors())
    ]
    ratios = {"median_ratio": scores.median_ratio, "median_ratio_std": scores.median_ratio_std}
    name = {"name": candidate.name, "epoch": candidate.epoch, "num_images": scores.num_images}
    return {**name, **scores.means, **ratios, "interval_95": interval, "by_distance": bands}


def write_csv(path: Path, candidates: Sequence[Candidate], frames: Sequence[str]) -> None:
    """Write a row for each image of each candidate: its name, its split line, its errors and its median ratio; names as ``csv_text``."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "frame", *METRICS, "median_ratio"])
        for candidate in candidates:
            ratios = candidate.scores.median_ratios
            for number, (frame, errors) in enumerate(zip(frames, candidate.scores.per_image.tolist(), strict=True)):
                writer.writerow([csv_text(candidate.name), csv_text(frame), *errors, "" if ratios is None else float(ratios[number])])


def csv_text(text: str) -> str:
    """A name as a cell that table programs show and never compute: one that begins as a formula does gets an apostrophe before it."""
    return f"'{text}" if text.startswith(FORMULA) else text
