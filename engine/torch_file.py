"""Objects of ``torch.save`` and of safetensors, read without running code; any other file is refused with the real reason."""

from __future__ import annotations

import argparse
import errno
import json
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataload.system.zips import open_zip
from engine.pickle_bounds import require_bounded
from engine.sums import require_undamaged
from splits.errors import InputError
from splits.faults import said_of
from splits.limits import UNPACKED_BYTES
from splits.reading import open_file

HEAD_BYTES = 512
# A name and a shape for each tensor; ours has 20 KB.
MAX_SAFETENSORS_HEADER_BYTES = 2**23
# Of the format before torch 1.6: its mark, its version, the machine, the content, the names of its tensors.
LEGACY_PICKLES = 5
AGAIN = "copy or download it again"
# The first bytes of other files that are named like weights: what such a file is, and what to do.
OTHER_FILES = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself", "fetch the file with git lfs pull"),
    (b"\x1f\x8b", "it is compressed by gzip", "unpack it"),
    (b"\xfd7zXZ", "it is compressed by xz", "unpack it"),
    (b"\x89HDF", "it is an HDF5 file, as Keras writes", "give weights of torch"),
    (b"\x08", "it looks like an ONNX file", "give the weights that it was made from; md-predict --model takes a file named .onnx"),
)
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head")


class _Dtype:
    """numpy.dtype of a pickle: plain numbers alone, none of numpy's own unpickling."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">", b"<": "<", b">": ">"}.get(state[1], "=")

    def numpy(self) -> np.dtype[Any]:
        if not re.fullmatch(r"[biuf][1248]|\?", self.code):
            raise ValueError(f"numpy values of type {self.code}")
        return np.dtype(self.order + self.code)


class _Array:
    """numpy.ndarray of a pickle, a tensor once it is whole."""

    value: torch.Tensor

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        array = np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if fortran else "C")
        # torch knows no other byte order than the machine's.
        self.value = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


class _Fields:
    """A Python object that holds values and does nothing: only its fields are kept."""

    def __init__(self, *_: Any) -> None:
        self.fields: Mapping[str, Any] = {}

    def __new__(cls, *_: Any) -> _Fields:
        made = super().__new__(cls)
        made.fields = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.numpy(), count=1)[0].item()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


# Replacements of classes and functions that a file names; beside these, only torch's own list is ever called.
STAND_INS: list[Any] = [
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_Dtype, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    (_Fields, f"{argparse.Namespace.__module__}.{argparse.Namespace.__qualname__}"),
    *((_Fields, f"{module}.{name}") for module in (pathlib.__name__, "pathlib._local") for name in ("PosixPath", "WindowsPath")),
]


def read_object(path: Path) -> Any:
    """What ``torch.save`` or safetensors wrote, tensors on the CPU: numbers of numpy are Python's, its arrays tensors.

    Raises:
        InputError: the file is none of these, is cut off or damaged, has changed since its checksum was written beside it, or holds Python
            objects, which are never unpacked.
        OSError: it cannot be opened.
    """
    with open_file(path, "a file of weights", "name another") as file:
        head = file.read(HEAD_BYTES)
    require_undamaged(path)
    if _is_safetensors(head):
        return _read_safetensors(path)
    _require_torch_file(path, head)
    try:
        _require_bounded(path, head)
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read nevertheless
            return _plain(torch.load(path, map_location="cpu", weights_only=True), {})
    except InputError:
        raise
    except OSError as error:
        # Without a number, or of a seek before the file's start, it is the content's fault.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _refusal(path, error) from error
    except Exception as error:  # the bytes of a damaged file may lead the unpickler to anything
        raise _refusal(path, error) from error


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """A value without stand-ins; what is in several places, and so in ``done`` by its identity, is gone through once."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, torch.Tensor) and value.is_nested:  # which has no shape to compare with a network's
        raise ValueError("it holds nested tensors, as no network here has")
    if id(value) in done:
        return done[id(value)]
    plain = value
    if isinstance(value, _Fields):
        plain = _plain(value.fields, done)
    elif isinstance(value, dict):
        plain = {key: _plain(each, done) for key, each in value.items()}
    elif isinstance(value, list):
        plain = [_plain(each, done) for each in value]
    done[id(value)] = plain
    return plain


def _require_bounded(path: Path, head: bytes) -> None:
    """``UnboundedError`` where unpacking a file would take more memory or time than its size lets expect."""
    UNPACKED_BYTES.require(path.stat().st_size, path)
    if not head.startswith(b"PK"):
        with path.open("rb") as file:
            require_bounded(file, LEGACY_PICKLES)
        return
    with _open_zip(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise _corrupt(path, "its parts are compressed or overlap, which torch.save does not", "save it again with torch.save")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):
                with archive.open(entry) as pickled:
                    require_bounded(pickled, 1)


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_file(path, "a file of weights", "give another") as file, open_zip(file) as archive:
        yield archive


def _require_torch_file(path: Path, head: bytes) -> None:
    if not head:
        raise _corrupt(path, "it is empty")
    if head.lstrip().lower().startswith(MARKUP):
        raise _corrupt(path, "it is a web page, as a failed download leaves")
    for beginning, what, remedy in OTHER_FILES:
        if head.startswith(beginning):
            raise _corrupt(path, what, remedy)
    if head[257:262] == b"ustar":
        raise _corrupt(path, "it is a tar archive", "unpack it")
    if head.startswith(b"PK"):
        _require_torch_zip(path)


def _require_torch_zip(path: Path) -> None:
    try:
        with _open_zip(path) as archive:
            names = archive.namelist()
    except Exception as error:  # as zipfile meets damage
        why = f"its table of contents, at the end, is missing or damaged, as where it was cut off: {said_of(error)}"
        raise _corrupt(path, why) from error
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        raise _corrupt(path, "it is a TorchScript program, not weights", "save its state_dict() with torch.save")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        held = ", ".join(ascii(name)[1:-1] for name in names[:3]) or "nothing"
        raise _corrupt(path, f"it is a zip archive of {held}, not a file of torch.save", "give what is in it")


def _refusal(path: Path, error: Exception) -> InputError:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return InputError(
            f"{path} holds a Python object, {named[1]}, which is not unpacked, because that can run code; where you trust it, save the "
            "tensors alone: torch.save(model.state_dict(), ...)"
        )
    if "Unsupported operand 149" in str(error):  # a frame, which pickles have from protocol 4 on
        return _corrupt(path, "it was saved with pickle_protocol 4 or 5", "save it with torch.save's own")
    why = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    if isinstance(error, RecursionError | MemoryError):
        why = f"its content is damaged: {said_of(error)}"
    elif "Weights only load failed" in why:  # torch's advice, with its reason on a later line
        inner = error.__cause__ or error.__context__
        why = f"its content is damaged: {(str(inner or '').splitlines() or ['no pickle'])[0][:120]}"
    return _corrupt(path, why)


def _corrupt(path: Path, why: str, remedy: str = AGAIN) -> InputError:
    return InputError(f"{path} is corrupt or no weights file ({why}); {remedy}")


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER_BYTES


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors by name, and what the metadata says."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: _json_value(value) for key, value in (file.metadata() or {}).items()}
            return facts | {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:
        raise _corrupt(path, said_of(error)) from error


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
