"""Each message that docs/troubleshooting.md and docs/distributed.md quote is one that the code still has."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from places import PROJECT, ROOMS

TEXT, DISTRIBUTED = ((PROJECT / "docs" / page).read_text(encoding="utf-8") for page in ("troubleshooting.md", "distributed.md"))
# The lines of text blocks, and the messages of the tables of weights and of several processes.
QUOTED = [line for block in re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
QUOTED += [
    name
    for row in re.findall(r"^\| (`(?:is|belongs|load|has damaged|holds|there) [^|]*) \|", TEXT, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", row)
]
QUOTED += re.findall(r"^\| `([^`]+)` \|", DISTRIBUTED.partition("| message |")[2].partition("\n\n")[0], re.MULTILINE)
# What stands for something else: dots in the page, values in the code, numbers in both.
GAP = re.compile(r"\.\.\.|\0|%\w|\d+")
LEAST_LETTERS = 5


def literals(tree: ast.AST) -> Iterator[str]:
    """The texts of a module; where a value comes in, there is a gap."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


@cache
def code() -> list[str]:
    modules = (path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py")))
    return [GAP.sub("\0", text) for path in modules for text in literals(ast.parse(path.read_text(encoding="utf-8")))]


def pieces(quoted: str) -> list[str]:
    """The pieces of a message between its gaps."""
    parts = (part.strip(" ;,:(){}<>-") for part in GAP.split(quoted))
    return [part for part in parts if len(re.findall(r"[a-z]", part)) >= LEAST_LETTERS]


def test_there_are_messages_to_look_for() -> None:
    assert len(QUOTED) > 40
    assert all(map(pieces, QUOTED))


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_code_has_the_message(quoted: str) -> None:
    lost = [piece for piece in pieces(quoted) if not any(piece in text for text in code())]
    assert not lost, f"no room says {lost}"
