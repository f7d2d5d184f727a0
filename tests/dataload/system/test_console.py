"""The console's messages within a call, and the logging of the program that makes it."""

import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from dataload.system.console import console, shown_console


@pytest.fixture(autouse=True)
def bare_console(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a program that has not used it."""
    level = console.level
    monkeypatch.setattr(console, "handlers", [])
    console.setLevel(logging.NOTSET)
    yield
    console.setLevel(level)


@pytest.fixture
def root_handlers() -> Iterator[list[logging.Handler]]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield root.handlers
    root.handlers[:] = before


def test_messages_are_shown_within_a_call_and_logging_is_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with shown_console():
            with shown_console():
                console.info("inner")
            console.info("outer")
        assert capsys.readouterr().err == "inner\nouter\n"
    with pytest.raises(KeyError), shown_console():
        raise KeyError
    assert (console.level, console.handlers) == (logging.NOTSET, [])
    console.info("after")
    assert capsys.readouterr().err == ""


def test_calls_in_several_threads_put_it_back_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = shown_console(), shown_console()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    console.info("still shown")
    second.__exit__(None, None, None)
    assert capsys.readouterr().err == "still shown\n"
    assert (console.level, console.handlers) == (logging.NOTSET, [])


def test_a_program_that_logs_to_the_terminal_gets_each_message_once(
    capsys: pytest.CaptureFixture[str], root_handlers: list[logging.Handler]
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("mine: %(message)s"))
    root_handlers.append(handler)
    with shown_console():
        console.info("a step")
    assert capsys.readouterr().err == "mine: a step\n"


@pytest.mark.parametrize("shown_by", ["us", "another program", "nobody"])
def test_names_of_files_are_no_commands_to_a_terminal(
    shown_by: str, capsys: pytest.CaptureFixture[str], root_handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shown_by == "another program":
        root_handlers.append(logging.StreamHandler(sys.stderr))
    if shown_by == "nobody":  # Python shows warnings itself then
        root_handlers.clear()
        monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(sys.stderr))
    with shown_console() if shown_by != "nobody" else nullcontext():
        console.warning("%s: %.2f of %d, %s", Path("a\x1b]0;title\x07\nError: b\udce9"), 0.5, 3, "größer")
    assert capsys.readouterr().err == "a\\x1b]0;title\\x07\\nError: b\\udce9: 0.50 of 3, größer\n"
