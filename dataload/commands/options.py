"""click options in the style of Monodepth2's parser: ``--frame_ids 0 -1 1``, and help in groups."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from dataload.commands.command import Command, NameOrFolder, folder_path, named
from dataload.datasets import DATASETS, find_entry_point, known_names
from dataload.option import Option, annotations_of, default_of, kinds_of, options_of
from splits import NAMES, subsets
from splits.errors import InputError

F = Callable[..., Any]
Settings = Mapping[str, Any]
NO_CHANGES: Mapping[str, Settings] = {}


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

    def __init__(self, element: Callable[[str], Any], names: Sequence[str] = ()) -> None:
        self.element, self.names = element, names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that a value can be."""
        return named(self.names, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Split and convert."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(self.element(token) for token in value.replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} must be {self.element.__name__} values separated by blanks, for example 0 -1 1", param, ctx)


class Choice(click.Choice):
    """One of the values, numbers too; converts to the value."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__([str(value) for value in values])
        self.values = {str(value): value for value in values}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Choose."""
        return self.values[super().convert(str(value), param, ctx)]


class OrWord(click.ParamType):
    """What may follow a flag: nothing, or one word; converts to True, or to the word."""

    name = "word"

    def __init__(self, word: str) -> None:
        self.word = word

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The word."""
        return named([self.word], incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool | str:
        """Refuse any other word."""
        if isinstance(value, bool) or value == self.word:
            return value
        self.fail(f"only {self.word!r} may follow it, not {value!r}", param, ctx)


class DatasetName(click.ParamType):
    """What ``--dataset`` takes: a name of ``DATASETS``, of an installed package's entry point, or ``package.module:Class``."""

    name = "dataset"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as a choice shows them."""
        return f"[{'|'.join(DATASETS)}|MODULE:CLASS]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names, of installed packages too."""
        return named(known_names(), incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name if it is known; a class is imported when it is used."""
        if value not in DATASETS and ":" not in value:
            try:
                find_entry_point(value)
            except InputError as error:
                self.fail(str(error), param, ctx)
        return str(value)


# The published splits that can be trained on, and those with a test list.
TRAIN_SPLITS, TEST_SPLITS = ([name for name in NAMES if part in subsets(name)] for part in ("train", "test"))

# Types of options whose field's annotation does not say.
TYPES: Mapping[str, click.ParamType] = {
    "dataset": DatasetName(), "split": NameOrFolder(TRAIN_SPLITS), "eval_split": NameOrFolder([*TEST_SPLITS, "odom_9", "odom_10"]),
}  # fmt: skip


class GroupedCommand(Command):
    """A command whose help stands under headings, whose ``many`` options take values in a row, and which suggests the nearest option."""

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


def config_options(
    *configs: type,
    headings: Sequence[str] = (),
    heading: str | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    changes: Mapping[str, Settings] = NO_CHANGES,
) -> Callable[[F], F]:
    """A decorator that gives a command the options that the fields of configs are (see ``dataload.option``).

    Args:
        headings: their order, where it differs from that of the fields.
        heading: one for all these options, in place of the fields' own.
        only, without: options by name that this command takes, or does not take.
        changes: click's settings that differ in this command, by option.
    """
    found = [(cls, each, entry) for cls in configs for each, entry in options_of(cls)]
    found = [item for item in found if item[2].name not in without and (only is None or item[2].name in only)]
    found.sort(key=lambda item: headings.index(item[2].heading) if headings else 0)

    def give(command: F) -> F:
        for cls, each, entry in reversed(found):
            names, settings = _click_settings(each, entry, annotations_of(cls)[each.name])
            settings |= changes.get(entry.name, {})
            command = option_group(heading or entry.heading)(*names, **settings)(command)
        return command

    return give


def option_help(entry: Option) -> str:
    """An option's help, with words for its default where the command computes it."""
    return entry.help if entry.default_help is None else f"{entry.help}  [default: {entry.default_help}]"


def _click_settings(each: Field[Any], entry: Option, annotation: Any) -> tuple[list[str], dict[str, Any]]:
    """The names and the settings that click takes of an option."""
    settings: dict[str, Any] = {"default": default_of(each, entry), "help": option_help(entry), "metavar": entry.metavar}
    kinds = kinds_of(annotation)
    if entry.word is not None:
        # An option whose value may be left out; a default of False is not worth showing, as for all flags.
        flag = {"is_flag": False, "flag_value": True, "type": OrWord(entry.word), "metavar": f"[{entry.word}]", "show_default": False}
        return [f"--{entry.name}"], settings | flag
    if entry.switch is not None or annotation is bool:
        return [f"--{entry.name}"], {**settings, "is_flag": True}
    if bool in kinds:
        return [f"--{entry.name}/--no_{entry.name}"], settings
    # Of tuple[int, ...] the element's type; the other argument is an ellipsis.
    element = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple), None)
    if element is not None:
        if settings["default"] is not None:
            settings["default"] = " ".join(map(str, settings["default"]))
        return [f"--{entry.name}"], {**settings, "type": Values(element, entry.choices or ()), "many": True}
    if entry.name in TYPES:
        settings["type"] = TYPES[entry.name]
    elif entry.choices:
        settings["type"] = Choice(entry.choices)
    else:
        settings["type"] = folder_path() if Path in kinds else kinds[0]
    return [f"--{entry.name}"], settings
