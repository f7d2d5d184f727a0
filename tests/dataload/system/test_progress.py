"""Progress bars as they are read: one word for a unit, per second, and nothing where there is nothing to count."""

import re
import time

import pytest

from dataload.system.progress import progress_bar


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.strip() for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.strip()]


def test_units_have_a_blank_and_a_speed_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(4, "decoding", "frames", in_logs=True) as bar:
        bar.update(4)
    first, *_, last = lines(capsys)
    assert re.fullmatch(r"decoding:   0%\|\s*\| 0/4 \[00:00<\?, \? frames/s\]", first)
    assert re.fullmatch(r"decoding: 100%\|.+\| 4/4 \[00:00<00:00, *[\d.]+ frames/s\]", last)


def test_what_is_slow_is_told_per_second_too(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(2, "", "steps", in_logs=True) as bar:
        time.sleep(1.2)
        bar.update()
    assert re.search(r"1/2 \[00:01<00:01, +0\.\d\d steps/s\]", lines(capsys)[-1])


def test_bytes_keep_their_prefixes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(3_000_000, "a.zip", "B", in_logs=True) as bar:
        bar.update(3_000_000)
    assert re.search(r"\| 3\.00M/3\.00M \[00:00<00:00, *[\d.]+[kMGT]?B/s\]", lines(capsys)[-1])


def test_of_nothing_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    progress_bar(0, "ground truth", "images", in_logs=True).close()
    assert list(progress_bar(0, "ground truth", "images", items=[], in_logs=True)) == []
    progress_bar(None, "drive", "frames", in_logs=True).close()  # ended before its first frame
    assert lines(capsys) == []


def test_where_nobody_knows_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(None, "drive", "frames", in_logs=True) as bar:
        time.sleep(1.1)
        bar.update(30)
    assert re.fullmatch(r"drive: 30 frames \[00:01, *[\d.]+ frames/s\]", lines(capsys)[-1])


def test_a_name_before_it_is_no_command_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1, "a\x1b[2J\nb.mp4", "frames", in_logs=True) as bar:
        bar.update()
    assert all(line.startswith("a\\x1b[2J\\nb.mp4: ") for line in lines(capsys))
