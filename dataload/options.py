"""click options as this field writes them: ``--frame_ids 0 -1 1``, grouped help, everything that Monodepth2's parser took."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import click

from dataload.command import Command

DEPTH_SCALE_HELP = "Value in a depth PNG a metre, for evo and folder datasets  [default: calibration.yaml's, else 256]"

F = Callable[..., Any]


class GroupedOption(click.Option):
    """An option that stands under a heading in the help; with ``many`` it takes one or more values in a row."""

    def __init__(self, *args: Any, group: str = "Other", many: bool = False, **kwargs: Any) -> None:
        self.group, self.many = group, many
        super().__init__(*args, **kwargs)


class Unlisted(click.Argument):
    """An argument that stands in the usage line alone, not in the help's lists."""

    def get_help_record(self, ctx: click.Context) -> None:  # type: ignore[override]
        """None: no line in the help."""


class Values(click.ParamType):
    """One or more values separated by blanks or commas, each of ``element``'s type; converts to a tuple."""

    name = "values"

    def __init__(self, element: Callable[[str], Any]) -> None:
        self.element = element

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Split and convert."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(self.element(token) for token in value.replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} must be {self.element.__name__} values separated by blanks, for example 0 -1 1", param, ctx)


class GroupedCommand(Command):
    """A command whose help stands under headings, whose ``many`` options take values in a row, and which knows near misses."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the values of each ``many`` option into one argument, then parse as usual."""
        many = {name for p in self.params if isinstance(p, GroupedOption) and p.many for name in p.opts}
        try:
            return super().parse_args(ctx, _join_values(args, many))
        except click.NoSuchOption as error:
            known = [name for p in self.params for name in (*p.opts, *p.secondary_opts)]
            near = difflib.get_close_matches(error.option_name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {ctx.command_path} --help"
            raise click.UsageError(f"no such option {error.option_name}; {hint}", ctx=ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, in the order they were declared."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", "Other"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _join_values(args: Sequence[str], many: set[str]) -> list[str]:
    joined: list[str] = []
    rest = list(args)
    while rest:
        token = rest.pop(0)
        joined.append(token)
        if token in many:
            values = []
            while rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            if values:
                joined.append(" ".join(values))
    return joined


def _is_option(token: str) -> bool:
    return token.startswith("-") and not token.lstrip("-").replace(".", "", 1).isdigit()


def option_group(heading: str) -> Callable[..., Callable[[F], F]]:
    """An ``option(...)`` decorator whose options stand under ``heading``."""

    def option(*names: str, **kwargs: Any) -> Callable[[F], F]:
        kwargs.setdefault("show_default", True)
        return click.option(*names, cls=GroupedOption, group=heading, **kwargs)

    return option
