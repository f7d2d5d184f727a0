"""What a run recorded of itself: the ``opt.json`` of this engine or of Monodepth2."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splits.errors import InputError

OPTIONS_FILE = "opt.json"


def run_options(weights: Path) -> dict[str, Any]:
    """The options that weights were trained with: of their folder's or their run's ``opt.json``; empty without one.

    Raises:
        InputError: the file is damaged.
    """
    path = options_file(weights)
    if path is None:
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:  # no JSON, no text, or no object
        raise InputError(f"{path} is not valid JSON ({error}); restore it or remove it to use the defaults") from error


def options_file(weights: Path) -> Path | None:
    """The ``opt.json`` that belongs to a folder or file of weights; None where there is none."""
    folder = weights.parent if weights.is_file() else weights
    return next((path for path in (folder / OPTIONS_FILE, folder.parent / OPTIONS_FILE) if path.is_file()), None)


def numbers_in(options: Mapping[str, Any], key: str, weights: Path) -> tuple[float, ...] | None:
    """The number or numbers of an option, None where the run left it open.

    Raises:
        InputError: it holds something else.
    """
    value = options.get(key)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in values):
        raise InputError(
            f"{options_file(weights)}: {key} is {str(value)[:40]!r}, which is no number; correct it there, or remove that line"
        )
    return tuple(float(each) for each in values)


def number_in(options: Mapping[str, Any], key: str, weights: Path) -> float | None:
    """The number of an option above 0, None where the run left it open; ``InputError`` where it holds something else."""
    found = numbers_in(options, key, weights)
    if found is None:
        return None
    if len(found) != 1 or found[0] <= 0:
        raise InputError(f"{options_file(weights)}: {key} is {options[key]}, not one number above 0; correct it there, or remove that line")
    return found[0]
