"""``hf:USER/REPO``: a model of a hub in the layout of ``md-export --target hub``, fetched and cached by the package huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataload.system.console import console
from dataload.system.installing import pip_install
from engine.sums import SUMS_FILE
from splits.errors import InputError
from splits.reading import read_json

PREFIX = "hf:"
FORM = "hf:USER/REPO, or hf:USER/REPO@REVISION for a branch, tag or commit"
# What a hub allows; huggingface_hub itself checks it from 1.33 on.
_NAME = re.compile(r"hf:(?P<repo>[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)(?:@(?P<revision>\S+))?")
CONFIG_FILE = "config.json"
SAFETENSORS_FILE = "model.safetensors"
# What is fetched before the weights; the ONNX file is not.
SMALL_FILES = (CONFIG_FILE, "opt.json", SUMS_FILE)


def is_hub_name(name: str) -> bool:
    """Whether a name means a model of a hub; a drive's letter is no such name."""
    return name.startswith(PREFIX)


def hub_model(name: str) -> Path:
    """The folder of a hub's model in the cache of huggingface_hub, fetched if it is not there.

    Without a connection, what was fetched before is used.

    Raises:
        InputError: the package is missing, or the hub, repository or revision cannot be reached, or it holds no model of this layout.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise _no_name(name)
    if find_spec("huggingface_hub") is None:
        raise InputError(f"model {name} needs the package huggingface_hub: {pip_install('hub')}")
    repo, revision = match["repo"], match["revision"]
    with _hub_errors(name, repo, revision):
        # The config first: a repository of another kind may hold gigabytes.
        folder = _small_files(repo, revision)
        if not _is_our_layout(folder / CONFIG_FILE):
            raise InputError(f"{name} is not in the layout of md-export --target hub: its {CONFIG_FILE} is missing or another program's")
        if not (folder / SAFETENSORS_FILE).is_file():
            console.info("Fetching %s, commit %s", name, folder.name[:12])
            _fetch_weights(name, repo, folder.name)
    return folder


def _no_name(name: str) -> InputError:
    return InputError(f"model {name} is no name of a hub's model; write {FORM}")


def _small_files(repo: str, revision: str | None) -> Path:
    """The snapshot's folder, named like its commit; without progress bars."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Quiet(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})

    return Path(snapshot_download(repo, revision=revision, allow_patterns=list(SMALL_FILES), tqdm_class=Quiet))


def _fetch_weights(name: str, repo: str, commit: str) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        hf_hub_download(repo, SAFETENSORS_FILE, revision=commit)
    except RemoteEntryNotFoundError as error:
        raise InputError(f"{name} holds no {SAFETENSORS_FILE}; its owner can upload it as md-export --target hub writes it") from error


def _is_our_layout(config_file: Path) -> bool:
    try:
        config = read_json(config_file, "a model's facts", "")
    except InputError:
        return False
    if not isinstance(config, dict):
        return False
    architecture, weights = config.get("architecture"), config.get("weights")
    return isinstance(architecture, dict) and isinstance(weights, dict) and "encoder" in architecture and "file" in weights


@contextmanager
def _hub_errors(name: str, repo: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line each."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    try:
        yield
    except errors.HFValidationError as error:
        raise _no_name(name) from error
    except errors.GatedRepoError as error:
        raise InputError(f"{name} is gated: ask for access on {page}, then log in with: hf auth login") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: {constants.ENDPOINT} has no such repository, or it is private; check the name, or: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{name}: the repository has no revision {revision}; leave it out, or choose one on {page}/commits/main"
        ) from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, errors.XetDownloadError) as error:
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        if isinstance(cause, errors.HfHubHTTPError):
            why = f"{constants.ENDPOINT} answers {cause.response.status_code}; try again later"
        elif isinstance(cause, errors.OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set, and it was not fetched before; unset it"
        else:
            why = f"no connection to {constants.ENDPOINT}, and it was not fetched before; try again online"
        raise InputError(f"{name} cannot be fetched: {why}") from error
    except OSError as error:
        place = f"{constants.HF_HUB_CACHE} ({error.strerror or error})"
        raise InputError(f"{name} cannot be kept in {place}; make it writable, or set HF_HOME to another folder") from error
