"""The names that a room offers, each imported when it is first asked for: importing a room costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from splits.version import version


def lazy_names(room: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a room (PEP 562) whose public names lie in ``modules``; ``__version__`` beside them.

    A room writes the same imports under ``TYPE_CHECKING``, for type checkers and the documentation; a test compares the two.
    """

    def get(name: str) -> Any:
        if name == "__version__":
            found: Any = version()
        elif name in modules:
            found = getattr(import_module(modules[name]), name)
        else:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        setattr(sys.modules[room], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[room]), *modules, "__version__"})

    return get, names
