"""Frame references, read from split lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from splits.errors import InputError

SIDES = {"l": "l", "r": "r", "2": "l", "3": "r"}
# Stands for the place in its sequence of a frame that is not on disk.
NOT_ON_DISK = -1
# Control letters, and halves of letters, which stand for bytes that are not UTF-8.
ODD_LETTERS = ("Cc", "Cs")
# As much as disks take of a name, whole numbers of 64 bits, and messages.
MOST_PATH_LETTERS, MOST_NAME_BYTES, MOST_DIGITS, MOST_SHOWN = 2048, 255, 18, 80
LINE_FORM = "<folder> <frame number> <side l or r>"


class FrameRef(NamedTuple):
    """One image of a dataset: its drive's folder as the split line has it, its frame number, its camera.

    Attributes:
        frame_index: the number in its file's name, or its place in its sequence; the frame at offset k is that of ``frame_index + k``.
        side: ``"l"`` or ``"r"``; None where the list names no camera (the depth benchmark's anonymous test images).
        name: what the line calls the frame, where that is not its number.
        intrinsics: fx, fy, cx, cy in pixels of the image as it lies on disk, where the line brings them.
    """

    folder: str
    frame_index: int
    side: str | None
    name: str | None = None
    intrinsics: tuple[float, float, float, float] | None = None

    @property
    def line(self) -> str:
        """The reference as a split line."""
        return " ".join([self.folder, self.name or str(self.frame_index), *([self.side] if self.side else [])])


def fields_of(line: str) -> list[str]:
    """The fields of a split line; a folder's backslashes are slashes and its side a small letter, as other systems write them.

    Raises:
        ValueError: letters that no name should have, or a name longer than a disk takes; says which.
    """
    odd = next((letter for letter in line if unicodedata.category(letter) in ODD_LETTERS and letter not in "\t\r\n\f\v"), None)
    if odd is not None:
        raise ValueError(f"letter {odd!a} is in no name; write it as %{ord(odd):02X} where it is")
    first, *rest = line.split() or [""]
    if any(len(field) > MOST_PATH_LETTERS for field in (first, *rest)):
        raise ValueError(f"a name of more than {MOST_PATH_LETTERS} letters is on no disk")
    if any(len(unquote_to_bytes(part)) > MOST_NAME_BYTES for field in (first, *rest) for part in field.split("/")):
        raise ValueError(f"a name of more than {MOST_NAME_BYTES} bytes is on no disk")
    tokens = [first.replace("\\", "/"), *rest] if first else []
    if len(tokens) == 3 and tokens[2].lower() in SIDES:
        tokens[2] = tokens[2].lower()
    return tokens


def parse_split(lines: Iterable[str], *, source: str) -> tuple[FrameRef, ...]:
    """Read split lines ``<folder> <frame> <side>`` (sides l, r, 2, 3) or ``<folder> <frame>``; blank lines are skipped.

    Raises:
        InputError: a malformed line; names ``source``, the line's number, the line and the remedy.
    """
    refs = []
    for number, line in enumerate(lines, start=1):
        with named_line(source, number, line, LINE_FORM):
            tokens = fields_of(line)
            if not tokens:
                continue
            fault = _fault(tokens)
            if fault:
                raise ValueError(fault)
        refs.append(FrameRef(tokens[0], int(tokens[1]), SIDES[tokens[2]] if len(tokens) == 3 else None))
    return tuple(refs)


@contextmanager
def named_line(source: str, number: int, line: str, form: str) -> Iterator[None]:
    """Turn a ``ValueError`` about a line of a list into an ``InputError`` that names the list, the line and what it should read."""
    try:
        yield
    except InputError:  # of the folder, not of the line
        raise
    except ValueError as error:
        raise InputError(f"{source}, line {number}: {shorten(line.strip())!r}: {error}; a line reads {form!r}") from error


def shorten(text: str) -> str:
    """The start of a text of a file, as much as a message shows."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _fault(tokens: list[str]) -> str:
    """What is wrong with a line; empty if nothing is."""
    if len(tokens) not in (2, 3):
        return f"{len(tokens)} field{'s' if len(tokens) > 1 else ''} where 3 are expected"
    if not (tokens[1].isascii() and tokens[1].isdigit()):
        return f"frame number {shorten(tokens[1])!r} is not a whole number"
    if len(tokens[1]) > MOST_DIGITS:
        return f"frame number {shorten(tokens[1])} has {len(tokens[1])} digits, at most {MOST_DIGITS} are read"
    if len(tokens) == 3 and tokens[2] not in SIDES:
        return f"side {shorten(tokens[2])!r} is none of l, r, 2, 3"
    return ""
