"""Numbers for people: a few significant digits, and never an exponent."""

from __future__ import annotations

from decimal import Decimal


def figure(value: float, digits: int = 3) -> str:
    """A number with that many significant digits, whole numbers in full: ``0.00012``, ``4.5``, ``100``, ``12345``."""
    rounded = f"{value:.{digits}g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{Decimal(rounded):f}" if "e" in rounded else rounded


def percent(share: float) -> str:
    """A share as ``0 %``, ``0.012 %``, ``4.5 %``, ``100 %``."""
    return f"{figure(100 * share, 2)} %"
