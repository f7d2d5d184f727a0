"""The path of a sequence seen from above, and a page with it and the scores."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from dataload.system.files import whole_file
from engine.odometry.errors import SEGMENT_LENGTHS_M, Array, absolute_poses
from engine.odometry.scores import PoseScores

# Light blue and orange, distinct for every kind of colour vision.
TRUE_COLOUR, PREDICTED_COLOUR = "#9db7d1", "#d55e00"
# The truth is the broad road that a good prediction runs along.
TRUE_WIDTH, PREDICTED_WIDTH = 6.0, 1.5
WIDTH_INCHES, DPI = 8.0, 120
LEAST_ASPECT, MOST_ASPECT = 0.45, 1.25
MARGIN = 0.06

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .9rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
pre { overflow-x: auto; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ subject }}</p>
<pre>{{ table }}</pre>
<img alt="true and predicted path from above" src="data:image/png;base64,{{ plot }}">
<h2>Segment errors by length</h2>
<table>
<tr><th>length (m)</th><th>segments</th><th>t_err (%)</th><th>r_err (deg/100 m)</th></tr>
{% for length, count, t_err, r_err in rows %}<tr><td>{{ length }}</td><td>{{ count }}</td><td>{{ t_err }}</td><td>{{ r_err }}</td></tr>
{% endfor %}</table>
</body>
</html>
"""


def draw_trajectory(gt_poses: Array, motions: Array, scores: PoseScores) -> bytes:
    """A PNG of the true path (N,4,4) and of the predicted motions (N-1,4,4), aligned by ``scores``, from above: x right, z ahead."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    gt = gt_poses[:, :3, 3]
    pred = scores.alignment.apply(absolute_poses(motions)[:, :3, 3])
    low, high = _square_ish(gt, pred)
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * (high[1] - low[1]) / (high[0] - low[0]) + 0.9), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(gt[:, 0], gt[:, 2], color=TRUE_COLOUR, linewidth=TRUE_WIDTH, solid_joinstyle="round", label="true")
    axes.plot(pred[:, 0], pred[:, 2], color=PREDICTED_COLOUR, linewidth=PREDICTED_WIDTH, label="predicted, aligned in scale and pose")
    axes.plot(pred[0, 0], pred[0, 2], "o", color=PREDICTED_COLOUR, markersize=5, zorder=5)
    axes.plot(gt[0, 0], gt[0, 2], "o", color="black", markersize=11, markerfacecolor="none", markeredgewidth=1.8, label="start", zorder=4)
    axes.set(
        aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="x, to the right (m)", ylabel="z, ahead at the start (m)"
    )
    axes.set_title(f"{_title(scores)}: error {scores.ate_rmse_m:.2f} m (RMS) over {scores.path_length_m:.0f} m", fontsize=12, pad=12)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", bbox_inches="tight", pad_inches=0.15)
    return png.getvalue()


def write_page(path: Path, scores: PoseScores, plot: bytes, *, subject: str) -> None:
    """Write a page of one file: the table, the plot (PNG), the segment errors by length; ``subject`` says what was evaluated."""
    from jinja2 import Environment

    rows = []
    for length_m in SEGMENT_LENGTHS_M:
        part = scores.segments.of_length(length_m)
        figures = (f"{part.t_err_percent:.3f}", f"{part.r_err_deg_per_100m:.3f}") if len(part.length_m) else ("–", "–")
        rows.append((length_m, len(part.length_m), *figures))
    template = Environment(autoescape=True).from_string(PAGE)
    page = template.render(
        title=_title(scores), subject=subject, table=scores.table().strip("\n"), plot=base64.b64encode(plot).decode("ascii"), rows=rows
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _title(scores: PoseScores) -> str:
    return f"KITTI odometry, sequence {scores.sequence:02d}"


def _square_ish(*paths: Array) -> tuple[list[float], list[float]]:
    """Least and largest x and z of a view of all paths, widened until it is neither a strip nor a tower."""
    low = [min(float(np.min(path[:, axis])) for path in paths) for axis in (0, 2)]
    high = [max(float(np.max(path[:, axis])) for path in paths) for axis in (0, 2)]
    width, height = high[0] - low[0], high[1] - low[1]
    margin = MARGIN * max(width, height, 1e-6)
    wide = max(width + 2 * margin, (height + 2 * margin) / MOST_ASPECT)
    tall = max(height + 2 * margin, LEAST_ASPECT * wide)
    for axis, grown in ((0, wide - width), (1, tall - height)):
        low[axis] -= grown / 2
        high[axis] += grown / 2
    return low, high
