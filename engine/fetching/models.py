"""Weights that are named, not given as a folder: a zip, a released model's name, a hub's model. They are fetched, unpacked and cached."""

from __future__ import annotations

import difflib
import re
import stat
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

from dataload.system.console import console
from dataload.system.files import cache_folder, find_like_named, whole_folder
from dataload.system.locks import hold, settle
from engine.fetching.hub import hub_model, is_hub_name
from engine.released import BASE_URL, RELEASED, RELEASED_NAMES
from splits.errors import InputError
from splits.faults import said_of
from splits.limits import UNPACKED_BYTES
from splits.reading import open_zip

MOST_ENTRIES, MOST_RATIO = 10_000, 20
# Where Monodepth2's own scripts put the released models, below the folder they run in.
PUBLISHED_FOLDER = Path("models")
# Endings of files that a mistyped name may mean.
MODEL_ENDINGS = (".onnx", ".zip")


def fetched(path: Path) -> Path:
    """The folder or file that ``path`` means: itself where it is there, else what its name stands for, downloaded and unpacked if needed.

    Raises:
        InputError: nothing of that name, a zip that is damaged or unsafe, or a download that failed.
    """
    settle(path.parent)
    if path.exists():
        return _from_zip(path) if path.is_file() and path.suffix.lower() == ".zip" else path
    name = path.as_posix()
    if is_hub_name(name):
        return hub_model(name)
    if name not in RELEASED:
        raise InputError(_describe_unknown(path))
    if (PUBLISHED_FOLDER / name / "encoder.pth").is_file():
        return PUBLISHED_FOLDER / name
    return released_model(name)


def _describe_unknown(path: Path) -> str:
    near = find_like_named(path)
    if len(path.parts) == 1 and (near is None or not (near.is_dir() or near.suffix.lower() in MODEL_ENDINGS)):
        released = difflib.get_close_matches(path.name, RELEASED, n=1)
        hint = f"did you mean {released[0]}?" if released else f"the released ones are {RELEASED_NAMES}"
        return f"model {path}: there is no such folder or file, nor a released model of that name; {hint}"
    hint = f"did you mean {near}?" if near else "name a run folder, a weights folder, a released model, or hf:USER/REPO"
    return f"model {path} does not exist; {hint}"


def models_folder() -> Path:
    """Where downloaded models are kept."""
    return cache_folder() / "models"


def released_model(name: str) -> Path:
    """The weights folder of a released model, from the cache or downloaded into it.

    Raises:
        InputError: it cannot be downloaded, or is not what was published.
    """
    folder = models_folder() / name
    if not folder.is_dir():
        with _one_maker(folder):
            if not folder.is_dir():
                _fetch(name, folder)
    return _weights_in(folder)


def _fetch(name: str, folder: Path) -> None:
    from engine.fetching.download import download

    url, md5 = BASE_URL + quote(f"{name}.zip"), RELEASED[name].md5
    console.info("Downloading %s into %s; Monodepth2's weights are for non-commercial use", name, folder)
    archive = download(url, folder.with_name(f"{name}.zip"), md5)
    if md5 is None:
        _warn_unchecked(archive)
    try:
        unpack(archive, folder)
    finally:  # what cannot be unpacked is fetched again
        archive.unlink(missing_ok=True)


def _warn_unchecked(archive: Path) -> None:
    console.warning("%s could not be checked: its authors publish no hash of it", archive.name)


def _one_maker(folder: Path) -> AbstractContextManager[None]:
    """Let one process at a time fetch and unpack a model; the others wait for it."""
    return hold(folder, "", folder=True, waiting=lambda: console.info("Model  another process is fetching %s; waiting", folder.name))


def _from_zip(archive: Path) -> Path:
    """The weights folder of a zip that was fetched by hand, unpacked into the cache."""
    import pooch

    md5 = pooch.file_hash(str(archive), alg="md5")
    released = RELEASED.get(archive.stem)
    expected = released.md5 if released else None
    if expected not in (None, md5):
        raise InputError(f"{archive} is not {archive.stem} as published (md5 {md5} instead of {expected}); download it again, or rename it")
    name = next((name for name, model in RELEASED.items() if model.md5 == md5), f"{archive.stem}-{md5[:8]}")
    folder = models_folder() / name
    if not folder.is_dir():
        if released and expected is None:
            _warn_unchecked(archive)
        with _one_maker(folder):
            if not folder.is_dir():
                unpack(archive, folder)
    return _weights_in(folder)


def _weights_in(folder: Path) -> Path:
    """The one folder of weights inside what was unpacked: some zips hold the files, some a folder of them."""
    found = sorted(path.parent for path in folder.rglob("encoder.pth"))
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files encoder.pth instead of one; remove that folder, or name the one that is meant")
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip to ``folder``, which appears when it is whole.

    Raises:
        InputError: damaged, larger than ``UNPACKED_BYTES``, or with an entry that is no plain file inside the folder; or the folder
            cannot be written.
    """
    try:
        with whole_folder(folder, is_new=True) as temporary, archive.open("rb") as file, open_zip(file) as opened:
            _check_entries(archive, opened.infolist())
            opened.extractall(temporary)
    except OSError as error:  # no room, no right, or damage that sends zipfile to a place before the file's start
        by_hand = "unpack it by hand and give the folder with encoder.pth instead"
        raise InputError(f"{archive} cannot be unpacked into {folder.parent} ({error.strerror or said_of(error)}); {by_hand}") from error
    except InputError:
        raise
    except Exception as error:  # zipfile reports damage and encryption by a dozen kinds of errors
        raise InputError(f"{archive} cannot be unpacked ({said_of(error)}); download it again") from error


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_ENTRIES:
        raise InputError(f"{archive} is not unpacked: it has {len(entries):,} entries, a model has ten")
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
        if absolute or ".." in re.split(r"[/\\]", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive} is not unpacked: its entry {name!r} would lie outside the folder or is no plain file")
    # Weights are hardly compressed: an archive of little that becomes much is made to fill a disk.
    size_bytes, packed_bytes = sum(entry.file_size for entry in entries), archive.stat().st_size
    if size_bytes > max(MOST_RATIO * packed_bytes, 2**20):
        raise InputError(f"{archive} is not unpacked: its {packed_bytes:,} bytes would become {size_bytes:,}, as no model's do")
    UNPACKED_BYTES.require(size_bytes, archive)
    found = sum(PurePosixPath(entry.filename).name == "encoder.pth" for entry in entries)
    if found != 1:
        raise InputError(f"{archive} holds {found} files encoder.pth instead of one; give a zip of one model's folder")
