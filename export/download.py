"""Downloads that continue where they were cut off, with a progress bar, checked by their md5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splits.errors import InputError

# Seconds to wait for a connection, and for the next bytes of it.
TIMEOUT_S = (10, 60)
CHUNK_BYTES = 2**16


def download(url: str, path: Path, md5: str) -> Path:
    """Fetch ``url`` to ``path``; a download that was cut off lies beside it as ``<name>.part`` and is continued.

    Raises:
        InputError: no connection, a server that refuses, a file that is not the one published, or a folder that cannot be written; says
            how to fetch it by hand.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # it would tell the temporary file's name
    part = path.with_name(f"{path.name}.part")
    by_hand = f"or fetch {url} (md5 {md5}) by hand and give its path, {path.name}, instead of the name"

    def fetch(url: str, output_file: str, _pooch: object) -> None:
        _resume(url, part)
        part.replace(output_file)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=fetch))
    except requests.exceptions.HTTPError as error:
        said = error if error.response is None else f"{error.response.status_code} {error.response.reason}"
        raise InputError(f"{path.stem} cannot be downloaded: the server says {said}; try again later, {by_hand}") from error
    except requests.exceptions.RequestException as error:
        if part.exists() and part.stat().st_size:
            so_far = f"after {part.stat().st_size / 1e6:.1f} MB"
            raise InputError(f"{path.stem}: the download broke off {so_far}; the same command continues it, {by_hand}") from error
        raise InputError(f"{path.stem} cannot be downloaded: no connection to {url.split('/')[2]}; try again online, {by_hand}") from error
    except ValueError as error:  # pooch's word for a wrong hash; it has removed the file
        raise InputError(f"{path.stem}: what was downloaded is damaged (its md5 is wrong) and removed; try again, {by_hand}") from error
    except OSError as error:  # after requests' errors, which are OSErrors too
        raise InputError(f"{path.stem} cannot be kept in {path.parent} ({error.strerror}); make it writable, {by_hand}") from error


def _resume(url: str, part: Path) -> None:
    """Append what ``part`` lacks, or write it anew where the server cannot continue."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return  # all of it is here
            part.unlink()
            return _resume(url, part)
        answer.raise_for_status()
        continued = answer.status_code == requests.codes.partial_content and _range_start(answer.headers) == have
        rest = int(answer.headers.get("Content-Length", 0))
        start = have if continued else 0
        bar = tqdm(total=start + rest or None, initial=start, unit="B", unit_scale=True, desc=part.stem)
        with bar, part.open("ab" if continued else "wb") as file:
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        if rest and part.stat().st_size < start + rest:
            raise requests.exceptions.ConnectionError(f"{part} ends early")


def _range_start(headers: Any) -> int | None:
    unit, _, span = headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None
