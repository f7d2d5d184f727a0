"""An evaluation as one HTML page that needs nothing beside itself: tables, figures, the best, median and worst images."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.frames.sparse_depth import SparseDepth
from dataload.system.leftovers import temporary_of
from engine.evaluation.metrics import HIGHER_IS_BETTER, METRICS
from engine.evaluation.report_figures import (
    DARK,
    LIGHT,
    EpochCurve,
    Line,
    Theme,
    epoch_curves,
    error_by_distance,
    error_histogram,
    per_image,
    png,
)
from engine.evaluation.scores import BAND_EDGES_M, CONFIDENCE, ERROR_EDGES, Scores
from engine.pictures import TITLES, UNKNOWN_GREY, Picture, colour_table, contact_sheet, depth_panels
from splits.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("report.html.j2")
RANKS = ("best", "median", "worst")
PER_RANK = 3
# Panels are reduced to this width and area, so that the page stays small enough to be sent around.
PANEL_WIDTH_PX, PANEL_AREA_PX = 720, 170_000
JPEG_QUALITY = 85
# With more candidates than this, only the one shown and the best keep a colour of their own in the figures.
MAX_COLOURED = 6
NOTHING = "–"
MEANINGS = {
    "abs_rel": "mean of |p − g| / g, for prediction p and truth g",
    "sq_rel": "mean of (p − g)² / g, metres",
    "rmse": "root of the mean of (p − g)², metres",
    "rmse_log": "root of the mean of (ln p − ln g)²",
    "a1": "share of pixels with max(p / g, g / p) below 1.25",
    "a2": "the same below 1.25²",
    "a3": "the same below 1.25³",
}


class Candidate(NamedTuple):
    """What is compared: a checkpoint's name and scores, and its epoch; those named ``<run>/weights_<epoch>`` make their run's curve."""

    name: str
    scores: Scores
    epoch: int | None = None


class Example(NamedTuple):
    """One image to be shown.

    Attributes:
        rank: one of ``RANKS``. name: its split line. errors: (7,) its errors.
        image: (H,W,3) uint8, None where the input is not on disk.
        inv_depth: (h,w) float32, the prediction, up to its alignment.
        truth: of n pixels. depth_m: (n,) float32, the prediction there after alignment, metres. scored: (n,) bool, which of them count.
    """

    rank: str
    name: str
    errors: NDArray[np.float64]
    image: Picture | None
    inv_depth: NDArray[np.float32]
    truth: SparseDepth
    depth_m: NDArray[np.float32]
    scored: NDArray[np.bool_]


class _Picture(NamedTuple):
    title: str
    about: str
    source: str | None
    dark: str | None = None


def pick_images(abs_rel: NDArray[np.float64], per_rank: int = PER_RANK) -> list[tuple[str, int]]:
    """Ranks and indices of the images to show, no image twice: the best, those around the median, the worst (worst first).

    Args:
        abs_rel: (N,); an image whose error is no number is left out. With fewer than 3 ``per_rank`` images each rank has fewer.
    """
    order = np.argsort(abs_rel, kind="stable")
    order = order[np.isfinite(abs_rel[order])]
    total = order.size
    best, worst, middle = (min(per_rank, (total + more) // 3) for more in (2, 1, 0))
    first = max(best, min((total - middle) // 2, total - worst - middle))
    picked = (order[:best], order[first : first + middle], order[total - worst :][::-1])
    return [(rank, int(index)) for rank, indices in zip(RANKS, picked, strict=True) for index in indices]


def write_report(
    folder: Path, candidates: Sequence[Candidate], images: Sequence[Example], *, settings: Mapping[str, str], title: str, number: int = 0
) -> Path:
    """Write ``index.html`` and its figures as PNG files into ``folder``, and return the page's path.

    The page holds all its pictures itself. An earlier report in ``folder`` is replaced; other files there stay. Everything is drawn
    before the first file appears.

    Args:
        candidates: one or more.
        images: of one candidate, by rank.
        settings: what the scores were taken under, to be printed as they are.
        number: which candidate's bands and images are shown.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    assert candidates, "no candidate"
    # Within the folder: no other may be writable.
    temporary = temporary_of(folder / PAGE)
    try:
        temporary.mkdir(parents=True)
        context = {"title": title, "settings": settings, "figures": _figures(temporary, candidates, number), **_tables(candidates, number)}
        context["groups"] = _groups(temporary, images)
        (temporary / PAGE).write_text(_render(context), encoding="utf-8", errors="backslashreplace")
        _publish(temporary, folder)
    except OSError as error:
        raise InputError(f"report: cannot write into {folder} ({error.strerror or error}); choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / PAGE


def _publish(temporary: Path, folder: Path) -> None:
    """Move the finished files into ``folder``, the page last, and remove those of an earlier report that are not replaced."""
    names = sorted(path.name for path in temporary.iterdir())
    for name in [*(name for name in names if name != PAGE), PAGE]:
        (temporary / name).replace(folder / name)
    stale = ["curve.png", *(f"{rank}_{number}.png" for rank in RANKS for number in range(1, PER_RANK + 1))]
    for name in stale:
        if name not in names:
            (folder / name).unlink(missing_ok=True)


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    # Names come from folders and split files: they are text, never markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    colours = colour_table()[:: 255 // 5].tolist()
    gradient = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(context, gradient=gradient)


def _tables(candidates: Sequence[Candidate], shown: int) -> dict[str, Any]:
    """What the template needs for the summary and the table by distance."""
    means = np.array([list(candidate.scores.means.values()) for candidate in candidates])
    best = [_best(means[:, column], metric) for column, metric in enumerate(METRICS)]
    rows = []
    for number, candidate in enumerate(candidates):
        cells = [
            {"value": _number(value), "interval": _interval(bounds), "best": len(candidates) > 1 and value == best[column]}
            for column, (value, bounds) in enumerate(zip(means[number], candidate.scores.interval().T, strict=True))
        ]
        rows.append({"name": candidate.name, "cells": cells, "ratio": _ratio(candidate.scores)})
    return {
        "rows": rows,
        "metrics": [(metric, "↑" if metric in HIGHER_IS_BETTER else "↓", MEANINGS[metric]) for metric in METRICS],
        "has_ratios": any(candidate.scores.median_ratios is not None for candidate in candidates),
        "num_images": candidates[0].scores.num_images,
        "confidence": f"{CONFIDENCE:.0%}",
        "shown": candidates[shown].name,
        "bands": _bands(candidates[shown].scores),
    }


def _bands(scores: Scores) -> list[dict[str, Any]]:
    pixels = scores.bands[:, 0]
    shares = pixels / max(1.0, pixels.sum())
    rows = zip(BAND_EDGES_M[:-1], BAND_EDGES_M[1:], pixels, shares, scores.band_errors(), strict=True)
    return [
        {"range": f"{low}–{high} m", "pixels": f"{count:,.0f}", "share": f"{share:.1%}", "cells": [_number(error) for error in errors]}
        for low, high, count, share, errors in rows
    ]


def _best(values: NDArray[np.float64], metric: str) -> float:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("nan")
    return float(np.max(finite) if metric in HIGHER_IS_BETTER else np.min(finite))


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else NOTHING


def _interval(bounds: NDArray[np.float64]) -> str:
    return f"{bounds[0]:.3f}–{bounds[1]:.3f}" if np.isfinite(bounds).all() else ""


def _ratio(scores: Scores) -> tuple[str, str]:
    """The median ratio and its relative spread."""
    if scores.median_ratio is None or scores.median_ratio_std is None:
        return NOTHING, ""
    return f"{scores.median_ratio:.3f}", f"± {scores.median_ratio_std:.1%}"


def _figures(folder: Path, candidates: Sequence[Candidate], shown: int) -> list[_Picture]:
    """Draw the figures, light ones also as files."""
    histograms = _lines(candidates, shown, lambda scores: scores.histogram)
    by_distance = _lines(candidates, shown, lambda scores: scores.band_errors()[:, METRICS.index("abs_rel")])
    by_image = _lines(candidates, shown, lambda scores: scores.per_image[:, METRICS.index("abs_rel")])
    pixels = candidates[0].scores.bands[:, 0]
    drawn = [
        ("error_histogram", "Error histogram", lambda theme: error_histogram(histograms, ERROR_EDGES, theme)),
        ("abs_rel_by_distance", "abs_rel against distance", lambda theme: error_by_distance(by_distance, pixels, BAND_EDGES_M, theme)),
        ("per_image", "abs_rel of the images, sorted", lambda theme: per_image(by_image, theme)),
    ]
    runs = _runs(candidates)
    if runs:
        curves = [_curve(name, epochs) for name, epochs in runs.items()]
        in_runs = {candidate.name for epochs in runs.values() for candidate in epochs}
        others = [(c.name, c.scores.means["abs_rel"], c.scores.means["a1"]) for c in candidates if c.name not in in_runs]
        drawn.append(("curve", "Errors against epochs", lambda theme: epoch_curves(curves, others, theme)))
    return [_figure(folder, *figure) for figure in drawn]


def _figure(folder: Path, name: str, title: str, draw: Callable[[Theme], Figure]) -> _Picture:
    light, dark = png(draw(LIGHT)), png(draw(DARK))
    (folder / f"{name}.png").write_bytes(light)
    return _Picture(title, f"{title}, a figure", _data_url(light, "png"), _data_url(dark, "png"))


def _lines(candidates: Sequence[Candidate], shown: int, values: Callable[[Scores], NDArray[Any]]) -> list[Line]:
    """A line of each candidate; of many, all but the one shown and the best are muted."""
    abs_rel = np.array([candidate.scores.means["abs_rel"] for candidate in candidates])
    named = {shown, int(np.argmin(np.where(np.isfinite(abs_rel), abs_rel, np.inf)))}
    many = len(candidates) > MAX_COLOURED
    return [Line(c.name, values(c.scores), muted=many and number not in named) for number, c in enumerate(candidates)]


def _runs(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """The candidates named ``<run>/weights_<epoch>`` by their run and epoch, of runs with two or more: those that make a curve."""
    runs: dict[str, dict[int, Candidate]] = {}
    for candidate in candidates:
        run, _, own = candidate.name.rpartition("/")
        if candidate.epoch is not None and own == f"weights_{candidate.epoch}":
            runs.setdefault(run or "run", {})[candidate.epoch] = candidate
    return {run: [epochs[epoch] for epoch in sorted(epochs)] for run, epochs in runs.items() if len(epochs) > 1}


def _curve(name: str, candidates: Sequence[Candidate]) -> EpochCurve:
    bounds = np.stack([candidate.scores.interval() for candidate in candidates], axis=-1)
    abs_rel, a1 = (np.array([candidate.scores.means[metric] for candidate in candidates]) for metric in ("abs_rel", "a1"))
    epochs = np.array([candidate.epoch for candidate in candidates])
    return EpochCurve(name, epochs, abs_rel, bounds[:, METRICS.index("abs_rel")], a1, bounds[:, METRICS.index("a1")])


def _groups(folder: Path, images: Sequence[Example]) -> list[dict[str, Any]]:
    """The images by rank, each with its errors and panels; the panels side by side also as files."""
    groups = []
    for rank in RANKS:
        rows = []
        for number, image in enumerate((image for image in images if image.rank == rank), start=1):
            panels = _panels(image)
            known = [panel for panel in panels if panel is not None]
            contact_sheet([known], folder / f"{rank}_{number}.png", TITLES[-len(known) :])
            errors = [(metric, _number(value)) for metric, value in zip(METRICS, image.errors, strict=True)]
            pictures = [
                _Picture(title, f"{title} of {image.name}", None if panel is None else _jpeg(panel))
                for title, panel in zip(TITLES, panels, strict=True)
            ]
            rows.append({"name": image.name, "errors": errors, "panels": pictures})
        if rows:
            groups.append({"rank": rank, "images": rows})
    return groups


def _panels(shown: Example) -> list[Picture | None]:
    """Input (None where there is none), prediction, truth, error, all of one reduced size."""
    height, width = shown.truth.size_px if shown.image is None else shown.image.shape[:2]
    factor = min(1.0, PANEL_WIDTH_PX / width, (PANEL_AREA_PX / (height * width)) ** 0.5)
    size_px = max(1, round(height * factor)), max(1, round(width * factor))
    if shown.image is None:
        image = np.full((*size_px, 3), UNKNOWN_GREY, np.uint8)
    else:
        image = np.asarray(Image.fromarray(shown.image).resize(size_px[::-1], Image.Resampling.LANCZOS))
    _, *rest = depth_panels(image, shown.inv_depth, shown.truth, shown.depth_m, shown.scored)
    return [None if shown.image is None else image, *rest]


def _jpeg(picture: Picture) -> str:
    buffer = io.BytesIO()
    # Full colour resolution: the points of a truth are few pixels wide.
    Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return _data_url(buffer.getvalue(), "jpeg")


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
