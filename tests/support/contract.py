"""The contract of parsers: for any content, reading ends in a value or in one line that names the file, soon and in little memory."""

import os
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from parser_entry import Parser

from splits import errors
from splits.errors import InputError
from splits.faults import describe_fault

# Of this processor, so that the others on the machine do not count; and by the clock, as what waits for something takes none of it.
MOST_SECONDS, ALARM_SECONDS = 10.0, 30.0
MOST_BYTES = 2 * 2**30
MOST_LETTERS = errors.MOST_LETTERS + len(" ... ")
VALUE, REFUSED, DAMAGE = "value", "refused", "damage"


class Broken(Exception):
    """How a parser breaks the contract."""


class _TooLong(BaseException):
    """No handler of exceptions takes it."""


class Outcome(NamedTuple):
    """How reading ended: in a ``VALUE``, ``REFUSED`` with one line, or in ``DAMAGE`` that the parser counts; after so many seconds."""

    end: str
    said: str
    seconds: float


class Workplace:
    """A folder in which one parser reads one content after another; standard error is watched meanwhile."""

    def __init__(self, parser: Parser, folder: Path) -> None:
        self.parser, self.folder = parser, folder
        self.path = folder / parser.place
        self.path.parent.mkdir(parents=True, exist_ok=True)
        parser.around(folder)

    def put(self, data: bytes) -> None:
        """Lay a content in the parser's place, and remove what reading another has made."""
        for name in self.parser.clears:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(data)

    def read(self, told: StringIO) -> Outcome:
        """Read what lies there; ``Broken`` where the contract is."""
        start, before = time.process_time(), told.tell()
        end, said = VALUE, ""
        try:
            with _alarm():
                self.parser.read(self.path)
        except InputError as error:
            end, said = REFUSED, str(error)
        except self.parser.declared as error:
            end, said = DAMAGE, str(error)
        except _TooLong:
            raise Broken(f"hang: it takes more than {ALARM_SECONDS:g} s") from None
        except OSError as error:
            # The commands say these in one line: what the system says of a file by name.
            if error.errno is None or error.filename is None:
                raise Broken(f"traceback: {_tail(error)}") from error
            end, said = REFUSED, describe_fault(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise Broken(f"traceback: {_tail(error)}") from error
        seconds = time.process_time() - start
        if end == REFUSED:
            self._check_line(said)
        if told.tell() > before:
            told.seek(before)
            raise Broken(f"stderr: {told.read()[:300]!r}")
        if seconds > MOST_SECONDS:
            raise Broken(f"hang: {seconds:.1f} s")
        return Outcome(end, said, seconds)

    def _check_line(self, said: str) -> None:
        if not said.strip():
            raise Broken("line: it says nothing")
        if not said.isprintable():
            raise Broken(f"line: not printable, or not one line: {said[:300]!r}")
        if len(said) > MOST_LETTERS:
            raise Broken(f"line: {len(said)} letters: {said[:200]!r}")
        if not any(name in said for name in self.parser.named or (self.path.name,)):
            raise Broken(f"line: does not name the file: {said[:300]!r}")


def _tail(error: BaseException) -> str:
    """The exception with the places in our rooms that it came through, innermost last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
    ours = [f"{'/'.join(Path(f.filename).parts[-2:])}:{f.name}" for f in frames[-3:]]
    return f"{type(error).__name__}: {str(error)[:120]!r} at {' > '.join(ours)}"


@contextmanager
def _alarm() -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, ALARM_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def watched() -> Iterator[StringIO]:
    """What Python writes to standard error within the block, warnings too; what C libraries write there themselves goes nowhere."""
    kept, told = os.dup(2), StringIO()
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings(), redirect_stderr(told):
        warnings.showwarning = lambda message, category, *_: told.write(f"{category.__name__}: {message}\n")
        # What users see: all but what Python, or a filter of ours, hides from them; and every time, not once per place.
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        warnings.filterwarnings("ignore", module=r"PIL\..*")  # of picture_bounds; pytest undoes what modules set while it collects tests
        warnings.simplefilter("always", append=True)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield told
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Within the block this process gets ``MOST_BYTES`` more than it has, and then ``MemoryError``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
