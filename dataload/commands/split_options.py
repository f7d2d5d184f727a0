"""The options of commands that make split lists, once for all of them; importing this is cheap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dataload.commands.options import option_group

F = Callable[..., Any]

split = option_group("Split lists")
share = click.FloatRange(0, 1, max_open=True)


def split_options(command: F) -> F:
    """Give a command ``val_share``, ``test_share``, ``seed``, ``keep_static``, as ``make_split`` takes them, and ``replace_split``."""
    for option in reversed(
        (
            split("--val", "val_share", type=share, default=0.1, metavar="SHARE", help="Share of all targets for validation."),
            split("--test", "test_share", type=share, default=0.1, metavar="SHARE", help="Share of all targets for test."),
            split("--seed", default=0, help="Seed of the random choice of sequences for validation and test."),
            split("--keep_static", is_flag=True, help="List frames of a camera at rest too; nothing is learned from them."),
            split("--replace_split", is_flag=True, help="Replace existing lists that differ; by default they are kept."),
        )
    ):
        command = option(command)
    return command


def no_split_option(command: F) -> F:
    """Give a command ``no_split``."""
    return split("--no_split", is_flag=True, help="Make no lists; md-data splits --from makes them later.")(command)
