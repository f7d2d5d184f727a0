"""What ``--model`` means: an ONNX file, or weights."""

from __future__ import annotations

from pathlib import Path

from dataload.system.files import find_like_named
from engine.fetching.models import fetched
from export.choices import HUB_ONNX_FILE, is_onnx
from splits.errors import InputError


def find_model(path: Path) -> Path:
    """The ONNX file, run folder or weights that ``path`` means, downloaded and unpacked where that is needed.

    Raises:
        InputError: as ``fetched``, or there is no such ONNX file.
    """
    if not is_onnx(path):
        return fetched(path)
    found = path / HUB_ONNX_FILE if path.is_dir() else path
    if found.is_file():
        return found
    near = find_like_named(path)
    hint = f"did you mean {near}?" if near else "name a run folder, a weights folder, an ONNX file, or a released model (md-predict --help)"
    raise InputError(f"model {path} does not exist; {hint}")
