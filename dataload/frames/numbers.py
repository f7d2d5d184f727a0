"""Numbers that people write into files: each is read as a decimal number or refused; none is skipped."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping

from splits.errors import InputError

# No octal by a leading 0, no 0x10, no 1_000, no 1:30 (90 in YAML 1.1), no nan.
DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\d*\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def read_number(value: object, name: str) -> float:
    """A finite number from a number or its decimal text; ``InputError`` says what stands there instead."""
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, int | float) else _from_text(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {shown(value)}, not a number; write a decimal number such as -0.25 or 1.5e-3")
    return number


def read_numbers(value: object, name: str, counts: tuple[int, ...] = ()) -> list[float]:
    """The numbers of a list, of a list of rows, or of ``{rows, cols, data}`` as ROS and OpenCV write matrices.

    Args:
        counts: how many there may be; any number where none is given.

    Raises:
        InputError: something else than numbers, rows of different lengths, or another number of them than counted or said.
    """
    rows = cols = None
    if isinstance(value, Mapping):
        rows, cols = value.get("rows"), value.get("cols")
        value = value.get("data")
    if not isinstance(value, list):
        raise InputError(f"{name} is {shown(value)}, not a list of numbers")
    if value and all(isinstance(row, list) for row in value):
        if len({len(row) for row in value}) > 1:
            raise InputError(f"{name} has rows of different lengths")
        value = [number for row in value for number in row]
    found = [read_number(number, f"{name}, number {place} of {len(value)}") for place, number in enumerate(value, start=1)]
    if rows is not None and cols is not None and read_number(rows, f"{name}: rows") * read_number(cols, f"{name}: cols") != len(found):
        raise InputError(f"{name} holds {len(found)} numbers, not the {shown(rows)} x {shown(cols)} that it says")
    if counts and len(found) not in counts:
        raise InputError(f"{name} holds {len(found)} numbers, not {' or '.join(map(str, counts))}")
    return found


def shown(value: object) -> str:
    """A value of a file in a few words; what holds others is not written out."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a group of fields"
    return "a list" if isinstance(value, list) else reprlib.repr(value)


def _from_text(value: object) -> float:
    return float(value) if isinstance(value, str) and DECIMAL.fullmatch(value.strip()) else math.nan
