"""The summary of a conversion: in words, and as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from dataload.bags.convert import IMAGE_SUFFIXES, STAMP_DIGITS, Report
from dataload.bags.plan import DEPTH_FOLDER, LEFT_FOLDER
from dataload.frames.camera_formats import LEFT

if TYPE_CHECKING:
    from dataload.footage.contact_sheet import Tile

MAX_TILES, TILES_A_SEQUENCE = 24, 3
SHEET = "contact_sheet.jpg"


def describe(report: Report) -> list[str]:
    """A sequence in a few lines: how much there is, of what, from when to when, what was left out and why."""
    left, stamps = report.calibration.cameras[LEFT], report.stamps_ns
    seconds = (stamps[-1] - stamps[0]) / 1e9 if stamps else 0.0
    rate = f", {(len(stamps) - 1) / seconds:.1f} per second" if seconds else ""
    span = f", {_time(stamps[0])} to {_time(stamps[-1])} UTC" if stamps else ""
    state = " (converted before)" if report.already else ""
    lines = [f"{report.folder.name}: {len(stamps)} frames of {left.width_px}x{left.height_px}{rate}{span}, in {report.folder}{state}"]
    parts = [f"image {report.calibration.source.get('image_topic', '')}"]
    if report.right:
        parts.append(f"right {report.right / max(len(stamps), 1):.0%}, baseline {report.calibration.baseline_m or 0:.3f} m")
    if report.depth:
        depth = report.calibration
        parts.append(f"depth {report.depth / max(len(stamps), 1):.0%}, {depth.depth_kind}, {depth.depth_topic}")
    lines.append("  " + "; ".join(parts))
    if report.dropped:
        lines.append("  left out: " + ", ".join(f"{n} {why}" for why, n in report.dropped.items()))
    lines += [f"  {note}" for note in report.notes]
    if report.damage:
        until = f"; what can be read is converted, to {_time(stamps[-1])} UTC" if stamps else ""
        lines.append(f"  the recording cannot be read whole: {report.damage}{until}")
    return lines


def write_sheet(out: Path, reports: Sequence[Report]) -> Path:
    """``contact_sheet.jpg`` with a few frames of each sequence, at most ``MAX_TILES``."""
    from dataload.footage.contact_sheet import write_contact_sheet

    each = max(1, min(TILES_A_SEQUENCE, MAX_TILES // len(reports)))
    # With more sequences than fit, some are chosen evenly.
    shown = [reports[i * len(reports) // MAX_TILES] for i in range(MAX_TILES)] if len(reports) > MAX_TILES else list(reports)
    return write_contact_sheet(out / SHEET, [tile for report in shown for tile in _tiles(report, each)])


def _tiles(report: Report, count: int) -> list[Tile]:
    """Frames spread over a sequence."""
    import numpy as np

    from dataload.footage.contact_sheet import Tile, reduced, reduced_levels
    from dataload.frames.depth_file import read_depth_levels
    from dataload.frames.picture import read_picture

    stamps, tiles = report.stamps_ns, []
    for stamp in [stamps[(2 * i + 1) * len(stamps) // (2 * count)] for i in range(min(count, len(stamps)))]:
        stem = f"{report.folder.name}_{stamp:0{STAMP_DIGITS}d}"
        paths = [report.folder / LEFT_FOLDER / (stem + suffix) for suffix in IMAGE_SUFFIXES]
        pixels = reduced(read_picture(next(path for path in paths if path.is_file())))
        measured, depth_m = report.folder / DEPTH_FOLDER / f"{stem}.png", None
        if measured.is_file():
            levels = reduced_levels(read_depth_levels(measured).astype(np.uint16))
            depth_m = levels.astype(np.float32) / np.float32(report.calibration.depth_scale or 1)
        tiles.append(Tile(f"{report.folder.name} {_time(stamp)}", pixels, depth_m))
    return tiles


def _time(stamp_ns: int) -> str:
    return datetime.fromtimestamp(stamp_ns / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
