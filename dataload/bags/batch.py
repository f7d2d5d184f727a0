"""Conversion of several recordings, each to its sequence; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataload.bags.convert import Report, convert
from dataload.bags.formats.reading import find_bags, name_of, require_rosbags
from dataload.bags.options import ConvertOptions
from dataload.system.files import require_writable_folder
from splits.errors import InputError

RESERVED = ("splits",)  # folders of the dataset that are no sequences


@dataclass(kw_only=True)
class Outcome:
    """The outcome: reports of the converted recordings, a line for each of the others."""

    reports: list[Report] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything was converted completely; recordings of an earlier run count, as that run reported what they lack."""
        return not self.failures and not self.damaged

    @property
    def damaged(self) -> list[Report]:
        """The recordings that could not be read whole now."""
        return [report for report in self.reports if report.damage and not report.already]


def sequences_of(paths: Sequence[Path], sequence: str = "") -> dict[str, Path]:
    """The recordings that paths name by the names of their sequences.

    Raises:
        InputError: as ``find_bags``; two recordings of one name; a name that cannot be one.
    """
    bags = find_bags(paths)
    if sequence and len(bags) > 1:
        raise InputError(f"--sequence names one recording, but {len(bags)} are given; leave it out: each takes the name of its file")
    if sequence and (sequence in (".", "..") or sequence.split() != [sequence] or "/" in sequence or "\\" in sequence):
        raise InputError(f"--sequence {sequence!r} must be a folder's name without blanks, which split lists part by")
    named: dict[str, Path] = {}
    for bag in bags:
        name = sequence or name_of(bag)
        if name in named and named[name].resolve() == bag.resolve():
            continue
        if name in named:
            raise InputError(
                f"{named[name]} and {bag} would both become sequence {name}; rename one, or convert it alone with --sequence NAME"
            )
        if name in RESERVED or name.startswith("."):
            raise InputError(f"{bag}: a sequence cannot be called {name!r}; convert it alone with --sequence NAME")
        named[name] = bag
    return named


def convert_all(
    named: dict[str, Path], out: Path, options: ConvertOptions, *, progress: bool = True, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Convert every recording to ``<out>/<name>``; ``say`` gets a line before each is read.

    Raises:
        InputError: rosbags is not installed, or ``out`` cannot be written to.
        OSError: a file cannot be written, as on a full disk, which would stop the others too.
    """
    require_rosbags()
    require_writable_folder(out, "name another --out")
    outcome = Outcome()
    for name, bag in named.items():
        say(f"{bag} -> {out / name}")
        try:
            outcome.reports.append(convert(bag, out / name, options, progress=progress))
        except InputError as error:
            outcome.failures.append(failure(bag, error))
    return outcome


def failure(bag: Path, error: InputError) -> str:
    """What went wrong with a recording, in a line that names it once."""
    message = str(error)
    return message if str(bag) in message else f"{bag}: {message}"
