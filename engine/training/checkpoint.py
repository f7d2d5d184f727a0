"""Checkpoints: what an exact resume needs beside a run's weights.

A checkpoint is a folder of weights with ``adam.pth`` and ``state.pt``. It is written under a temporary name, flushed to the disk and
renamed, so a folder under its final name is always whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dataload.system.console import console
from dataload.system.files import remove_whole, whole_folder
from engine.checkpoints import STATE_FILE, STEP_FOLDER, checkpoint_folders
from engine.training.optim import learning_rate_of, set_learning_rate
from engine.weights import InputSize, is_plain, load_module, network_contents, read_file, require_finite, require_readable, write_files
from splits.errors import InputError
from splits.faults import describe_fault, parsing

ADAM_FILE = "adam.pth"
STATE_VERSION = 1
# Ten million steps per second would take a year to get there.
MOST_STEPS = 2**48
REMOVE = "remove that folder to resume from the checkpoint before"


class OtherVersion(InputError):
    """A state that is whole, and of another version."""


class Position(NamedTuple):
    """Where a run stands: ``step`` batches of ``epoch`` are done, ``global_step`` in all; the best validation so far.

    The best is the lowest abs_rel; where no validation image has ground truth, the lowest loss.

    Attributes:
        samples: samples of ``epoch`` that all ranks together are done with; None in checkpoints of versions that trained with one process.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_val_loss: float = float("inf")
    best_val_abs_rel: float = float("inf")
    samples: int | None = None


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
        state = {"version": STATE_VERSION, "position": position._asdict(), "scaler": scaler.state_dict()}
        others = (ADAM_FILE, _adam_state(optimizer)), (STATE_FILE, state)
        write_files(temporary, chain(network_contents(networks, size), others))


def _adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with the learning rate as a plain number, as every reader of ``adam.pth`` expects it."""
    state = optimizer.state_dict()
    return state | {"param_groups": [group | {"lr": float(group["lr"])} for group in state["param_groups"]]}


def latest_resumable(models_folder: Path, names: Sequence[str] = ("encoder", "depth")) -> Path:
    """The checkpoint of a run that is furthest along and whole; a warning names each that is damaged.

    Args:
        names: the networks that it must hold.

    Raises:
        InputError: there is none, or one is of another version.
    """
    found: dict[Path, int] = {}
    damaged: dict[Path, InputError] = {}
    for folder in checkpoint_folders(models_folder):
        if not (folder / STATE_FILE).is_file():
            if STEP_FOLDER.fullmatch(folder.name):  # weights may be of another program, which keeps no state
                damaged[folder] = InputError(f"{folder} holds no {STATE_FILE}; remove that folder")
            continue
        try:
            found[folder] = _position(_state(folder), folder).global_step
        except OtherVersion:
            raise
        except InputError as error:
            damaged[folder] = error
    for folder in sorted(found, key=lambda each: found[each], reverse=True):
        try:
            for file in (*(f"{name}.pth" for name in names), ADAM_FILE):
                require_readable(folder / file)
        except InputError as error:
            damaged[folder] = error
            continue
        for fault in damaged.values():
            console.warning("Skipped  %s", fault)
        return folder
    if damaged:
        raise next(iter(damaged.values()))
    from_weights = "begin a new run from its weights with --load_weights_folder and another --model_name"
    remedy = from_weights if checkpoint_folders(models_folder) else "start without --resume"
    raise InputError(f"nothing to resume in {models_folder}: no checkpoint with {STATE_FILE}; {remedy}")


def remove_superseded(models_folder: Path, newest: Path) -> None:
    """Remove the mid-epoch checkpoints that ``newest`` supersedes; a warning names one that cannot be removed."""
    for folder in checkpoint_folders(models_folder):
        if STEP_FOLDER.fullmatch(folder.name) and folder != newest:
            try:
                remove_whole(folder)
            except InputError as error:
                console.warning("%s stays for now: %s", folder.name, error)
            except OSError as error:
                console.warning("%s stays: %s", folder.name, describe_fault(error))


def _state(folder: Path) -> dict[str, Any]:
    state = read_file(folder / STATE_FILE)
    # By its type first: a tensor, as any file may hold, compares with nothing.
    if not isinstance(state, dict) or type(version := state.get("version")) is not int or version != STATE_VERSION:
        raise OtherVersion(f"{folder / STATE_FILE} is of another version; resume it with the version that wrote it")
    return state


def _position(state: Mapping[str, Any], folder: Path) -> Position:
    saved = state.get("position")
    if isinstance(saved, dict) and {"epoch", "step", "global_step"} <= saved.keys() <= set(Position._fields):
        position = Position(**saved)
        counts = position.epoch, position.step, position.global_step, 0 if position.samples is None else position.samples
        bests = position.best_val_loss, position.best_val_abs_rel
        if all(type(count) is int and 0 <= count < MOST_STEPS for count in counts) and all(
            type(best) is float and best >= 0 for best in bests
        ):
            return position
    raise InputError(
        f"{folder / STATE_FILE} is damaged: it does not say where the run stood; remove that folder to resume from the one before"
    )


def load_checkpoint(folder: Path, networks: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Position:
    """Put everything back as ``save_checkpoint`` found it, and return where the run stood.

    Raises:
        InputError: a file is missing, corrupt, or of another architecture.
    """
    state = _state(folder)
    position = _position(state, folder)
    for name, module in networks.named_children():
        load_module(module, folder, name)
    _load_adam(optimizer, folder / ADAM_FILE)
    with parsing(folder / STATE_FILE, "a whole state of a run", REMOVE):
        saved = state["scaler"]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in saved.values()):
            raise ValueError("the scale of the loss is no number")
        scaler.load_state_dict(saved)
    return position


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Take Adam's moments from the ``adam.pth`` of a weights folder; the learning rate stays.

    Raises:
        InputError: there is none, or it does not fit; the optimizer is as it was.
    """
    if not (folder / ADAM_FILE).is_file():
        raise InputError(f"no {ADAM_FILE} beside the weights")
    learning_rate = learning_rate_of(optimizer)
    _load_adam(optimizer, folder / ADAM_FILE)
    set_learning_rate(optimizer, learning_rate)


