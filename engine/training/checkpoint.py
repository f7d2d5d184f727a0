"""Checkpoints: what an exact resume needs beside a run's weights.

A checkpoint is a folder of weights with ``adam.pth`` and ``state.pt``. It is written under a temporary name, flushed to the disk and
renamed, so a folder under its final name is always whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dataload.system.files import whole_folder
from engine.training.optim import learning_rate_of, set_learning_rate
from engine.weights import STEP_FOLDER, InputSize, checkpoint_folders, load_module, read_file, write_file, write_networks
from splits.errors import InputError

STATE_FILE = "state.pt"
ADAM_FILE = "adam.pth"
STATE_VERSION = 1


class Position(NamedTuple):
    """Where a run stands: ``step`` batches of ``epoch`` are done, ``global_step`` in all; the best validation so far.

    The best is the lowest abs_rel; where no validation image has ground truth, the lowest loss.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_val_loss: float = float("inf")
    best_val_abs_rel: float = float("inf")


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
    with whole_folder(folder) as temporary:
        write_networks(temporary, networks, size)
        write_file(temporary / ADAM_FILE, _adam_state(optimizer))
        state = {"version": STATE_VERSION, "position": position._asdict(), "scaler": scaler.state_dict()}
        write_file(temporary / STATE_FILE, state)


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
        (_state(folder)["position"]["global_step"], folder)
        for folder in checkpoint_folders(models_folder)
        if (folder / STATE_FILE).is_file()
    ]
    if not found:
        raise InputError(
            f"nothing to resume in {models_folder}: no checkpoint with {STATE_FILE}; "
            "start without --resume, or begin a new run from weights with --load_weights_folder"
        )
    return max(found)[1]


def remove_superseded(models_folder: Path, newest: Path) -> None:
    """Remove the mid-epoch checkpoints that ``newest`` supersedes."""
    for folder in checkpoint_folders(models_folder):
        if STEP_FOLDER.fullmatch(folder.name) and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


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
