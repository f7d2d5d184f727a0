"""docs/security.md: its limits are those of the code, and each of its faults names a test that there is."""

import ast
import re

from places import PROJECT

from splits.limits import LIMITS

PAGE = PROJECT / "docs" / "security.md"
LIMIT_ROW = re.compile(r"^\| `(MD_MAX_\w+)` \| ([\d,]+) (.+?) \| (.+) \|$", re.MULTILINE)
FAULT_ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<result>[^|]+) \| (?P<tests>`tests/[^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_limits_are_those_of_the_code() -> None:
    shown = {(variable, count, unit) for variable, count, unit, _ in LIMIT_ROW.findall(PAGE.read_text(encoding="utf-8"))}
    assert shown == {(limit.variable, f"{limit.default:,}", limit.unit) for limit in LIMITS}


def test_each_fault_names_tests_that_there_are() -> None:
    rows = list(FAULT_ROW.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(rows) >= 20
    missing = []
    for row in rows:
        named = TEST.findall(row["tests"])
        assert named, row[0]
        missing += [f"{file}::{name}" for file, name in named if not has_test(file, name)]
    assert missing == []


def has_test(file: str, name: str) -> bool:
    path = PROJECT / file
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    return name.startswith("test_") and name in {function.name for function in functions}
