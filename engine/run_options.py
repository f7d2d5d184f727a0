"""What a run recorded of itself: the ``opt.json`` of this engine or of Monodepth2."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splits.errors import InputError
from splits.reading import read_json

OPTIONS_FILE = "opt.json"


def run_options(weights: Path) -> dict[str, Any]:
    """The options that weights were trained with: of their folder's or their run's ``opt.json``; empty without one.

    Raises:
        InputError: the file is damaged.
    """
    path = options_file(weights)
    return {} if path is None else read_options(path, "restore it or remove it to use the defaults")


def read_options(path: Path, remedy: str) -> dict[str, Any]:
    """The options in an ``opt.json`` by name, whatever their values are.

    Args:
        path: the file.
        remedy: what to do where it is damaged.

    Raises:
        InputError: it is no JSON, or no object of options.
    """
    found = read_json(path, "valid JSON", remedy)
    if not isinstance(found, dict):
        raise InputError(f"{path} is not valid JSON of options: it holds a {type(found).__name__}, not names with values; {remedy}")
    return found


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
    if not values or not all(map(_is_number, values)):
        raise InputError(
            f"{options_file(weights)}: {key} is {str(value)[:40]!r}, which is no number; correct it there, or remove that line"
        )
    return tuple(float(each) for each in values)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def number_in(options: Mapping[str, Any], key: str, weights: Path) -> float | None:
    """The number of an option above 0, None where the run left it open; ``InputError`` where it holds something else."""
    found = numbers_in(options, key, weights)
    if found is None:
        return None
    if len(found) != 1 or found[0] <= 0:
        raise InputError(
            f"{options_file(weights)}: {key} is {str(options[key])[:40]}, not one number above 0; correct it there, or remove that line"
        )
    return found[0]
