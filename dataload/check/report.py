"""The report of an inspection: facts as lines, warnings, and the problems that keep a dataset from being trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from splits.errors import InputError

HEADING_WIDTH = 12


@dataclass
class Report:
    """Filled as the inspection goes.

    Attributes:
        problems: what would end a training or make its scores worthless; each says what, where and the remedy.
        warnings: what is unusual, and may be meant.
        lines: heading and text of each fact, in order.
        facts: the same facts as values, for a file.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, heading: str, text: str) -> None:
        """Add a fact for the reader."""
        self.lines.append((heading, text))

    def problem(self, text: str) -> None:
        """Add a problem; several lists, or several questions about one, may find the same, and the fullest text is kept."""
        if not any(text in known for known in self.problems):
            self.problems = [*(known for known in self.problems if known not in text), text]

    def warn(self, text: str) -> None:
        """Add a warning."""
        if text not in self.warnings:
            self.warnings.append(text)

    @contextmanager
    def faults(self, where: str = "") -> Iterator[None]:
        """Turn an ``InputError`` inside into a problem; what follows is inspected nevertheless."""
        try:
            yield
        except InputError as error:
            self.problem(f"{where}: {error}" if where else str(error))

    @property
    def verdict(self) -> str:
        """``ready``, or how many problems there are."""
        number = len(self.problems)
        return "ready" if not number else f"{number} problem{'' if number == 1 else 's'}"

    def told(self) -> list[str]:
        """Lines of the facts, the warnings, the problems, and the verdict at the end."""
        lines = [f"{heading:<{HEADING_WIDTH}}{text}" for heading, text in self.lines]
        for heading, found in (("warning", self.warnings), ("problem", self.problems)):
            lines += [f"- {heading}: {text}" for text in found]
        return [*lines, self.verdict]

    def values(self) -> dict[str, Any]:
        """The whole report as JSON holds it."""
        return {"verdict": self.verdict, "problems": self.problems, "warnings": self.warnings, **self.facts}


def count(number: int, noun: str) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
