"""Downloads that continue where they were cut off."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import requests

# Seconds to wait for a connection, and for the next bytes of it.
TIMEOUT_S = (10, 60)
CHUNK_BYTES = 2**16
# Ranges and sizes are those of the file itself, not of a compressed copy.
PLAIN = {"Accept-Encoding": "identity"}


class Progress(NamedTuple):
    """How far a download is; ``total_bytes`` is None where the server does not say."""

    there_bytes: int
    total_bytes: int | None


def receive(url: str, part: Path) -> Generator[Progress, None, None]:
    """Append what ``part`` lacks, or write it again where the server cannot continue; yields before the first bytes and after each chunk.

    Raises:
        requests.RequestException: no connection, a server that refuses, an answer that ends early; what has come is kept.
        OSError: ``part`` cannot be written.
    """
    import requests

    have = part.stat().st_size if part.exists() else 0
    with requests.get(url, headers=PLAIN | ({"Range": f"bytes={have}-"} if have else {}), stream=True, timeout=TIMEOUT_S) as answer:
        beyond = answer.status_code == requests.codes.requested_range_not_satisfiable
        if have and beyond and answer.headers.get("Content-Range") == f"bytes */{have}":
            yield Progress(have, have)  # all of it is here
            return
        partial = answer.status_code == requests.codes.partial_content
        continued = partial and _range_start(answer.headers) == have
        if have and (beyond or (partial and not continued)):
            part.unlink()
            yield from receive(url, part)
            return
        answer.raise_for_status()
        there = have if continued else 0
        rest = _length(answer.headers)
        total = there + rest if rest else None
        with part.open("ab" if continued else "wb") as file:
            yield Progress(there, total)
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
                there += len(chunk)
                yield Progress(there, total)
    if total and there < total:  # which urllib3 notices itself from version 2 on
        raise requests.exceptions.ConnectionError(f"{part} ends early")


def remote_bytes(url: str) -> int | None:
    """The size of a file, asked without fetching it; None where the server does not say.

    Raises:
        requests.RequestException: no connection, or a server that refuses.
    """
    import requests

    with requests.head(url, headers=PLAIN, allow_redirects=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code not in (requests.codes.not_allowed, requests.codes.not_implemented):
            answer.raise_for_status()
            if length := _length(answer.headers):
                return length
    with requests.get(url, headers=PLAIN, stream=True, timeout=TIMEOUT_S) as answer:  # left before its body comes
        answer.raise_for_status()
        return _length(answer.headers)


def refusal(error: requests.exceptions.HTTPError) -> str:
    """``404 Not Found``."""
    return str(error) if error.response is None else f"{error.response.status_code} {error.response.reason}"


def _length(headers: Any) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _range_start(headers: Any) -> int | None:
    unit, _, span = headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None
