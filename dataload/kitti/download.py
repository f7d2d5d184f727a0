"""The download of KITTI raw: several archives at a time, each resumed where it was cut off, checked, unpacked and removed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import NamedTuple

import requests

from dataload.kitti.archives import Archive, is_complete, peak_bytes
from dataload.kitti.unpack import Damaged, NoRoom, Stopped, unpack
from dataload.system.disk import free_bytes, gigabytes
from dataload.system.download import receive, refusal, remote_bytes
from dataload.system.progress import progress_bar
from dataload.system.side_by_side import side_by_side
from splits.errors import InputError

# Asking for sizes is mostly waiting; more requests at a time would be impolite.
ASKED_AT_A_TIME = 8
# Attempts in a row that bring nothing, with a pause after each that doubles; a cut connection that brought something does not count.
ATTEMPTS = 5
PAUSE_S = 1.0
# Statuses of a server that may answer otherwise after a while: these and all from 500.
NOT_NOW = (408, 429)
SERVER_ERROR = 500
# Left free of the disk.
SPARE_BYTES = 2**30
FULL = (errno.ENOSPC, errno.EDQUOT)
# Called with a line for each archive that is fetched, fails, or is there already.
Tell = Callable[[str], None]


class Plan(NamedTuple):
    """What is to be fetched.

    Attributes:
        there: unpacked already.
        sizes: by archive to fetch, bytes; None where the server does not say.
        faults: why some cannot be fetched at all.
    """

    data_path: Path
    there: list[Archive]
    sizes: dict[Archive, int | None]
    faults: dict[Archive, str]

    @property
    def total_bytes(self) -> int:
        """The bytes of all archives to fetch whose size is known."""
        return sum(size or 0 for size in self.sizes.values())

    def there_bytes(self, archive: Archive) -> int:
        """What an earlier run, or someone by hand, has fetched of an archive."""
        found = [path for path in (part_of(self.data_path, archive), self.data_path / archive.name) if path.is_file()]
        return found[0].stat().st_size if found else 0

    def peak_bytes(self, jobs: int) -> int:
        """The most that this will take of the disk."""
        known = {archive: size for archive, size in self.sizes.items() if size is not None}
        return peak_bytes(list(known.values()), [min(size, self.there_bytes(archive)) for archive, size in known.items()], jobs)


def part_of(data_path: Path, archive: Archive) -> Path:
    """Where an archive grows; it keeps that name until it is unpacked."""
    return data_path / f"{archive.name}.part"


def plan(data_path: Path, archives: Sequence[Archive]) -> Plan:
    """Look at what is there, and ask the server for the sizes of the rest.

    Raises:
        InputError: no connection to the server, or none that it answers.
    """
    there = [archive for archive in archives if is_complete(data_path, archive)]
    missing = [archive for archive in archives if archive not in there]
    answers: dict[Archive, int | None] = {}
    faults: dict[Archive, str] = {}
    unreachable: requests.RequestException | None = None
    with closing(side_by_side(_ask, missing, ASKED_AT_A_TIME, Event())) as asked:
        for answer in asked:
            if answer is None:
                continue
            archive, (size, error) = answer
            if isinstance(error, requests.HTTPError) and _is_final(error):
                faults[archive] = f"the server says {refusal(error)}; is --base_url right, or the archive gone?"
                continue
            unreachable = unreachable or error
            answers[archive] = size  # what failed for a moment is tried again when its turn comes
    if unreachable and not faults and not any(answers.values()):
        host = missing[0].url.split("/")[2]
        raise InputError(f"{host}: {_describe(unreachable)}; try again online or later, or give a mirror's --base_url") from unreachable
    return Plan(data_path, there, {archive: answers[archive] for archive in missing if archive in answers}, faults)


def _ask(archive: Archive) -> tuple[int | None, requests.RequestException | None]:
    try:
        return remote_bytes(archive.url), None
    except requests.RequestException as error:
        return None, error


def require_room(plan: Plan, jobs: int) -> None:
    """``InputError`` where the disk cannot hold what is to come."""
    peak, free = plan.peak_bytes(jobs), free_bytes(plan.data_path)
    if plan.sizes and peak + SPARE_BYTES > free:
        raise InputError(
            f"{len(plan.sizes)} archives take up to {gigabytes(peak)} of the disk and are to leave {gigabytes(SPARE_BYTES)} free, but "
            f"{plan.data_path} has {gigabytes(free)}; make room, choose fewer --drives, or give another --data_path"
        )


def fetch_all(plan: Plan, jobs: int, tell: Tell) -> dict[Archive, str]:
    """Fetch and unpack what a plan names, ``jobs`` at a time, with a progress bar; returns why those that failed did.

    Raises:
        InputError: the disk is full; nothing else would fit either.
    """
    stop = Event()
    arrived = {archive: plan.there_bytes(archive) for archive in plan.sizes}
    sizes = dict(plan.sizes)
    faults = dict(plan.faults)

    def work(archive: Archive) -> str:
        def progress(there_bytes: int, total_bytes: int | None) -> None:
            if stop.is_set():
                raise Stopped
            arrived[archive] = there_bytes
            sizes[archive] = total_bytes or sizes[archive]

        return _fetch(archive, plan, progress, stop)

    bar = progress_bar(plan.total_bytes or None, "KITTI", "B", done=sum(arrived.values()))
    with bar, closing(side_by_side(work, list(plan.sizes), jobs, stop)) as done:
        number = 0
        for outcome in done:
            if outcome is not None:
                archive, fault = outcome
                number += 1
                if fault:
                    faults[archive] = fault
                with bar.external_write_mode():
                    tell(f"{archive.name}: {fault or 'unpacked'}")
            bar.total = sum(size or 0 for size in sizes.values()) or None
            bar.set_postfix_str(f"{number} of {len(plan.sizes)} archives", refresh=False)
            bar.update(sum(arrived.values()) - bar.n)
            bar.refresh()
    return faults


def _fetch(archive: Archive, plan: Plan, progress: Callable[[int, int | None], None], stop: Event) -> str:
    """Fetch, unpack and remove one archive; returns why it failed, empty where it did not. Raises ``NoRoom``, ``Stopped``."""
    part = part_of(plan.data_path, archive)
    by_hand = plan.data_path / archive.name
    try:
        if by_hand.is_file() and not part.exists():  # fetched by other means: whole, or the beginning of it
            by_hand.rename(part)
        _receive(archive, part, plan.sizes[archive], progress, stop)
        unpack(archive, part, plan.data_path, lambda: progress(part.stat().st_size, None))
        part.unlink()
    except NoRoom as error:
        raise _no_room(plan.data_path, str(error)) from error
    except Damaged as error:
        part.unlink(missing_ok=True)
        return f"{error}, and is removed; repeat the command to fetch it again"
    except requests.HTTPError as error:
        return f"the server says {refusal(error)}; repeat the command to try again"
    except requests.RequestException as error:
        return f"ended early after {gigabytes(_bytes_of(part))} ({_describe(error)}); repeat the command to resume"
    except OSError as error:  # after requests' errors, which are OSErrors too
        if error.errno in FULL:
            raise _no_room(plan.data_path, f"the disk of {plan.data_path} is full ({error.strerror})") from error
        return f"cannot be kept as {error.filename or part} ({error.strerror or error}); make it writable and repeat the command"
    return ""


def _no_room(data_path: Path, what: str) -> NoRoom:
    return NoRoom(f"{what}; what has been fetched is kept in {data_path}: make room and repeat the command")


def _receive(archive: Archive, part: Path, size: int | None, progress: Callable[[int, int | None], None], stop: Event) -> None:
    """Fetch what ``part`` lacks of ``size`` bytes, with retries; ``Damaged`` where the server sends another number of them."""
    if _bytes_of(part) != size:
        total = _receive_with_retries(archive.url, part, progress, stop)
        size = size if total is None else total
    if size is not None and part.stat().st_size != size:
        raise Damaged(f"has {part.stat().st_size} bytes where the server announced {size}")


def _receive_with_retries(url: str, part: Path, progress: Callable[[int, int | None], None], stop: Event) -> int | None:
    """Fetch with further attempts where the connection is cut; returns the file's size as the server gave it."""
    failures = 0
    while True:
        before = _bytes_of(part)
        try:
            with closing(receive(url, part)) as steps:
                total = None
                for there, total in steps:
                    progress(there, total)
            return total
        except requests.RequestException as error:
            if isinstance(error, requests.HTTPError) and _is_final(error):
                raise
            failures = 0 if _bytes_of(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise
            if stop.wait(PAUSE_S * 2 ** max(0, failures - 1)):
                raise Stopped from error


def _bytes_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _is_final(error: requests.HTTPError) -> bool:
    """Whether asking again would bring the same answer."""
    return error.response is not None and error.response.status_code < SERVER_ERROR and error.response.status_code not in NOT_NOW


def _describe(error: requests.RequestException) -> str:
    """What is wrong with a connection in a few words; the libraries' own messages fill lines."""
    if isinstance(error, requests.HTTPError):
        return f"the server says {refusal(error)}"
    return "no answer in time" if isinstance(error, requests.Timeout) else "no connection, or one that was cut"
