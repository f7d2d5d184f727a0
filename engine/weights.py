"""Weights on disk in Monodepth2's layout: a folder with ``encoder.pth depth.pth [pose_encoder.pth pose.pth predictive_mask.pth]``.

They are read from files of other endings too, and from one file that holds several networks, such as the ``model.safetensors`` that a model
hub shows and serves. What ``weights_folder`` gives is a folder, or such a file where it lies alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dataload.system.console import console
from dataload.system.files import whole_folder
from engine.checkpoints import STEP_FOLDER, WEIGHTS_FOLDER, checkpoint_folders
from engine.choices import MODULES
from engine.fetching.hub import SAFETENSORS_FILE
from engine.fetching.models import fetched
from engine.saved_forms import SavedNetwork, holds, network_in
from engine.sums import SUMS_FILE, digest_of, require_undamaged, sums_text
from engine.torch_file import read_object
from splits.errors import InputError

# What is copied into a network: torch has floats of 8 bits too, and computes nothing with them.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
# Monodepth2's names of the input size.
SIZE_KEYS = ("height", "width", "use_stereo")
# How files of weights end; the first that is there is read.
ENDINGS = (".pth", ".pth.tar", ".pt", ".tar", ".ckpt", ".bin", ".safetensors")


class InputSize(NamedTuple):
    """What ``encoder.pth`` carries beside its weights, and ``model.safetensors`` as metadata."""

    height_px: int
    width_px: int
    use_stereo: bool


def weights_folder(path: Path) -> Path:
    """The weights that ``path`` means: itself, the last ``weights_<epoch>`` of a run folder, or the folder of a file in one.

    A file that holds the networks of a model itself is the weights. A zip, a released model's name and ``hf:USER/REPO`` are fetched.

    Raises:
        InputError: it does not exist, cannot be fetched, or holds no weights.
    """
    path = fetched(path)
    if path.is_file():
        return _weights_of_file(path)
    if has_weights(path, "encoder"):
        return path
    for models in (path / "models", path):
        found = _by_epoch(models) or [f for f in checkpoint_folders(models) if STEP_FOLDER.fullmatch(f.name)]
        if found:
            return _last_whole(found)
    raise InputError(
        f"weights folder {path} holds no encoder.pth and no models/weights_<epoch> folder; "
        "name a run folder or one of its models/weights_<epoch> folders"
    )


def _last_whole(folders: Sequence[Path]) -> Path:
    """The last that holds a depth network, as one of which a part was removed does not; without any the last, for its reader to refuse."""
    last = folders[-1]
    whole = next((f for f in reversed(folders) if has_weights(f, "encoder") and has_weights(f, "depth")), last)
    if whole != last:
        console.warning("%s lacks encoder.pth or depth.pth: %s is taken instead", last, whole.name)
    return whole


def _weights_of_file(path: Path) -> Path:
    stem, ending = _split_name(path)
    if path.name == SAFETENSORS_FILE or not ending or stem in (*MODULES, "adam"):
        if stem in ("encoder", "depth") or has_weights(path.parent, "encoder"):
            return path.parent
        raise InputError(f"{path} is no model; the files that can be given are encoder.pth, depth.pth and model.safetensors")
    if not has_weights(path, "encoder"):
        network_in(read_object(path), "encoder", path)  # says what it holds instead
    return path


def _split_name(path: Path) -> tuple[str, str]:
    """A name's stem and ending, as ``encoder`` and ``.pth.tar``; no ending where it is none of ``ENDINGS``."""
    ending = max((each for each in ENDINGS if path.name.endswith(each)), key=len, default="")
    return path.name.removesuffix(ending), ending


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
    return [folder for epoch, folder in numbered if epoch is not None]


def network_file(weights: Path, name: str) -> Path | None:
    """The file that holds, or should hold, the network ``name`` of a weights folder or file; None where there is none."""
    if weights.is_file():
        return weights
    own = next((path for ending in ENDINGS if (path := weights / f"{name}{ending}").is_file()), None)
    shared = weights / SAFETENSORS_FILE
    return own if own is not None or not shared.is_file() else shared


def has_weights(weights: Path, name: str) -> bool:
    """Whether a folder or file holds the network ``name``; ``InputError`` where a file of several networks is corrupt."""
    path = network_file(weights, name)
    return path is not None and (_split_name(path)[0] == name or holds(read_object(path), name, path))


def read_file(path: Path) -> Any:
    """A saved object, as ``torch_file.read_object`` reads it; ``InputError`` where there is no such file."""
    _require_file(path)
    return read_object(path)


def require_readable(path: Path) -> None:
    """Raises as ``read_file``; what is as its checksum says can be read, and is not unpacked to see it."""
    _require_file(path)
    if not require_undamaged(path):
        read_object(path)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"no file {path}; a checkpoint folder holds encoder.pth and depth.pth")


def read_network(weights: Path, name: str) -> SavedNetwork:
    """The network ``name`` of a weights folder or file.

    Raises:
        InputError: no such file, a corrupt one, or one that holds another network.
    """
    path = network_file(weights, name)
    return network_in(read_file(weights / f"{name}.pth" if path is None else path), name, weights if path is None else path)


