"""Files read whole: within a limit, never waiting for a pipe, and with one line of whatever is wrong."""

import os
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from splits.errors import MOST_LETTERS, InputError
from splits.limits import TEXT_BYTES, TEXT_LINES
from splits.reading import JSON_BYTES, LINE_ENDS, read_bytes, read_json, read_lines, read_text

WHAT, REMEDY = "a list", "write one"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pipe, "is a pipe, not a list; write one"),
        (_socket, "No such device or address); write one"),
        (_device, "is a device, not a list; write one"),
        (Path.mkdir, "(Is a directory); write one"),
        (lambda path: None, "(No such file or directory); write one"),
    ],
)
def test_what_is_no_file_is_named_at_once(make: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    make(tmp_path / "there")
    with pytest.raises(InputError) as caught:
        read_bytes(tmp_path / "there", WHAT, REMEDY, TEXT_BYTES)
    assert str(caught.value).endswith(said)
    assert str(tmp_path / "there") in str(caught.value)


def test_a_file_beyond_its_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    monkeypatch.setenv(TEXT_BYTES.variable, "99")
    with pytest.raises(InputError, match=r"a: a text of 100 bytes is not read, at most 99 are; .* set MD_MAX_TEXT_BYTES to more"):
        read_text(tmp_path / "a", WHAT, REMEDY)
    with pytest.raises(InputError, match="has 100 bytes, far more than a list has; is it another file"):
        read_text(tmp_path / "a", WHAT, REMEDY, 99)
    assert read_text(tmp_path / "a", WHAT, REMEDY, 100) == "x" * 100
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="set MD_MAX_TEXT_BYTES"):
        read_bytes(tmp_path / "sparse", WHAT, REMEDY, TEXT_BYTES)


def test_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("1\n2\n3\n")
    assert read_lines(tmp_path / "a", WHAT, REMEDY) == ["1", "2", "3"]
    monkeypatch.setenv(TEXT_LINES.variable, "2")
    with pytest.raises(InputError, match="a text of 3 lines is not read"):
        read_lines(tmp_path / "a", WHAT, REMEDY)


@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "a\r\nb\x0bc\x1cd\u2028e", "\n\n", "\r\r\n", "a\x85b\rc\n", *(f"a{end}b" for end in LINE_ENDS)]
)
def test_lines_are_counted_before_they_are_parted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(text.encode())
    lines = text.splitlines()
    monkeypatch.setenv(TEXT_LINES.variable, str(max(1, len(lines))))
    assert read_lines(tmp_path / "a", WHAT, REMEDY) == lines
    if len(lines) > 1:
        monkeypatch.setenv(TEXT_LINES.variable, str(len(lines) - 1))
        with pytest.raises(InputError, match=f"a text of {len(lines)} lines is not read"):
            read_lines(tmp_path / "a", WHAT, REMEDY)


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    """One thread makes the file longer and shorter all the time: a reader gets one state of it whole, or says that it changed."""
    path, stop = tmp_path / "a", threading.Event()
    path.write_bytes(b"x" * 1000)

    def change() -> None:
        with path.open("r+b") as file:
            while not stop.is_set():
                for length in (3_000_000, 1000):
                    file.truncate(length)

    changer = threading.Thread(target=change)
    changer.start()
    seen = set[object]()
    changed = f"{path} changed while it was read; wait until it is written, and start again"
    try:
        for _ in range(20_000):
            try:
                seen.add(len(read_bytes(path, WHAT, REMEDY, TEXT_BYTES)))
            except InputError as error:
                seen.add(str(error))
            if {changed, 1000, 3_000_000} <= seen:
                break
    finally:
        stop.set()
        changer.join()
    assert seen <= {changed, 1000, 3_000_000}
    assert changed in seen


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"a": ' * 100_000, "1" * 5000, '{"a"', "\x00", "[1,]", "NaN1", '"\\ud800' + "x" * 3000, '{"' + "\n" * 99]
)
def test_json_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "a.json", WHAT, REMEDY)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(REMEDY)


def test_json_of_brackets_is_refused_by_its_length(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + "{}," * (JSON_BYTES // 3) + "{}]")
    with pytest.raises(InputError, match="far more than a list has"):
        read_json(tmp_path / "a.json", WHAT, REMEDY)


def test_a_message_is_one_short_line_whatever_it_quotes() -> None:
    hostile = "a\nb\x1b[31m\udce9\u202e" + "x" * 5_000_000
    said = str(InputError(f"start {hostile} end"))
    assert said.isprintable()
    said.encode("utf-8")
    assert said.startswith("start a\\nb\\x1b[31m\\udce9\\u202exxx")
    assert said.endswith("xxx end")
    assert len(said) == MOST_LETTERS
    assert str(InputError("größer als 5 µm")) == "größer als 5 µm"


def test_lines_are_counted_before_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of one letter takes sixty bytes of memory."""
    monkeypatch.setenv(TEXT_LINES.variable, "1000")
    for end in LINE_ENDS:
        (tmp_path / "a").write_text(f"\u0101{end}" * 100_000, encoding="utf-8", newline="")
        tracemalloc.start()
        with pytest.raises(InputError, match="a text of 100,000 lines is not read"):
            read_lines(tmp_path / "a", WHAT, REMEDY)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 3_000_000
