"""The models that the command line can name: a folder of weights, a file in one, an ONNX file, a zip, or the name of a released model."""

from __future__ import annotations

import difflib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

from dataload.system.console import console
from dataload.system.files import cache_folder
from dataload.system.leftovers import temporary_of
from dataload.system.locks import lock_of, one_process
from export.choices import find_like_named, is_onnx, suggest
from splits.errors import InputError

BASE_URL = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2/"
# md5 of <name>.zip, as Monodepth2 publishes them.
RELEASED = {
    "mono_640x192": "a964b8356e08a02d009609d9e3928f7c",
    "stereo_640x192": "3dfb76bcff0786e4ec07ac00f658dd07",
    "mono+stereo_640x192": "c024d69012485ed05d7eaa9617a96b81",
    "mono_no_pt_640x192": "9c2f071e35027c895a4728358ffc913a",
    "stereo_no_pt_640x192": "41ec2de112905f85541ac33a854742d1",
    "mono+stereo_no_pt_640x192": "46c3b824f541d143a45c37df65fbab0a",
    "mono_1024x320": "0ab0766efdfeea89a0d9ea8ba90e1e63",
    "stereo_1024x320": "afc2f2126d70cf3fdf26b550898b501a",
    "mono+stereo_1024x320": "cdc5fc9b23513c07d5b19235d9ef08f7",
}
MAX_UNPACKED_BYTES = 2 * 2**30
# Where Monodepth2's own scripts put the released models, below the folder they run in.
PUBLISHED_FOLDER = Path("models")


def find_model(path: Path) -> Path:
    """The ONNX file, run folder or weights folder that ``path`` means, downloaded and unpacked where that is needed.

    Raises:
        InputError: nothing of that name, a zip that is damaged or unsafe, or a download that failed.
    """
    if path.is_file():
        if is_onnx(path):
            return path
        return _from_zip(path) if path.suffix.lower() == ".zip" else _folder_of(path)
    if path.exists():
        return path
    name = str(path)
    if name not in RELEASED:
        raise InputError(_describe_unknown(path))
    if (PUBLISHED_FOLDER / name / "encoder.pth").is_file():
        return PUBLISHED_FOLDER / name
    return released_model(name)


def _folder_of(path: Path) -> Path:
    from engine.weights import weights_folder  # not for ONNX files, which need no torch

    return weights_folder(path)


def _describe_unknown(path: Path) -> str:
    models = [p.name for p in Path().iterdir() if p.is_dir() or is_onnx(p)]
    if len(path.parts) == 1 and not is_onnx(path) and not difflib.get_close_matches(path.name, models, n=1):
        return f"model {path}: there is no such folder or file, nor a released model of that name; {suggest(path.name, list(RELEASED))}"
    near = find_like_named(path)
    hint = f"did you mean {near}?" if near else "name a run folder, a weights folder, an ONNX file, or a released model (md-predict --help)"
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
    from export.prediction.download import download

    url = BASE_URL + quote(f"{name}.zip")
    console.info("Downloading %s into %s; Monodepth2's weights are for non-commercial use", name, folder)
    archive = download(url, folder.with_name(f"{name}.zip"), RELEASED[name])
    unpack(archive, folder)
    archive.unlink()


@contextmanager
def _one_maker(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch and unpack a model; the others wait for it."""
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # what cannot be written is told of by the work; some disks know no locks
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = one_process(lock_of(folder), lambda: console.info("Model  another process is fetching %s; waiting", folder.name))
            stack.enter_context(lock)
        yield


def _from_zip(archive: Path) -> Path:
    """The weights folder of a zip that was fetched by hand, unpacked into the cache."""
    import pooch

    md5 = pooch.file_hash(str(archive), alg="md5")
    expected = RELEASED.get(archive.stem, md5)
    if md5 != expected:
        raise InputError(f"{archive} is not {archive.stem} as published (md5 {md5} instead of {expected}); download it again, or rename it")
    name = next((name for name, known in RELEASED.items() if known == md5), f"{archive.stem}-{md5[:8]}")
    folder = models_folder() / name
    if not folder.is_dir():
        with _one_maker(folder):
            unpack(archive, folder)
    return _weights_in(folder)


def _weights_in(folder: Path) -> Path:
    """The one folder of weights inside what was unpacked: some zips hold the files, some a folder of them."""
    found = sorted(path.parent for path in folder.rglob("encoder.pth"))
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files encoder.pth instead of one; remove that folder, or name the one that is meant")
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip to ``folder``, under another name until it is whole.

    Raises:
        InputError: damaged, larger than ``MAX_UNPACKED_BYTES``, or with an entry that is no plain file inside the folder; or the folder
            cannot be written.
    """
    temporary = temporary_of(folder)
    try:
        temporary.mkdir(parents=True)
        with zipfile.ZipFile(archive) as opened:
            _check_entries(archive, opened.infolist())
            opened.extractall(temporary)
        if not folder.is_dir():  # another process may have been faster
            temporary.replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # as zipfile reports damage, encryption
        raise InputError(f"{archive} cannot be unpacked ({error}); download it again") from error
    except OSError as error:  # no room, no right, or damage that sends zipfile to a place before the file's start
        by_hand = "unpack it by hand and give the folder with encoder.pth instead"
        raise InputError(f"{archive} cannot be unpacked into {folder.parent} ({error.strerror}); {by_hand}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
        if absolute or ".." in re.split(r"[/\\]", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive} is not unpacked: its entry {name!r} would lie outside the folder or is no plain file")
    size_bytes = sum(entry.file_size for entry in entries)
    if size_bytes > MAX_UNPACKED_BYTES:
        raise InputError(f"{archive} is not unpacked: {size_bytes / 2**30:.1f} GiB is no depth model's size")
