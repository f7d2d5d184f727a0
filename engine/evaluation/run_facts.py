"""Facts that decide the figures of evaluated weights, as their runs recorded them; the command's options override them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataload.system.console import console
from engine.evaluation.config import EvalConfig
from engine.run_options import number_in, numbers_in, options_file, run_options
from splits.errors import InputError

# How their depth files and cameras are read, by the names of options and of EvalConfig's fields.
DATA_FACTS: dict[str, Callable[..., Any]] = {"depth_scale": number_in, "intrinsics": numbers_in}


def with_run_facts(config: EvalConfig, weights: Sequence[Path]) -> EvalConfig:
    """The config with what the runs of ``weights`` recorded of the dataset that is evaluated; logs what is used, and what is not.

    Raises:
        InputError: damaged options, or runs that differ in what the command leaves open.
    """
    found = {folder: run_options(folder) for folder in weights}
    alike = {folder: options for folder, options in found.items() if options.get("dataset") == config.dataset}
    for name, read in DATA_FACTS.items():
        recorded = {folder: value for folder, options in alike.items() if (value := read(options, name, folder)) is not None}
        config = _with_fact(config, name, recorded)
    if config.image_ext is None and alike and all(options.get("png") is True for options in alike.values()):
        config = replace(config, run_image_ext=".png")
    for name, given in (("min_depth", config.min_depth), ("max_depth", config.max_depth)):
        for folder, options in found.items() if given is not None else ():
            value = number_in(options, name, folder)
            if value not in (None, given):
                console.warning("--%s %g, although %s was trained with %g", name, given, folder, value)
    return config


def _with_fact(config: EvalConfig, name: str, recorded: dict[Path, Any]) -> EvalConfig:
    given = getattr(config, name)
    if given is not None:
        for folder, value in recorded.items():
            if value != given:
                console.warning("--%s %s, although %s was trained with %s", name, _text(given), folder, _text(value))
        return config
    if not recorded:
        return config
    values = list(dict.fromkeys(recorded.values()))
    if len(values) > 1:
        shown = ", ".join(f"{_text(value)} of {folder}" for folder, value in recorded.items())
        raise InputError(f"the runs were trained with different --{name} ({shown}); say which holds here: --{name} {_text(values[0])}")
    console.info("--%s %s, as %s says", name, _text(values[0]), options_file(next(iter(recorded))))
    return replace(config, **{name: values[0]})


def _text(value: Any) -> str:
    return " ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else f"{value:g}"
