"""docs/security.md: its limits are those of the code, each of its faults names a test that there is, and text of files reaches nothing that
interprets it but through the mechanism that is there for it."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from places import PROJECT, ROOMS

from splits.limits import LIMITS

PAGE = PROJECT / "docs" / "security.md"
LIMIT_ROW = re.compile(r"^\| `(MD_MAX_\w+)` \| ([\d,]+) (.+?) \| (.+) \|$", re.MULTILINE)
FAULT_ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<result>[^|]+) \| (?P<tests>`tests/[^|]+) \|$", re.MULTILINE)
# The end of a command that a message suggests, before a value that an option takes.
COMMAND = re.compile(r"\bmd-(data|train|eval|export|predict)\b[^;]* --\w+[ =]$")
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


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Where the rooms call something by that name, and how."""
    for where, node in nodes():
        if isinstance(node, ast.Call) and re.fullmatch(name, ast.unparse(node.func)):
            yield where, node


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """All parts of the rooms' code that call or join something, and where each is."""
    found = []
    for path in (path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py"))):
        name, tree = path.relative_to(PROJECT), ast.parse(path.read_text(encoding="utf-8"))
        found += [(f"{name}:{node.lineno}", node) for node in ast.walk(tree) if isinstance(node, ast.Call | ast.JoinedStr)]
    return found


def in_file(*names: str) -> Callable[[str], bool]:
    return lambda where: where.partition(":")[0] in names


def test_no_shell_is_started() -> None:
    started = list(calls(r"subprocess\.\w+"))
    assert started
    as_text = [
        where for where, call in started if not isinstance(call.args[0], ast.List) or any(word.arg == "shell" for word in call.keywords)
    ]
    assert as_text == []
    assert [where for where, _ in calls(r"os\.(system|popen|exec\w+|spawn\w+)|subprocess\.get\w+|eval|exec|pickle\.loads?")] == []


@pytest.mark.parametrize(
    ("name", "only_in"),
    [
        (r"click\.(s?echo|secho)|sys\.std\w+\.write", in_file("dataload/commands/command.py")),  # ``say`` prints names of files
        ("print", in_file("dataload/system/console.py", "dataload/doctor/probes.py")),
        (r"\w*\.add_text", in_file()),  # TensorBoard shows Markdown
        (r"yaml\.(load|dump|unsafe_\w+|full_load)", in_file("dataload/frames/yaml_file.py")),  # a loader of plain values
        (r"csv\.(Dict)?[Ww]riter", in_file("engine/evaluation/output.py")),  # ``csv_text``
        (r"(jinja2\.)?Environment", in_file("engine/evaluation/report.py", "engine/odometry/plot.py", "export/targets/hub.py")),
    ],
)
def test_what_interprets_text_is_used_where_text_is_made_ready_for_it(name: str, only_in: Callable[[str], bool]) -> None:
    assert [where for where, _ in calls(name) if not only_in(where)] == []


def test_pages_escape_what_they_show() -> None:
    for where, call in calls("Environment"):
        if not where.startswith("export/targets/hub.py"):  # Markdown, which ``markdown_text`` escapes
            assert any(word.arg == "autoescape" and ast.unparse(word.value) == "True" for word in call.keywords), where


def test_patterns_of_messages_are_our_own() -> None:
    """A ``%`` in a file's name would be a pattern; and what is no argument is shown as it is."""
    said = list(calls(r"console\.(debug|info|warning|error)"))
    assert said
    own = (ast.Constant, ast.Name)
    assert [where for where, call in said if not isinstance(call.args[0], own)] == []
    assert {ast.unparse(call.args[0]) for _, call in said if isinstance(call.args[0], ast.Name)} <= {"UNCOMPILED"}


def test_commands_that_messages_suggest_can_be_pasted() -> None:
    """A value of an option in them is quoted for a shell, or a word of our own in capitals."""
    seen, bare = 0, []
    for where, node in nodes():
        if not isinstance(node, ast.JoinedStr):
            continue
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            value = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
            if COMMAND.search(text):
                seen += 1
                bare += [] if value.startswith("quoted(") or value.isupper() else [f"{where}: {value}"]
            text += "VALUE"
    assert seen >= 5
    assert bare == []
