"""Fuzzing of one parser: mutated inputs one after another, in this process or in one that may crash."""

import faulthandler
import itertools
import logging
import multiprocessing
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, NamedTuple

from contract import ALARM_SECONDS, Broken, Workplace, limited_memory, peak_bytes, watched
from mutator import mutate
from parser_entry import Parser

# An input that takes this much more than the most that came before is a finding, and no machine fills that faster.
MUCH_BYTES = 512 * 2**20
FILLING_SECONDS = 0.02
# A library that does not come back to Python hears no alarm; its process is ended.
STALLED_SECONDS = 3 * ALARM_SECONDS
# Files of a moment; elsewhere the usual place.
MEMORY_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None


@dataclass
class Tally:
    """What came of the inputs of one parser: how many ended how, and by mechanism the findings, each with how often and its first input."""

    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.ends.total()

    def find(self, how: str, data: bytes, folder: Path | None) -> None:
        """Count a finding, and keep the input of the first of its mechanism."""
        self.ends["broken"] += 1
        found = self.findings.setdefault(mechanism(how), {"count": 0, "how": how, "input": ""})
        found["count"] += 1
        if found["count"] == 1 and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / sha256(data).hexdigest()[:12]
            path.write_bytes(data)
            found["input"] = str(path)

    def add(self, other: "Tally") -> None:
        """Add what another process has found."""
        self.ends.update(other.ends)
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        for name, found in other.findings.items():
            count = self.findings[name]["count"] if name in self.findings else 0
            self.findings[name] = {**found, "count": count + found["count"]}


def mechanism(how: str) -> str:
    """What a finding is an instance of: without what the input itself brought into the text."""
    kind = how.partition(":")[0]
    if kind == "traceback":
        return re.sub(r"(: )['\"].*['\"]( at )", r"\2", how, flags=re.DOTALL)
    if kind == "line":
        return re.sub(r"\d+", "N", how)[:24]
    return re.sub(r"\d+", "N", how)[:60]


def input_of(parser: Parser, seeds: list[bytes], seed: int, number: int) -> bytes:
    """The mutated input of that number; the same ones for the same seed."""
    return mutate(parser.form, seeds, Random(f"{parser.name} {seed} {number}"))


def silence_console() -> None:
    """What our own logger says is no library's warning."""
    logging.getLogger("md").addHandler(logging.NullHandler())


def fuzz_here(parser: Parser, numbers: Iterable[int], *, seed: int, kept: Path | None, at: Callable[[int], None] = lambda _: None) -> Tally:
    """Read inputs in this process; ``at`` is told the number of each before it is read."""
    silence_console()
    tally, seeds = Tally(), list(parser.seeds())
    with TemporaryDirectory(prefix="md-fuzz-", dir=MEMORY_DISK) as folder, watched() as errors:
        workplace = Workplace(parser, Path(folder))
        workplace.put(seeds[0])
        workplace.read(errors)  # imports take memory too
        most = peak_bytes()
        with limited_memory():
            for number in numbers:
                data = input_of(parser, seeds, seed, number)
                at(number)
                try:
                    workplace.put(data)
                    outcome = workplace.read(errors)
                    if outcome.seconds > FILLING_SECONDS:  # asking the system takes longer than most inputs
                        before, most = most, peak_bytes()
                        if most - before > MUCH_BYTES:
                            raise Broken(f"memory: {(most - before) / 2**20:.0f} MiB")
                except Broken as broken:
                    tally.find(str(broken), data, kept)
                    continue
                tally.ends[outcome.end] += 1
                tally.slowest_s = max(tally.slowest_s, outcome.seconds)
    return tally


def fuzz_apart(parser: Parser, *, seed: int, inputs: int, seconds: float, kept: Path) -> Tally:
    """Read inputs in processes that may crash or hang in a library, which is a finding, too.

    Ends with ``inputs`` inputs or after ``seconds``, whichever is first.
    """
    tally, start, end = Tally(), 0, time.monotonic() + seconds
    while start < inputs and time.monotonic() < end:
        done = _in_process(parser, seed, range(start, inputs), end, kept)
        if done.tally is not None:
            tally.add(done.tally)
            break
        # What it had found before is lost; the same inputs up to there are read again.
        before = _in_process(parser, seed, range(start, done.reached), float("inf"), kept).tally
        if before is not None:
            tally.add(before)
        tally.find(done.fault, input_of(parser, list(parser.seeds()), seed, done.reached), kept)
        start = done.reached + 1
    return tally


class _Done(NamedTuple):
    """What a process made: its tally, or the input at which it ended and how."""

    tally: Tally | None
    reached: int
    fault: str


def _in_process(parser: Parser, seed: int, numbers: range, end: float, kept: Path) -> _Done:
    # A fork has imported everything; here nothing but this thread runs.
    processes = multiprocessing.get_context("fork")
    reached = processes.Value("q", numbers.start, lock=False)
    receive, send = processes.Pipe(duplex=False)
    with TemporaryFile("w+") as told:
        process = processes.Process(target=_fuzz_in_child, args=(parser, seed, numbers, end, kept, reached, send, told))
        process.start()
        send.close()
        try:
            tally = receive.recv()
        except EOFError:
            tally = None
        process.join()
        told.seek(0)
        words = [line.strip() for line in told if line.strip()]
    if isinstance(tally, str):
        raise RuntimeError(tally)
    places = [word for word in words if word.startswith("File")][:3]
    return _Done(tally, reached.value, f"crash: status {process.exitcode}: {' '.join([*words[:1], *places])}")


def _fuzz_in_child(parser: Parser, seed: int, numbers: range, end: float, kept: Path, reached: Any, send: Any, told: IO[str]) -> None:
    # Standard error goes nowhere while inputs are read.
    faulthandler.enable(told)

    def at(number: int) -> None:
        reached.value = number
        faulthandler.dump_traceback_later(STALLED_SECONDS, exit=True, file=told)

    in_time = itertools.takewhile(lambda _: time.monotonic() < end, numbers)
    try:
        found = fuzz_here(parser, in_time, seed=seed, kept=kept, at=at)
    except Exception:  # ours: a seed that cannot be read
        send.send(traceback.format_exc())
        return
    faulthandler.cancel_dump_traceback_later()
    send.send(found)
