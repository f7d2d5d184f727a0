"""Weights on disk in Monodepth2's layout, and beside them what an exact resume needs.

A checkpoint is a folder: ``encoder.pth depth.pth [pose_encoder.pth pose.pth predictive_mask.pth] adam.pth state.pt``. It is written under
a temporary name, flushed to the disk and renamed, so a folder under its final name is always whole.

Weights are read from one ``model.safetensors`` too, where each tensor's name begins with its network's: what a model hub shows and serves.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dataload.files import published_folder
from engine.optim import learning_rate_of, set_learning_rate
from splits.errors import InputError

STATE_FILE = "state.pt"
ADAM_FILE = "adam.pth"
SAFETENSORS_FILE = "model.safetensors"
# Monodepth2's names of the input size.
SIZE_KEYS = ("height", "width", "use_stereo")
STATE_VERSION = 1
WEIGHTS_FOLDER = re.compile(r"weights_(\d+)")
STEP_FOLDER = re.compile(r"step_(\d+)")


class Position(NamedTuple):
    """Where a run stands: ``step`` batches of ``epoch`` are done, ``global_step`` in all; the best validation so far.

    The best is the lowest abs_rel; where no validation image has ground truth, the lowest loss.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_val_loss: float = float("inf")
    best_val_abs_rel: float = float("inf")


class InputSize(NamedTuple):
    """What ``encoder.pth`` carries beside its weights, and ``model.safetensors`` as metadata."""

    height_px: int
    width_px: int
    use_stereo: bool


def _write(path: Path, content: object) -> None:
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


def has_weights(folder: Path, name: str) -> bool:
    """Whether the folder holds the network ``name``, in its own file or in ``model.safetensors``; ``InputError`` where that is corrupt."""
    return (folder / f"{name}.pth").is_file() or bool(_read_safetensors(folder / SAFETENSORS_FILE, name))


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


def size_entries(size: InputSize) -> dict[str, Any]:
    """The input size under Monodepth2's keys, as it lies beside an encoder's weights."""
    return dict(zip(SIZE_KEYS, size, strict=True))


def save_weights(folder: Path, networks: nn.Module, size: InputSize) -> None:
    """Write the weights alone, one file a child of ``networks``, as a published folder."""
    with published_folder(folder) as temporary:
        _write_weights(temporary, networks, size)


def _write_weights(folder: Path, networks: nn.Module, size: InputSize) -> None:
    for name, module in networks.named_children():
        content = dict(module.state_dict())
        if name == "encoder":
            content |= size_entries(size)
        _write(folder / f"{name}.pth", content)


def save_checkpoint(
    folder: Path,
    networks: nn.Module,
    size: InputSize,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    position: Position,
) -> None:
    """Write weights, optimizer and position as a published folder.

    Raises:
        OSError: the disk is full or not writable; names the file. The folder's earlier content is kept.
    """
    with published_folder(folder) as temporary:
        _write_weights(temporary, networks, size)
        _write(temporary / ADAM_FILE, _adam_state(optimizer))
        state = {"version": STATE_VERSION, "position": position._asdict(), "scaler": scaler.state_dict()}
        _write(temporary / STATE_FILE, state)


def _adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with the learning rate as a plain number, as every reader of ``adam.pth`` expects it."""
    state = optimizer.state_dict()
    return state | {"param_groups": [group | {"lr": float(group["lr"])} for group in state["param_groups"]]}


def latest_resumable(models_folder: Path) -> Path:
    """The checkpoint of a run that is furthest along and can be resumed from.

    Raises:
        InputError: there is none.
    """
    found = [
        (_state(folder)["position"]["global_step"], folder) for folder in _checkpoints(models_folder) if (folder / STATE_FILE).is_file()
    ]
    if not found:
        raise InputError(
            f"nothing to resume in {models_folder}: no checkpoint with {STATE_FILE}; "
            "start without --resume, or begin a new run from weights with --load_weights_folder"
        )
    return max(found)[1]


def _checkpoints(models_folder: Path) -> list[Path]:
    if not models_folder.is_dir():
        return []
    return sorted(f for f in models_folder.iterdir() if WEIGHTS_FOLDER.fullmatch(f.name) or STEP_FOLDER.fullmatch(f.name))


def remove_superseded(models_folder: Path, newest: Path) -> None:
    """Remove the mid-epoch checkpoints that ``newest`` supersedes."""
    for folder in _checkpoints(models_folder):
        if STEP_FOLDER.fullmatch(folder.name) and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


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
        steps = [f for f in _checkpoints(models) if STEP_FOLDER.fullmatch(f.name)]
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
    """3 of ``weights_3``; None where the folder's name tells no epoch."""
    match = WEIGHTS_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else None


def _by_epoch(models_folder: Path) -> list[Path]:
    numbered = [(epoch, folder) for folder in _checkpoints(models_folder) if (epoch := epoch_of(folder)) is not None]
    return [folder for _, folder in sorted(numbered)]


def _state(folder: Path) -> dict[str, Any]:
    state = read_file(folder / STATE_FILE)
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise InputError(f"{folder / STATE_FILE} is of another version; resume it with the version that wrote it")
    return state


def load_checkpoint(folder: Path, networks: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Position:
    """Put everything back as ``save_checkpoint`` found it, and return where the run stood.

    Raises:
        InputError: a file is missing, corrupt, or of another architecture.
    """
    state = _state(folder)
    for name, module in networks.named_children():
        load_module(module, folder / f"{name}.pth", complete=True)
    _load_adam(optimizer, folder / ADAM_FILE)
    scaler.load_state_dict(state["scaler"])
    return Position(**state["position"])


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


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> bool:
    """Take Adam's moments from ``adam.pth`` where the folder has it and it fits, keeping the present learning rate."""
    learning_rate = learning_rate_of(optimizer)
    if not (folder / ADAM_FILE).is_file():
        return False
    before = optimizer.state_dict()
    try:
        _load_adam(optimizer, folder / ADAM_FILE)
    except InputError:
        optimizer.load_state_dict(before)
        return False
    set_learning_rate(optimizer, learning_rate)
    return True


def _load_adam(optimizer: torch.optim.Optimizer, path: Path) -> None:
    content = read_file(path)
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    try:
        saved = content["state"]
        fits = all(saved[i]["exp_avg"].shape == shapes[i] for i in saved)
        if not fits or sum(len(group["params"]) for group in content["param_groups"]) != len(shapes):
            raise InputError(f"{path} belongs to another architecture; check --num_layers, --use_stereo and the pose options")
        # How Adam is computed, and where its learning rate lies, belongs to this machine, not to the file's.
        groups = [{**g, **{name: o[name] for name in ("fused", "foreach", "capturable", "lr")}}
                  for g, o in zip(content["param_groups"], optimizer.param_groups, strict=True)]  # fmt: skip
        learning_rate = float(content["param_groups"][0]["lr"])
        optimizer.load_state_dict({"state": saved, "param_groups": groups})
        set_learning_rate(optimizer, learning_rate)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no Adam state ({error}); remove it to start with fresh moments") from error


def load_module(module: nn.Module, path: Path, *, complete: bool = False) -> Mapping[str, Any]:
    """Fill one module from its file; returns the file's content, the extras of ``encoder.pth`` included.

    With ``complete``, a key that the file lacks is an error too.

    Raises:
        InputError: missing or corrupt file, or weights of another architecture.
    """
    content = read_file(path)
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
    return content
