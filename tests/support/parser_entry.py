"""What a parser of content is: how to call it as the commands do, on which file, and small valid files to begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def nothing(folder: Path) -> None:
    """A parser that needs no files beside its own."""


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One reader of content that others may have made.

    Attributes:
        name: of letters and ``_``, for ``make fuzz PARSER=name``.
        modules: the modules of the rooms that open or decode the content.
        place: the file that is read, below a folder of the parser's own.
        read: reads the file as a command does, to the end.
        seeds: small valid files, made by formula or by our own writers.
        form: how it is mutated, of ``mutator.FORMS``.
        around: makes what lies beside the file, once.
        clears: folders that reading makes, removed before each read.
        declared: what stands for damage that is counted, beside ``InputError``: recordings' and stores'.
        named: what a message may call the content, where that is not its file's name alone.
        cheap: scanners and texts, of which a hundred thousand are read in minutes.
        is_file: the parser opens the file itself; others are given its content.
    """

    name: str
    modules: Sequence[str]
    place: str
    read: Callable[[Path], object]
    seeds: Callable[[], Sequence[bytes]]
    form: str = "bytes"
    around: Callable[[Path], None] = nothing
    clears: Sequence[str] = ()
    declared: tuple[type[Exception], ...] = ()
    named: Sequence[str] = ()
    cheap: bool = True
    is_file: bool = True
