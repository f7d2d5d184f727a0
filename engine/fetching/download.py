"""Downloads of zips that resume where they were cut off, with a progress bar, checked by their md5 where it is known."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from zipfile import is_zipfile

from dataload.system.download import receive, refusal
from dataload.system.progress import progress_bar
from splits.errors import InputError


def download(url: str, path: Path, md5: str | None) -> Path:
    """Fetch ``url`` to ``path``; a download that was cut off is beside it as ``<name>.part`` and is resumed.

    Raises:
        InputError: no connection, a server that refuses, a file that is not the one published, or a folder that cannot be written; says
            how to fetch it by hand.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # it would tell the temporary file's name
    part = path.with_name(f"{path.name}.part")
    known = "" if md5 is None else f" (md5 {md5})"
    by_hand = f"or fetch {url}{known} by hand and give its path, {path.name}, instead of the name"

    def fetch(url: str, output_file: str, _pooch: object) -> None:
        _resume(url, part)
        part.replace(output_file)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        archive = Path(pooch.retrieve(url, md5 and f"md5:{md5}", fname=path.name, path=path.parent, downloader=fetch))
    except requests.exceptions.HTTPError as error:
        raise InputError(f"{path.stem} cannot be downloaded: the server says {refusal(error)}; try again later, {by_hand}") from error
    except requests.exceptions.RequestException as error:
        if part.exists() and part.stat().st_size:
            so_far = f"after {part.stat().st_size / 1e6:.1f} MB"
            raise InputError(f"{path.stem}: the download ended early {so_far}; repeat the command to resume, {by_hand}") from error
        # Without its causes: they are pages of other packages' lines, and in Python hide this one.
        raise InputError(f"{path.stem} cannot be downloaded: no connection to {url.split('/')[2]}; try again online, {by_hand}") from None
    except ValueError as error:  # pooch's word for a wrong hash; it has removed the file
        raise InputError(f"{path.stem}: what was downloaded is damaged (its md5 is wrong) and removed; try again, {by_hand}") from error
    except OSError as error:  # after requests' errors, which are OSErrors too
        raise InputError(f"{path.stem} cannot be kept in {path.parent} ({error.strerror}); make it writable, {by_hand}") from error
    if md5 is None and not is_zipfile(archive):  # a page of a proxy, say
        archive.unlink()
        raise InputError(f"{path.stem}: what was downloaded is no zip, and removed; try again, {by_hand}")
    return archive


def _resume(url: str, part: Path) -> None:
    """Append what ``part`` lacks, with a progress bar."""
    with closing(receive(url, part)) as progress:
        start = next(progress)
        with progress_bar(start.total_bytes, part.stem, "B", done=start.there_bytes, in_logs=True) as bar:
            for step in progress:
                bar.update(step.there_bytes - bar.n)
