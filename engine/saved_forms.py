"""How people save networks: alone or several in a file, in wrappers, under prefixes; all to the keys of Monodepth2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dataload.config import check_multiple
from engine.choices import MODULES
from splits.errors import InputError

# A tensor by which each network is known.
_RESNET, _DECODER = "encoder.conv1.weight", "decoder.0.conv.conv.weight"
SIGNS = {"encoder": _RESNET, "depth": _DECODER, "pose_encoder": _RESNET, "pose": "net.0.weight", "predictive_mask": _DECODER}
# Their names in messages.
WORDS = {
    "encoder": "ResNet-18/34/50/101/152 encoder", "depth": "depth decoder", "pose_encoder": "ResNet-18/34/50/101/152 encoder of poses",
    "pose": "pose network", "predictive_mask": "decoder of predictive masks",
}  # fmt: skip
# What DataParallel, DistributedDataParallel and torch.compile put into names, at any depth.
PUT_IN = ("module", "_orig_mod")
# Copies beside the weights themselves; by default the weights themselves are meant.
COPIES = ("ema", "teacher", "swa", "optim", "averag")
# Words in a prefix that show which network it is.
ROLES = {"pose_encoder": "pose", "pose": "pose", "predictive_mask": "mask"}
# Tensors by which encoders of other families are known.
OTHER_ENCODERS = (
    ("downsample_layers", "Lite-Mono"),
    ("patch_embed", "MonoViT's or another transformer"),
    ("transition1", "an HRNet, as DIFFNet's"),
    ("features.", "a MobileNet's or EfficientNet's"),
    ("layer0.0", "ManyDepth's"),
)
# Most parts of a nested name; real files do not nest deeper.
MAX_PARTS = 8
# The largest networks here have a thousand tensors.
MAX_ENTRIES = 100_000
MAX_SIZE_PX = 8192


class SavedNetwork(NamedTuple):
    """One network as a file holds it: ``tensors`` under Monodepth2's keys, and ``facts``, Monodepth2's names of the input size."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def use_stereo(self) -> bool:
        """Whether it records that it was trained with the other camera."""
        value = _number(self.facts.get("use_stereo"))
        return value.strip().lower() in ("true", "1") if isinstance(value, str) else isinstance(value, int | float) and bool(value)

    def size_px(self) -> tuple[int, int] | None:
        """The recorded input size (height, width), None where there is none; ``InputError`` unless it is one that networks take."""
        if "height" not in self.facts or "width" not in self.facts:
            return None
        height, width = (_pixels(self.path, name, self.facts[name]) for name in ("height", "width"))
        return height, width


def network_in(content: Any, name: str, path: Path) -> SavedNetwork:
    """The network ``name`` of what the file ``path`` holds.

    Raises:
        InputError: it holds none, or several without a hint which is meant.
    """
    entries = _entries(content, path)
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    prefixes = _prefixes(tensors, name)
    if not prefixes:
        raise InputError(f"{path} holds no {WORDS[name]}{_held_instead(tensors, name)}; check that the file is what its name says")
    if len(prefixes) > 1:
        shown = ", ".join(_shown(prefix) or "(no name)" for prefix in prefixes)
        raise InputError(f"{path} holds several networks that may be {name}: {shown}; save the one that is meant alone")
    start = prefixes[0]
    own = {".".join(key[len(start) :]): tensor for key, tensor in tensors.items() if key[: len(start)] == start}
    return SavedNetwork(path, own, _facts(entries))


def holds(content: Any, name: str, path: Path) -> bool:
    """Whether what the file ``path`` holds has a network that may be ``name``."""
    return bool(_prefixes({key: value for key, value in _entries(content, path).items() if isinstance(value, Tensor)}, name))


