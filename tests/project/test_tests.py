"""The tests' own order: what is shared lies in ``support``, and everything there is used."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from places import PROJECT

TESTS = PROJECT / "tests"
SUPPORT = TESTS / "support"


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))


def test_no_file_imports_a_test() -> None:
    # In the text, so that programs for other processes count.
    found = {path: re.findall(r"\b(?:from|import) ((?:test_|tests\.|conftest\b)[\w.]*)", path.read_text()) for path in TESTS.rglob("*.py")}
    assert {path.name: names for path, names in found.items() if names} == {}


def test_every_helper_is_imported() -> None:
    helpers = {".".join(path.relative_to(SUPPORT).with_suffix("").parts) for path in SUPPORT.rglob("*.py")}
    assert helpers - {name for path in TESTS.rglob("*.py") for name in imported(path)} == set()
