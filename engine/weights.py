"""Weights on disk in Monodepth2's layout: a folder with ``encoder.pth depth.pth [pose_encoder.pth pose.pth predictive_mask.pth]``.

They are read from one ``model.safetensors`` too, where each tensor's name begins with its network's: what a model hub shows and serves.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dataload.system.files import whole_folder
from splits.errors import InputError

SAFETENSORS_FILE = "model.safetensors"
# Monodepth2's names of the input size.
SIZE_KEYS = ("height", "width", "use_stereo")
WEIGHTS_FOLDER = re.compile(r"weights_(\d+)")
STEP_FOLDER = re.compile(r"step_(\d+)")


class InputSize(NamedTuple):
    """What ``encoder.pth`` carries beside its weights, and ``model.safetensors`` as metadata."""

    height_px: int
    width_px: int
    use_stereo: bool


def weights_folder(path: Path) -> Path:
    """The folder of weights that ``path`` means: itself, or the last ``weights_<epoch>`` of a run folder.

    Raises:
        InputError: it does not exist or holds no weights.
    """
    if has_weights(path, "encoder"):
        return path
    for models in (path / "models", path):
        numbered = _by_epoch(models)
        if numbered:
            return numbered[-1]
        steps = [f for f in checkpoint_folders(models) if STEP_FOLDER.fullmatch(f.name)]
        if steps:
            return steps[-1]
    what = "holds no encoder.pth and no models/weights_<epoch> folder" if path.is_dir() else "does not exist"
    raise InputError(f"weights folder {path} {what}; name a run folder or one of its models/weights_<epoch> folders")


def epoch_folders(path: Path) -> list[Path]:
    """Every ``weights_<epoch>`` of a run folder or of its ``models``, by epoch; ``InputError`` where there is none."""
    folders = _by_epoch(path / "models") or _by_epoch(path)
    if not folders:
        raise InputError(f"{path} holds no weights_<epoch> folders; name the folder of a run")
    return folders


def epoch_of(folder: Path) -> int | None:
    """3 of ``weights_3``; None where the folder's name gives no epoch."""
    match = WEIGHTS_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else None


def _by_epoch(models_folder: Path) -> list[Path]:
    numbered = [(epoch_of(folder), folder) for folder in checkpoint_folders(models_folder)]
    return [folder for _, folder in sorted((epoch, folder) for epoch, folder in numbered if epoch is not None)]


def checkpoint_folders(models_folder: Path) -> list[Path]:
    if not models_folder.is_dir():
        return []
    return sorted(f for f in models_folder.iterdir() if WEIGHTS_FOLDER.fullmatch(f.name) or STEP_FOLDER.fullmatch(f.name))


def has_weights(folder: Path, name: str) -> bool:
    """Whether the folder holds the network ``name``, in its own file or in ``model.safetensors``; ``InputError`` where that is corrupt."""
    return (folder / f"{name}.pth").is_file() or bool(_read_safetensors(folder / SAFETENSORS_FILE, name))


def read_file(path: Path) -> Any:
    """A saved object, tensors on the CPU; of a ``<network>.pth`` that is not there, what a ``model.safetensors`` in its place holds.

    Raises:
        InputError: the file is missing, truncated, or holds more than tensors and plain values.
    """
    if not path.is_file() and has_weights(path.parent, path.stem):
        return _read_safetensors(path.with_name(SAFETENSORS_FILE), path.stem)
    if not path.is_file():
        raise InputError(f"no file {path}; a checkpoint folder holds encoder.pth and depth.pth")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]  # of an empty file, torch says nothing
        raise InputError(f"{path} is corrupt or no weights file ({why}); copy or download it again") from error


def _read_safetensors(path: Path, name: str) -> dict[str, Any]:
    """The tensors of one network, under its own keys, and the input size; empty without them."""
    if not path.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            size = {key: json.loads(value) for key, value in (file.metadata() or {}).items() if key in SIZE_KEYS}
            tensors = {key.removeprefix(f"{name}."): file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path} is corrupt or no weights file ({error}); copy or download it again") from error
    return tensors | size if tensors else {}


def load_weights(networks: nn.Module, folder: Path, names: Sequence[str]) -> list[str]:
    """Fill the named children from a folder of weights, ours or Monodepth2's; returns the names loaded.

    A key the module lacks is ignored and one the file lacks keeps its value, as published; names the networks do not have are skipped.

    Raises:
        InputError: a file is missing or corrupt, or its shapes belong to another architecture.
    """
    children = dict(networks.named_children())
    loaded = [name for name in names if name in children]
    missing = [name for name in loaded if not has_weights(folder, name)]
    if missing:
        rest = " ".join(name for name in names if name not in missing)
        raise InputError(
            f"{folder} has no {' and no '.join(f'{name}.pth' for name in missing)}; load the others with --models_to_load {rest}"
        )
    for name in loaded:
        load_module(children[name], folder / f"{name}.pth")
    return loaded


def load_module(module: nn.Module, path: Path, *, complete: bool = False) -> None:
    """Fill one module from its file; raises as ``read_file`` and ``fill_module``."""
    fill_module(module, read_file(path), path, complete=complete)


def fill_module(module: nn.Module, content: Any, path: Path, *, complete: bool = False) -> None:
    """Fill one module with what was read of the file ``path``; with ``complete``, a key that it lacks is an error too.

    Raises:
        InputError: weights of another architecture.
    """
    own = module.state_dict()
    if not isinstance(content, Mapping) or not any(key in own for key in content):
        raise InputError(f"{path} holds no weights of this network; check that the file is what its name says")
    for key, tensor in own.items():
        if key in content and content[key].shape != tensor.shape:
            raise InputError(
                f"{path} belongs to another architecture: {key} is {tuple(content[key].shape)}, this network needs {tuple(tensor.shape)}; "
                "check --num_layers and the pose options"
            )
    missing = [key for key in own if key not in content]
    if complete and missing:
        raise InputError(f"{path} lacks {len(missing)} tensors, first {missing[0]}; it was saved by another architecture")
    module.load_state_dict({key: content.get(key, tensor) for key, tensor in own.items()})


def size_entries(size: InputSize) -> dict[str, Any]:
    """The input size under Monodepth2's keys, as it lies beside an encoder's weights."""
    return dict(zip(SIZE_KEYS, size, strict=True))


def save_weights(folder: Path, networks: nn.Module, size: InputSize) -> None:
    """Write the weights alone, one file a child of ``networks``, as a published folder."""
    with whole_folder(folder) as temporary:
        write_networks(temporary, networks, size)


def write_networks(folder: Path, networks: nn.Module, size: InputSize) -> None:
    for name, module in networks.named_children():
        content = dict(module.state_dict())
        if name == "encoder":
            content |= size_entries(size)
        write_file(folder / f"{name}.pth", content)


def write_file(path: Path, content: object) -> None:
    # Through a buffer: torch's own writer turns a full disk into an error without the file's name.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with path.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} while saving; earlier checkpoints are untouched", str(path)) from error
