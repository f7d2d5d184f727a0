"""The README's figures are those that the committed benchmark results hold."""

import re

import pytest

from benchmarks.table import BLOCK, README, TABLES, table, with_tables


def test_the_readme_shows_the_committed_results():
    text = README.read_text(encoding="utf-8")
    assert {match[1] for match in BLOCK.findall(text)} == set(TABLES)
    assert with_tables(text) == text, "run: python -m benchmarks.table"


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_figure_changes_the_table(name):
    _, columns = TABLES[name]
    where = {"cpu": "c", "gpu": None, "cores": 2, "versions": {"torch": "2"}, "commit": "abc", "command": "python -m x"}
    result = {"circumstances": where, "setting": {"size_px": [1, 2]}, "rows": {"row": {column.key: 1.5 for column in columns}}}
    shown = table(name, result)
    assert len(re.findall(r"1\.5", shown)) == len(columns)
    assert "c, 2 cores; torch 2; commit abc" in shown
