"""The figures of a report, as PNG: errors by size, by distance, by image, by epoch. Drawn without a display, in a light and a dark form."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.floating] | NDArray[np.integer]

# Styles help where colours do not.
STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MUTED = "#8c929d"
SIZE_IN, DPI = (7.0, 3.6), 160
LEGEND_CHARACTERS = 36


class Theme(NamedTuple):
    """Colours of a figure's page, writing, grid, bars and lines; those of the lines, after Okabe and Ito 2008, suit colour-blind eyes."""

    page: str
    text: str
    grid: str
    bars: str
    lines: tuple[str, ...]


LIGHT = Theme("#ffffff", "#23272f", "#e3e6ea", "#dfe3e8", ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"))
DARK = Theme("#1b1e24", "#d9dce2", "#343941", "#30353e", ("#56B4E9", "#E69F00", "#00B386", "#CC79A7", "#F0E442", "#D55E00"))


class Line(NamedTuple):
    """One candidate's numbers in a figure; with many candidates, muted ones are faint and not named."""

    name: str
    values: Numbers
    muted: bool = False


class EpochCurve(NamedTuple):
    """A run's mean errors (n,) and their bounds (2,n) at its epochs (n,), ascending."""

    name: str
    epochs: NDArray[np.int64]
    abs_rel: NDArray[np.float64]
    abs_rel_bounds: NDArray[np.float64]
    a1: NDArray[np.float64]
    a1_bounds: NDArray[np.float64]


def error_histogram(lines: Sequence[Line], edges: Sequence[float], theme: Theme = LIGHT) -> Figure:
    """Pixels (bins,) by signed relative error, as shares of each line's sum; the outer bins hold all beyond them."""
    figure, axes = _figure(theme)
    percent = 100 * np.asarray(edges)
    for line, style in _style_lines(lines, theme):
        axes.stairs(100 * line.values / max(1, line.values.sum()), percent, **style)
    axes.axvline(0, color=theme.text, linewidth=0.8, alpha=0.5)
    axes.set(xlabel="relative error (prediction - truth) / truth, %", ylabel="share of pixels, %", ylim=(0, None))
    axes.set_xlim(percent[0], percent[-1])
    axes.annotate("too near", (0.02, 0.95), xycoords="axes fraction", va="top", color=theme.text, fontsize=9)
    axes.annotate("too far", (0.98, 0.95), xycoords="axes fraction", va="top", ha="right", color=theme.text, fontsize=9)
    _legend(figure, axes, lines, theme)
    return figure


def error_by_distance(lines: Sequence[Line], pixels: Numbers, edges_m: Sequence[float], theme: Theme = LIGHT) -> Figure:
    """abs_rel (bands,) against the truth's distance, NaN where a band is empty, before bars of the bands' ``pixels``."""
    figure, axes = _figure(theme)
    edges = np.asarray(edges_m, dtype=np.float64)
    middle = (edges[:-1] + edges[1:]) / 2
    counts = axes.twinx()
    counts.bar(middle, 100 * pixels / max(1, pixels.sum()), np.diff(edges) * 0.92, color=theme.bars)
    counts.set_ylabel("share of pixels, % (bars)", color=theme.text)
    counts.tick_params(colors=theme.text, length=0)
    counts.spines[:].set_visible(False)
    counts.set_facecolor(theme.page)
    for line, style in _style_lines(lines, theme):
        axes.plot(middle, line.values, marker="o", markersize=4, **style)
    # The lines belong before the bars of the second axes.
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.set(xlabel="distance of the truth, m", ylabel="abs_rel", xlim=(edges[0], edges[-1]), ylim=(0, None), xticks=edges)
    _legend(figure, axes, lines, theme)
    return figure


def per_image(lines: Sequence[Line], theme: Theme = LIGHT) -> Figure:
    """abs_rel of the images (N,), each line sorted by itself, against the share of images that are as good or better."""
    figure, axes = _figure(theme)
    for line, style in _style_lines(lines, theme):
        values = np.sort(line.values[np.isfinite(line.values)])
        share = 100 * (np.arange(values.size) + 0.5) / max(1, values.size)
        axes.plot(share, values, marker="o" if values.size <= 2 else None, **style)
    axes.set(xlabel="images from best to worst, %", ylabel="abs_rel of the image", xlim=(0, 100), ylim=(0, None))
    _legend(figure, axes, lines, theme)
    return figure


def epoch_curves(runs: Sequence[EpochCurve], others: Sequence[tuple[str, float, float]] = (), theme: Theme = LIGHT) -> Figure:
    """abs_rel and a1 of runs against their epochs, intervals as bands; ``others`` (name, abs_rel, a1) as level lines."""
    figure, axes = _figure(theme, columns=2)
    names = [Line(run.name, run.abs_rel) for run in runs] + [Line(name, np.array([abs_rel, a1])) for name, abs_rel, a1 in others]
    styles = [style for _, style in _style_lines(names, theme)]
    for run, style in zip(runs, styles, strict=False):
        parts = ((run.abs_rel, run.abs_rel_bounds), (run.a1, run.a1_bounds))
        for part, (values, bounds) in zip(axes, parts, strict=True):
            part.plot(run.epochs, values, marker="o", markersize=3.5, **style)
            part.fill_between(run.epochs, bounds[0], bounds[1], color=style["color"], alpha=0.18, linewidth=0)
    for line, style in zip(names[len(runs) :], styles[len(runs) :], strict=True):
        for part, value in zip(axes, line.values, strict=True):
            part.axhline(value, **style)
    for part, metric in zip(axes, ("abs_rel (lower is better)", "a1 (higher is better)"), strict=True):
        part.set(xlabel="epoch", title=metric)
        part.title.set(color=theme.text, fontsize=10)
        part.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes[0], names, theme)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes, the same each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def _figure(theme: Theme, columns: int = 1) -> tuple[Figure, Any]:
    """A figure with one axes, or an array of several side by side, in the theme's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained", facecolor=theme.page)
    axes = figure.subplots(1, columns)
    for part in np.atleast_1d(axes):
        part.set_facecolor(theme.page)
        part.grid(color=theme.grid, linewidth=0.8)
        part.set_axisbelow(True)
        part.spines[["top", "right"]].set_visible(False)
        part.spines[["left", "bottom"]].set_color(theme.text)
        part.tick_params(colors=theme.text, length=3)
        part.xaxis.label.set_color(theme.text)
        part.yaxis.label.set_color(theme.text)
    return figure, axes


def _style_lines(lines: Sequence[Line], theme: Theme) -> list[tuple[Line, dict[str, Any]]]:
    """Each line with the keywords of its looks; muted lines come first and so lie behind."""
    styled, number = [], 0
    for line in lines:
        if line.muted:
            styled.append((line, {"color": MUTED, "linewidth": 0.8, "alpha": 0.6, "zorder": 1.5}))
            continue
        colour, style = theme.lines[number % len(theme.lines)], STYLES[number % len(STYLES)]
        styled.append((line, {"color": colour, "linestyle": style, "linewidth": 1.8, "zorder": 3}))
        number += 1
    return styled


def _legend(figure: Figure, axes: Axes, lines: Sequence[Line], theme: Theme) -> None:
    """The names of the lines above the figure, as they are: no formula in a ``$``, none hidden for its underscore."""
    from matplotlib.lines import Line2D

    entries = [(_shorten(line.name), style) for line, style in _style_lines(lines, theme) if not line.muted]
    muted = [style for line, style in _style_lines(lines, theme) if line.muted]
    entries += [(f"{len(muted)} others", muted[0])] if muted else []
    handles = [Line2D([], [], **style) for _, style in entries]
    columns = 1 if any(len(name) > 24 for name, _ in entries) and len(entries) > 2 else 3
    legend = figure.legend(
        handles, [" " + name for name, _ in entries], loc="outside upper left", ncols=columns, frameon=False, fontsize=9, handlelength=3
    )
    for text in legend.get_texts():
        text.set(parse_math=False, color=theme.text)


def _shorten(name: str) -> str:
    """A long name without its middle."""
    half = LEGEND_CHARACTERS // 2 - 1
    return name if len(name) <= LEGEND_CHARACTERS else f"{name[:half]}...{name[-half:]}"
