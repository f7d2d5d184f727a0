"""The README's figures are those that the committed benchmark results hold."""

import json

import pytest

from benchmarks import table as module
from benchmarks.harness import RESULTS
from benchmarks.table import BLOCK, COMMANDS, README, TABLES, fill_tables, table

WHERE = {"cpu": "c", "gpu": None, "cores": 2, "versions": {"torch": "2"}, "commit": "abc", "command": "python -m x"}


def result(rows: dict[str, dict[str, float]]) -> dict[str, object]:
    return {"circumstances": WHERE, "setting": {"size_px": [1, 2]}, "rows": rows}


def test_the_readme_shows_the_committed_results():
    text = README.read_text(encoding="utf-8")
    shown = {match[1] for match in BLOCK.findall(text)}
    assert shown <= set(TABLES)
    assert {path.stem for path in RESULTS.glob("*.json")} <= shown, "a result without a table"
    assert fill_tables(text) == text, "run: python -m benchmarks.table"


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_figure_changes_the_table(name):
    _, columns = TABLES[name]
    figures = {column.key: 3.0 + number for number, column in enumerate(columns)}
    shown = table(name, result({"row": figures}))
    assert "| row | " + " | ".join(column.form.format(figures[column.key]) for column in columns) + " |" in shown
    assert "c, 2 cores; torch 2; commit abc" in shown


def test_what_a_row_lacks_is_a_dash_and_what_all_lack_has_no_column():
    shown = table("bench_loader", result({"plain": {"samples_per_s": 2.0, "frames_per_s": 6.0}, "building": {"frames_per_s": 9.0}}))
    assert "| loader | samples/s | frames/s |\n" in shown
    assert "| plain | 2.0 | 6 |\n| building | – | 9 |\n" in shown


def test_without_a_result_the_command_that_makes_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    text = "before\n<!-- table: bench_loader_gpu -->\nold\n<!-- end -->\nafter\n"
    empty = fill_tables(text)
    assert "`make bench-gpu` does it" in empty
    assert "old" not in empty
    (tmp_path / "bench_loader_gpu.json").write_text(json.dumps(result({"plain": {"samples_per_s": 7.0}})))
    assert "| plain | 7.0 |" in fill_tables(empty)
    assert set(COMMANDS) <= set(TABLES)