def load_weights(networks: nn.Module, folder: Path, names: Sequence[str]) -> list[str]:
    """Fill the named children from a folder or file of weights, ours or Monodepth2's; returns the names loaded.

    A key the module lacks is ignored and one the file lacks keeps its value, as published; names the networks do not have are skipped.

    Args:
        networks: what is filled.
        folder: the folder or file of weights.
        names: the children to fill: encoder, depth, pose_encoder, pose.

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
        saved = read_network(folder, name)
        lacking = fill_module(children[name], saved)
        if lacking:
            console.warning(
                "%s lacks %d tensors of %s, first %s: they keep their initial values", saved.path, len(lacking), name, lacking[0]
            )
    return loaded


def load_module(module: nn.Module, folder: Path, name: str) -> None:
    """Fill one module from a folder, completely; raises as ``read_network`` and ``fill_module``."""
    fill_module(module, read_network(folder, name), complete=True)


def fill_module(module: nn.Module, saved: SavedNetwork, *, complete: bool = False) -> list[str]:
    """Fill one module; returns the keys that the file lacks and that matter, which with ``complete`` are an error.

    Raises:
        InputError: weights of another architecture.
    """
    own, tensors, path = module.state_dict(), saved.tensors, saved.path
    taken = {key: tensors[key] for key in own if key in tensors and not (_is_unused(key) and tensors[key].shape != own[key].shape)}
    for key, tensor in taken.items():
        if tensor.shape != own[key].shape:
            raise InputError(
                f"{path} belongs to another architecture: {key} is {tuple(tensor.shape)}, this network needs {tuple(own[key].shape)}; "
                "check --num_layers and the pose options"
            )
        if not is_plain(tensor, floats=own[key].is_floating_point()):
            raise InputError(
                f"{path} holds {key} as {tensor.dtype} ({tensor.layout}, {tensor.device.type}); save its weights as plain floats"
            )
        # A number of 64 bits may be infinite in 32.
        require_finite(tensor.to(own[key].dtype), key, path)
    lacking = [key for key in own if key not in taken and not _is_unused(key)]
    if complete and lacking:
        raise InputError(f"{path} lacks {len(lacking)} tensors, first {lacking[0]}; it was saved by another architecture")
    module.load_state_dict(own | taken)
    return lacking


def require_finite(tensor: Tensor, name: str, path: Path) -> None:
    """``InputError`` where a tensor that is loaded holds NaN or infinity: training and predictions from it would be no numbers either."""
    if not bool(tensor.isfinite().all()):
        bad = int(tensor.numel() - tensor.isfinite().sum())
        raise InputError(
            f"{path} is of no use: {bad} of {tensor.numel()} numbers in {name} are NaN or infinite; the file is damaged, or the run that "
            "wrote it had diverged: take an earlier checkpoint or another copy"
        )


def is_plain(tensor: Tensor, *, floats: bool = True) -> bool:
    """Whether a tensor of a file holds numbers in the usual way, not sparse, quantised, complex or of 8 bits."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and (tensor.dtype in FLOATS or (not floats and tensor.dtype in WHOLE_NUMBERS))


def _is_unused(key: str) -> bool:
    """Whether nothing is computed with a tensor: ImageNet's classifier, and BatchNorm's counter, which torch before 0.4.1 did not keep."""
    return key.endswith("num_batches_tracked") or key.startswith("encoder.fc.")


def size_entries(size: InputSize) -> dict[str, Any]:
    """The input size under Monodepth2's keys, as it lies beside an encoder's weights."""
    return dict(zip(SIZE_KEYS, size, strict=True))


def save_weights(folder: Path, networks: nn.Module, size: InputSize) -> None:
    """Write the weights alone, one file per child of ``networks``, as a published folder.

    Args:
        folder: what is written; it appears whole.
        networks: whose children are written, one file each.
        size: the input size in pixels that is recorded beside them.
    """
    with whole_folder(folder) as temporary:
        write_files(temporary, network_contents(networks, size))


def network_contents(networks: nn.Module, size: InputSize) -> Iterator[tuple[str, object]]:
    """The name and the content of the file of each child of ``networks``."""
    for name, module in networks.named_children():
        content = dict(module.state_dict())
        yield f"{name}.pth", content | size_entries(size) if name == "encoder" else content


def write_files(folder: Path, contents: Iterable[tuple[str, object]]) -> None:
    """Write what ``contents`` gives by name as files of torch, and their checksums beside them.

    Raises:
        OSError: the disk is full or not writable; names the file.
    """
    digests = {name: write_file(folder / name, content) for name, content in contents}
    _write_bytes(folder / SUMS_FILE, sums_text(digests).encode())


def write_file(path: Path, content: object) -> str:
    """Write an object as a file of torch; returns its checksum."""
    # Through a buffer: torch's own writer turns a full disk into an error without the file's name.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    _write_bytes(path, buffer.getbuffer())
    return digest_of(buffer.getbuffer())


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} while saving", str(path)) from error
