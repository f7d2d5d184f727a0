"""Options: one field of a config gives an option's name, default, range and help, and everybody else reads them there.

The commands' pages, the checks of a config, ``opt.json`` and ``--resume`` follow from the fields; a new option is one line.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from splits.errors import InputError

C = TypeVar("C")
KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a field of a config is given on the command line, checked and saved; its type is the field's annotation.

    Attributes:
        name: without dashes, and the key in ``opt.json``.
        heading: under which it stands in the help.
        default_help: what the help shows in place of the default, where the command works the value out; it then gets None.
        choices, above, least, most: what each value must be one of, above, at least, or at most.
        word: of a flag: what may follow it; the option's value is then this word, and whoever makes the config says what it means.
        switch: of a flag that means something else than its field: the field's values without the flag and with it.
        resumable: whether a resumed run may change it: nothing that its numbers depend on.
        saved: whether ``opt.json`` holds it.
    """

    name: str
    heading: str
    help: str
    metavar: str | None = None
    default_help: str | None = None
    choices: tuple[Any, ...] | None = None
    above: float | None = None
    least: float | None = None
    most: int | None = None
    word: str | None = None
    switch: tuple[Any, Any] | None = None
    resumable: bool = False
    saved: bool = True

    def check(self, value: Any) -> None:
        """Raise InputError where the value, or one of several, is out of the option's range."""
        for one in value if isinstance(value, tuple) else (value,):
            if self.choices is not None:
                check_choice(self.name, one, self.choices)
            if self.above is not None or self.least is not None:
                check_range(self.name, one, above=self.above, least=self.least)
            if self.most is not None and one > self.most:
                raise InputError(f"{self.name}={one} must be at most {self.most}")


def option(default: Any, help: str, *, heading: str, name: str = "", **rest: Any) -> Any:
    """A dataclass field that is an option, see ``Option``; ``default`` may be ``MISSING``. The name is the field's unless it is given."""
    return field(default=default, metadata={KEY: Option(name=name, heading=heading, help=help, **rest)})


def options_of(config: Any) -> Iterator[tuple[Field[Any], Option]]:
    """The fields of a config, or of its class, that are options."""
    for each in fields(config):
        if KEY in each.metadata:
            found: Option = each.metadata[KEY]
            yield each, found if found.name else replace(found, name=each.name)


@cache
def annotations_of(cls: type) -> dict[str, Any]:
    """The types of a config's fields by name."""
    return get_type_hints(cls)


def kinds_of(annotation: Any) -> list[Any]:
    """The types that an annotation allows beside None: of ``Path | None`` only ``Path``."""
    union = isinstance(annotation, UnionType)
    return [kind for kind in (get_args(annotation) if union else (annotation,)) if kind is not NoneType]


def check_options(config: Any) -> None:
    """Raise InputError where a value of a config is out of its option's range; None is in every range."""
    for each, found in options_of(config):
        value = getattr(config, each.name)
        if value is not None:
            found.check(value)


def config_from(cls: type[C], values: Mapping[str, Any], **others: Any) -> C:
    """A config of options' values by name, and of ``others`` by field; the rest keeps its default.

    Raises:
        InputError: a value out of its range, or values that do not fit together.
    """
    given = {}
    for each, found in options_of(cls):
        if found.name in values:
            value = values[found.name]
            given[each.name] = value if found.switch is None else found.switch[bool(value)]
    return cls(**given | others)


def saved_values(config: Any) -> dict[str, Any]:
    """The values of a config's options by name, in the types that JSON has."""
    values = {}
    for each, found in options_of(config):
        if found.saved:
            value = getattr(config, each.name)
            values[found.name] = _plain(value) if found.switch is None else value == found.switch[1]
    return values


def default_of(each: Field[Any], found: Option) -> Any:
    """The option's value where a command is not given it."""
    if found.default_help is not None or each.default is MISSING:
        return None
    return each.default if found.switch is None else each.default == found.switch[1]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{name}={value} is unknown; choose from {', '.join(map(str, choices))}")


def whole_number(name: str, value: Any, *, least: int) -> int:
    """``value`` as an int, of numpy and torch too; ``InputError`` unless it is a whole number, ``least`` or more."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name}={value!r} must be a whole number")
    check_range(name, value, least=least)
    return operator.index(value)


def check_range(name: str, value: float, *, above: float | None = None, least: float | None = None) -> None:
    """Raise InputError unless ``value`` is finite, above ``above``, and ``least`` or more."""
    if not math.isfinite(value):
        raise InputError(f"{name}={value} must be a finite number")
    if above is not None and not value > above:
        raise InputError(f"{name}={value} must be above {above:g}")
    if least is not None and not value >= least:
        raise InputError(f"{name}={value} must be {'0 or more' if least == 0 else f'at least {least:g}'}")