def _load_adam(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Take moments, steps and the learning rate; how Adam is computed belongs to this machine, not to the file's."""
    content = read_file(path)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with parsing(path, "an Adam state", "remove it to start with fresh moments"):
        order = [number for group in content["param_groups"] for number in group["params"]]
        learning_rate = _finite(content["param_groups"][0]["lr"])
        if len(order) != len(parameters):
            raise InputError(
                f"{path} belongs to another architecture: it is of {len(order)} parameters, the networks have {len(parameters)}; "
                "check --num_layers, --use_stereo and the pose options"
            )
        saved = [
            (number, parameter, content["state"].get(key)) for number, (key, parameter) in enumerate(zip(order, parameters, strict=True))
        ]
        state = {number: _moments(moments, parameter, path, number) for number, parameter, moments in saved if moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    set_learning_rate(optimizer, learning_rate)


def _moments(saved: Mapping[str, Any], parameter: Tensor, path: Path, number: int) -> dict[str, Tensor]:
    """One parameter's state, laid out in memory as the parameter: fused Adam walks through both alike, whatever their strides."""
    moments = {"step": torch.tensor(_finite(saved["step"]), dtype=torch.float32)}
    for name in ("exp_avg", "exp_avg_sq"):
        if saved[name].shape != parameter.shape:
            raise InputError(
                f"{path} belongs to another architecture: {name} of parameter {number} is {tuple(saved[name].shape)}, the networks need "
                f"{tuple(parameter.shape)}; check --num_layers, --use_stereo and the pose options"
            )
        if not is_plain(saved[name]):
            raise ValueError(f"{name} of parameter {number} is {saved[name].dtype}, not plain floats")
        moments[name] = torch.empty_like(parameter, requires_grad=False).copy_(saved[name])
        require_finite(moments[name], f"{name} of parameter {number}", path)
    if bool((moments["exp_avg_sq"] < 0).any()):
        raise ValueError(f"exp_avg_sq of parameter {number}, a mean of squares, is below 0")
    return moments


def _finite(value: Any) -> float:
    """A number of a file, 0 or more, as a float."""
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{number} where a number of steps or a learning rate should be")
    return number