def _entries(content: Any, path: Path) -> dict[tuple[str, ...], Any]:
    """Every value below mappings of names, under its parts of name; what wrappers of modules put in is left out.

    Raises:
        InputError: there are too many, as where one mapping stands in others again and again.
    """
    found: dict[tuple[str, ...], Any] = {}
    visits = count()

    def visit(mapping: Mapping[Any, Any], above: tuple[str, ...]) -> None:
        for key, value in mapping.items():
            if next(visits) >= MAX_ENTRIES:
                raise InputError(
                    f"{path} holds more than {MAX_ENTRIES:,} values, which no network has; check that the file is what its name says"
                )
            if not isinstance(key, str):
                continue
            parts = (*above, *(part for part in key.split(".") if part not in PUT_IN))
            if not isinstance(value, Mapping):
                found[parts] = value
            elif len(parts) <= MAX_PARTS:
                visit(value, parts)

    if isinstance(content, Mapping):
        visit(content, ())
    return found


def _prefixes(tensors: Mapping[tuple[str, ...], Tensor], name: str) -> list[tuple[str, ...]]:
    """The prefixes that the keys of the network ``name`` may have, most likely one."""
    sign = tuple(SIGNS[name].split("."))
    found = [key[: -len(sign)] for key in tensors if key[-len(sign) :] == sign]
    role = ROLES.get(name)
    neutral = [prefix for prefix in found if not any(word in part for part in prefix for word in ROLES.values())]
    neutral = [prefix for prefix in neutral if not any(part in MODULES and part != name for part in prefix[-1:])]
    matching = [prefix for prefix in found if role is not None and any(role in part for part in prefix)]
    chosen = matching or neutral
    for fewer in (
        [prefix for prefix in chosen if name in prefix],
        [prefix for prefix in chosen if not any(word in part.lower() for part in prefix for word in COPIES)],
    ):
        chosen = fewer or chosen
    return chosen


def _shown(parts: tuple[str, ...]) -> str:
    """A name from the file, shortened for a message of one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in ".".join(parts))[:80]


def _held_instead(tensors: Mapping[tuple[str, ...], Tensor], name: str) -> str:
    others = [other for other in MODULES if SIGNS[other] != SIGNS[name] and _prefixes(tensors, other)]
    if others:
        return f", but a {WORDS[others[0]]}"
    if not tensors:
        return ": it holds no tensors"
    names = [_shown(key) for key in tensors]
    for sign, family in OTHER_ENCODERS if name.endswith("encoder") else ():
        if any(sign in each for each in names):
            return f": by its tensors ({names[0]}, ...) it is {family}, and encoders of Monodepth2 are ResNets"
    return f": its tensors begin with {names[0]}"


def _facts(entries: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Monodepth2's names of the input size, as near to the top of the file as they stand; also those of options kept beside."""
    facts: dict[str, Any] = {}
    for key in sorted(entries, key=len):
        if key and key[-1] in ("height", "width", "use_stereo"):
            facts.setdefault(key[-1], entries[key])
    return facts


def _number(value: Any) -> Any:
    plain = isinstance(value, Tensor) and value.numel() == 1 and value.device.type == "cpu" and not value.is_sparse
    return value.item() if plain else value


def _pixels(path: Path, name: str, value: Any) -> int:
    try:
        number = float(_number(value))
        whole = int(number) if math.isfinite(number) and number == int(number) else None
    except (TypeError, ValueError, OverflowError):
        whole = None
    remedy = "give --height and --width"
    if whole is None or isinstance(value, bool):
        shown = repr(str(value)[:40]) if isinstance(value, str | int | float | Tensor) else f"as a {type(value).__name__}"
        raise InputError(f"{path} records the input {name} {shown}, which is no number of pixels; {remedy}")
    try:
        check_multiple(name, whole)
    except InputError as error:
        raise InputError(f"{path} records an input size that no network here takes: {error}; {remedy}") from error
    if whole > MAX_SIZE_PX:
        raise InputError(f"{path} records the input {name} {whole} px, more than {MAX_SIZE_PX}; {remedy}")
    return whole
