"""Options given in Python under the commands' names: the same names, defaults and checks, with the types that Python has for them."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from dataload.config import NAMES_OR_FOLDERS, DataConfig
from dataload.datasets import DATASETS, find_entry_point, locate
from dataload.option import Option, annotations_of, config_from, default_of, kinds_of, options_of
from dataload.system.home import expand_home
from splits.errors import InputError
from splits.faults import parsing

# Above, a whole number fits neither torch nor, further up, a float.
MOST = 2**63
# What a value must be, for messages.
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def given_options(given: Mapping[str, Any], configs: Iterable[type], *, only: Mapping[type, Iterable[str]] | None = None) -> dict[str, Any]:
    """Every option of ``configs`` by name: as given, of the type that a command's parser makes, else its default.

    A path may be text, in which ``~`` is expanded; several values may be any sequence.

    Args:
        only: for a config of which not all options are meant, their names.

    Raises:
        InputError: an unknown name, with the nearest one; a value of another type or out of its range; an unknown dataset.
    """
    chosen = only or {}
    found = {
        option.name: (option, annotations_of(cls)[each.name], default_of(each, option))
        for cls in configs
        for each, option in options_of(cls)
        if cls not in chosen or option.name in chosen[cls]
    }
    for name in given:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"there is no option {name}; {hint}choose from {', '.join(found)}")
    return {name: read_option(given[name], *parts) if name in given else parts[2] for name, parts in found.items()}


def data_config(**options: Any) -> DataConfig:
    """What is loaded, from md-train's options of data by name; see ``DataConfig`` for them and their defaults.

    ``data_config(dataset="demo", use_stereo=True, height=96, width=320)`` needs no data: the demo brings its own.

    Args:
        options: md-train's options of data, without their dashes.

    Raises:
        InputError: an unknown name, with the nearest one; a value of another type or out of its range; no such dataset or split.
    """
    return located(given_options(options, [DataConfig]))


def located(options: Mapping[str, Any]) -> DataConfig:
    """The config of md-train's options, with the folder and split of its dataset where they are left out; raises as ``data_config``."""
    data_path, split = locate(options["dataset"], options["data_path"], options["split"])
    store_dir = options["frame_store_dir"]
    return config_from(
        DataConfig, options, data_path=data_path, split=split, frame_store_dir=None if store_dir is None else store_dir.absolute()
    )


def read_option(value: Any, option: Option, annotation: Any, default: Any) -> Any:
    """A value as a command's parser would return it; ``InputError`` where it is of another type or out of the option's range.

    Args:
        value: as given in Python, or as ``saved_values`` has it.
        option: what it is a value of.
        annotation: the type of the option's field.
        default: what a command has without the option.
    """
    if value is None and default is None:
        return None
    if option.word is not None and value == option.word:
        return value
    kinds = [bool] if option.switch is not None else kinds_of(annotation)
    element = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple), None)
    if element is None:
        read = _one(value, kinds[0], option)
    else:
        several = [value] if isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable) else value
        read = tuple(_one(each, element, option) for each in several)
    if option.switch is None:
        option.check(read)
    return read


def _one(value: Any, kind: type, option: Option) -> Any:
    if kind is Path and isinstance(value, (str, os.PathLike)):
        return Path(_expanded(value, option.name))
    if kind is str and option.name in NAMES_OR_FOLDERS and isinstance(value, (str, os.PathLike)):
        return _expanded(value, option.name)
    # numpy's numbers and torch's too.
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int)) or (kind in (int, float) and hasattr(value, "__index__"))
    if not fits or (isinstance(value, bool) and kind is not bool):
        expected = WORDS[kind] if option.word is None else f"True, False or {option.word!r}"
        raise InputError(f"{option.name}={value!r} must be {expected}")
    if kind in (int, float) and MOST < abs(value) < math.inf:
        raise InputError(f"{option.name}={value} is larger than any number here")
    if option.name == "dataset" and value not in DATASETS and ":" not in value:
        find_entry_point(value)
    return kind(value)


def _expanded(path: str | os.PathLike[str], name: str) -> str:
    # pathlib would take an empty path for the current folder.
    text = os.fspath(path)
    if text == "":
        raise InputError(f"{name}='' is an empty path; leave it out, or name a place")
    with parsing(f"{name}={text!r}", "a path", "name a place"):
        if b"\0" in os.fsencode(text):
            raise ValueError("no name has a byte of 0")
    return expand_home(text)
