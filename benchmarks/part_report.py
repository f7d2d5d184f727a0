"""What a part of ``gpu_proof`` says of itself: how its tests went, what it left out, and why it failed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import dropwhile
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from benchmarks.row_process import PROJECT

LAST_LINES, LINE_CHARS = 12, 300
# Of as many failed tests the page says what they said; the others it names.
EXPLAINED = 5


class Report(NamedTuple):
    """How tests went.

    Attributes:
        counts: of those that passed, failed and were skipped.
        failures: a line for each that failed, with what it said.
        left_out: why others were skipped.
    """

    counts: str
    failures: list[str]
    left_out: list[str]


def read_report(path: Path) -> Report | None:
    """What pytest reports; None where it was killed before it could."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return None
    faults = {case: [*case.iter("failure"), *case.iter("error")] for case in cases}
    failed = [(_name(case), found[0]) for case, found in faults.items() if found]
    reasons = [skipped.get("message", "") for case in cases if (skipped := case.find("skipped")) is not None]
    counts = f"tests: {len(cases) - len(failed) - len(reasons)} passed, {len(failed)} failed, {len(reasons)} skipped"
    failures = [f"{name}: {_said(fault)}" for name, fault in failed[:EXPLAINED]]
    if failed[EXPLAINED:]:
        failures.append(f"failed, too: {', '.join(name for name, _ in failed[EXPLAINED:])}")
    return Report(counts, failures, [f"{_count(reasons.count(reason))}: {reason}" for reason in dict.fromkeys(reasons)])


def _name(case: ElementTree.Element) -> str:
    """The test; the file alone where it could not be read."""
    return "::".join(part for part in (case.get("classname"), case.get("name")) if part)


def _said(fault: ElementTree.Element) -> str:
    """The message of a failure; of a file that cannot be read, what Python says."""
    message = fault.get("message", "")
    if message == "collection failure":
        marked = [line.removeprefix("E   ") for line in (fault.text or "").splitlines() if line.startswith("E ")]
        message = complaint("\n".join(marked) or fault.text or message)
    return _short(message)


def _count(tests: int) -> str:
    return f"{tests} test{'' if tests == 1 else 's'}"


def _short(text: str) -> str:
    """On one line, without the project's folder."""
    return shorten(text.replace(f"{PROJECT}/", ""), LINE_CHARS, placeholder=" ...")


def left_out_in(said: str) -> list[str]:
    """What a benchmark says that it leaves out."""
    return [line.removeprefix("left out: ") for line in said.splitlines() if line.startswith("left out: ")]


def complaint(said: str) -> str:
    """Why a part failed, in its own words: the command's error, or a traceback's last place and its error, or the last line."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith(("Error: ", "Fatal Python error: "))]
    places = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
    if errors:
        told = lines[errors[0] :]
    elif places:
        # The lines of code below the place are indented more than the error.
        told = [lines[places[-1]], *dropwhile(lambda line: line.startswith("  "), lines[places[-1] + 1 :])]
    else:
        told = lines[-1:]
    return "\n".join(_short(line) for line in told[:LAST_LINES]) or "it wrote nothing"
